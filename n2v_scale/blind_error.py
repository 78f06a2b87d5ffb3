"""The true error of a denoised volume, estimated from the noisy one alone.

A voxel is y = x + n, and its prediction p. With the noise's variance s²::

    E (p - x)² = E (p - y)² - s² + 2 E p n,    E p n = s² E dp/dy

the latter by Stein's lemma (1981), exactly for normal noise. A blind prediction has not seen the
noise of the voxel: dp/dy is 0, and the equation holds for any noise that is independent of its
neighbours (Batson and Royer 2019, eq. 1). Where the prediction has seen the voxel, dp/dy is what
it answers to a small random change of all voxels, times that change (Ramani et al. 2008). That goes
for a blind prediction to which the voxel's own value was put back, too: its weight alone will not
do, as it comes from residuals around the voxel, whose predictions have seen it.

The variance of a camera's noise is a line, ``s² = gain (x - offset) + read²``, so that with y in
the place of x it is right on average, whatever the prediction is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.noise import NoiseModel

Array = npt.NDArray[Any]

CONFIDENCE = 1.96


@dataclass(frozen=True)
class BlindError:
    """Of one box of voxels."""

    voxels: int
    loss: float
    """Mean of (p - y)²."""
    noise: float
    """Mean variance of the noise."""
    mse: float
    """Estimate of the mean squared error."""
    response: float
    """How the estimate falls when all noise variances grow, per unit of their relative change."""
    scatter: float
    """Variance of the estimate's terms, from voxel to voxel."""


def box_error(
    noisy: Array,
    predicted: Array,
    noise: NoiseModel,
    seen: Array | float = 0.0,
    *,
    rounding: float = 0.0,
    where: npt.NDArray[np.bool_] | None = None,
) -> BlindError | None:
    """The sums over a box (z, y, x); None where there is no voxel.

    Parameters
    ----------
    noisy, predicted
        The voxels and what is made of them.
    noise
        Of the camera.
    seen
        ``s² dp/dy``, whose mean alone must be right; 0 where the prediction is blind.
    rounding
        Variance that whole numbers add to the noise, 1/12.
    where
        The voxels that count; those that are finite when None.
    """
    chosen = np.isfinite(noisy) if where is None else where & np.isfinite(noisy)
    y, p = noisy[chosen].astype(np.float64), predicted[chosen].astype(np.float64)
    if not y.size:
        return None
    overlap = 2 * np.broadcast_to(seen, chosen.shape)[chosen].astype(np.float64)
    squared = (p - y) ** 2
    variance = noise.gain * (y - noise.offset) + noise.read_noise**2 + rounding
    terms = squared - variance + overlap
    return BlindError(
        y.size,
        float(squared.mean()),
        float(variance.mean()),
        float(terms.mean()),
        float((overlap - variance).mean()),
        float(terms.var()),
    )


@dataclass(frozen=True)
class ErrorEstimate:
    """Of a whole volume, from its boxes."""

    mse: float
    error: float
    """Half-width at 95%: which boxes were looked at, chance in the noise, and the noise model."""
    loss: float
    noise: float
    response: float
    voxels: int

    @property
    def interval(self) -> tuple[float, float]:
        """The mean squared error at 95%; never below 0."""
        return max(0.0, self.mse - self.error), max(0.0, self.mse + self.error)

    def psnr(self, data_range: float) -> tuple[float, float, float]:
        """The estimate, and the lowest and the highest at 95%, in dB; inf where it may be none."""
        low, high = self.interval
        found = [_decibel(value, data_range) for value in (self.mse, high, low)]
        return found[0], found[1], found[2]

    @property
    def percent_of_noise(self) -> float:
        """By how many dB the estimate moves when the noise's variance is taken for 1% too small."""
        if self.mse <= 0:
            return math.inf
        return 10 * abs(math.log10(max(1 + 0.01 * abs(self.response) / self.mse, 1e-30)))


def estimate_of(
    boxes: Sequence[BlindError], *, unseen: float, noise_error: float, seen_error: float = 0.0
) -> ErrorEstimate | None:
    """All boxes together; None where there are none.

    Parameters
    ----------
    unseen
        Share of the volume's voxels that is in none of the boxes: as far as the boxes differ, it
        may be another.
    noise_error
        Half-width at 95% of the noise variance's relative error.
    seen_error
        The same of what the prediction has seen of the noise.
    """
    if not boxes:
        return None
    share = np.array([box.voxels for box in boxes], np.float64)
    total = share.sum()
    share /= total
    mse = np.array([box.mse for box in boxes])
    mean = float(share @ mse)
    response = float(share @ [box.response for box in boxes])
    within = float(sum(box.scatter * box.voxels for box in boxes)) / total**2
    many = len(boxes) / max(1, len(boxes) - 1)
    between = many * float(np.sum((share * (mse - mean)) ** 2)) if len(boxes) > 1 else mean**2
    chance = CONFIDENCE * math.sqrt(within + unseen * between)
    loss = float(share @ [box.loss for box in boxes])
    noise = float(share @ [box.noise for box in boxes])
    seen = mean - loss + noise  # 2 E p n
    return ErrorEstimate(
        mean,
        math.hypot(chance, noise_error * response, seen_error * seen),
        loss,
        noise,
        response,
        int(total),
    )


def _decibel(mse: float, data_range: float) -> float:
    return 10 * math.log10(data_range**2 / mse) if mse > 0 else math.inf
