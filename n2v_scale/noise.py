"""The noise of a camera, as the data show it: variance as a straight line of the mean.

A first estimate, from small cells of a sample: in each the mean, and the variance of what a
high-pass filter leaves. Structure adds to that variance and never takes from it, so at every
brightness the line goes through the quiet cells (Foi et al. 2008, IEEE TIP 17:1737, fit the same
line to segments).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from n2v_scale.geometry import Halo

FloatArray = npt.NDArray[np.floating]

REACH = 5
RESIDUAL_HALO: Halo = ((REACH, REACH),) * 3
"""How far around a voxel the residuals of a blind prediction are looked at; see ``posterior``."""
BINS = 16
FEWEST_IN_BIN = 8
QUIET = 0.25
"""Of the cells of one brightness, the quantile of the variance that the line goes through."""
QUIET_SCORE = -0.6745
"""Of a normal distribution: where that quantile lies."""
LEAST_GROWTH = 0.1
"""Of the variance, over the sampled brightnesses, that counts as a gain."""
MOST_MISFIT = 0.2
DARKEST = 0.01
"""Quantile of the cells' means that counts as no light."""


@dataclass(frozen=True)
class NoiseModel:
    """``variance = gain * (mean - offset) + read_noise²``, in the volume's units."""

    gain: float
    """Units an electron; 0 where the noise does not grow with the signal."""
    offset: float
    """What a voxel without light holds: the darkest sampled places, taken as dark."""
    read_noise: float
    """Standard deviation without light."""
    misfit: float = 0.0
    """How far the sampled variances lie off the line, as a mean factor's logarithm: above 0.2 there
    is more structure than noise in them, and the gain is likely that of the structure."""

    @property
    def trusted(self) -> bool:
        """Whether the data lie on the line."""
        return self.misfit < MOST_MISFIT

    @property
    def read_noise_electrons(self) -> float | None:
        """The read noise over the gain; None where there is no gain."""
        return self.read_noise / self.gain if self.gain > 0 else None

    def normalised(self, offset: float, scale: float) -> NoiseModel:
        """Of ``(values - offset) / scale``."""
        dark = (self.offset - offset) / scale
        return NoiseModel(self.gain / scale, dark, self.read_noise / scale, self.misfit)

    def variance(self, mean: FloatArray) -> FloatArray:
        """Of the noise where the signal is ``mean``."""
        above: FloatArray = np.maximum(mean - self.offset, 0)
        return self.gain * above + self.read_noise**2


def fit_noise(means: FloatArray, variances: FloatArray, freedom: float) -> NoiseModel | None:
    """The line through the quiet cells; None where there are too few.

    Parameters
    ----------
    means, variances
        Of cells, in the volume's units and their square. NaN is left out.
    freedom
        Degrees of freedom of one cell's variance: how far it scatters by itself.
    """
    known = np.isfinite(means) & np.isfinite(variances)
    means, variances = means[known].astype(np.float64), variances[known].astype(np.float64)
    if means.size < FEWEST_IN_BIN:
        return None
    offset = float(np.quantile(means, DARKEST))
    order = np.argsort(means)
    bins = np.array_split(order, max(1, min(BINS, means.size // FEWEST_IN_BIN)))
    centres = np.array([means[b].mean() for b in bins])
    correction = max(0.1, 1 + QUIET_SCORE * np.sqrt(2 / freedom))
    quiet = np.array([np.quantile(variances[b], QUIET) for b in bins]) / correction
    gain, at_offset = _line(centres - offset, quiet)
    if gain * np.ptp(centres) < LEAST_GROWTH * at_offset:  # no more than chance
        gain, at_offset = 0.0, float(np.median(quiet))
    fitted = np.maximum(gain * (centres - offset) + at_offset, 1e-30)
    misfit = float(np.abs(np.log(np.maximum(quiet, 1e-30) / fitted)).mean())
    return NoiseModel(gain, offset, float(np.sqrt(at_offset)), misfit)


def _line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Slope and intercept, neither negative, of least relative squares, twice reweighted.

    A bin above the line is one full of structure: it counts less, the further it lies above.
    """
    weight = 1 / np.maximum(y, max(1e-30, float(y.max()) * 1e-6)) ** 2
    slope = intercept = 0.0
    for _ in range(5):
        slope, intercept = _nonnegative(x, y, weight)
        fitted = np.maximum(slope * x + intercept, 1e-30)
        above = np.maximum(y / fitted - 1, 0)
        weight = 1 / fitted**2 / (1 + (above / 0.2) ** 2)
    return slope, intercept


def _nonnegative(x: FloatArray, y: FloatArray, weight: FloatArray) -> tuple[float, float]:
    from scipy.optimize import nnls

    root = np.sqrt(weight / weight.max())
    scale = max(1e-30, float(np.abs(x).max()))
    design = np.stack([x / scale * root, root], axis=1)
    (slope, intercept), _ = nnls(design, y * root)
    return float(slope / scale), float(intercept)
