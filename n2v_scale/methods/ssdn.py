"""Self-supervised denoising with a network that is blind by construction (Laine et al. 2019).

The network predicts a normal distribution from the neighbours; with the camera's noise on top it
must explain the voxel itself. Every voxel of a patch is learned from. At prediction the voxel's own
value is put back by Bayes: :mod:`n2v_scale.posterior`.

Where the noise is not known it is learned together with the network (:class:`LearningNoise`): the
two must explain the voxels between them, and what both could explain is the noise's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import ClassVar

import torch
from torch import Tensor, nn

from n2v_scale.geometry import Box, Halo, Shape
from n2v_scale.methods.base import Example, TensorEstimate
from n2v_scale.noise import NoiseModel
from n2v_scale.streams import Streams

LEAST_VARIANCE = 1e-4
"""Of the prediction, over the noise's at the volume's mean; the most is its inverse."""
NOISE_FIRST = 0.01
"""Weight of the logarithm of all variance over the noise's, which draws what may be noise into it.
"""


@dataclass(frozen=True)
class BlindSpot:
    """Negative log-likelihood of every voxel under the predicted distribution and the noise."""

    noise: NoiseModel
    """Of normalised voxels."""
    unit: NoiseModel | None = None
    """Whose variance, where the prediction lies, is the unit of the predicted variance; that of the
    noise at the volume's mean, everywhere, when None."""
    name: str = "ssdn"
    blind: ClassVar[bool] = True
    closed_form: ClassVar[bool] = False
    reach: ClassVar[Shape] = (0, 0, 0)
    passes: ClassVar[int] = 1

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """The patches as they are; see :class:`n2v_scale.methods.base.Method`."""
        del streams
        clean = torch.nan_to_num(batch, nan=0.0)
        return Example(clean, clean, torch.isfinite(batch).to(clean))

    def loss(self, output: Tensor, example: Example) -> Tensor:
        """Mean over the voxels of ``(error² / variance + log variance) / 2``.

        Of an output that has only one voxel in some, those count. The noise's variance is taken
        where the prediction lies and held there: a prediction gains nothing by claiming a
        brightness that is noisy.
        """
        found = self._distribution(output)
        assert found.std is not None
        noise = self.noise_variance(found.mean.detach())
        return _likelihood(found, found.std.square() + noise, example)

    def infer(
        self,
        network: nn.Module,
        tile: Tensor,
        crop: Halo,
        inside: Box | None,
        origin: Shape = (0, 0, 0),
    ) -> TensorEstimate:
        """The distribution that the network predicts."""
        del origin
        return self._distribution(network(tile, crop, inside))

    def noise_variance(self, mean: Tensor) -> Tensor:
        """Of the noise where the signal is ``mean``."""
        return _variance(self.noise, mean)

    def _distribution(self, output: Tensor) -> TensorEstimate:
        """From mean and log-variance, (b, 2, z, y, x), the latter in units of the noise."""
        mean = output[:, :1]
        unit: Tensor | float = typical_variance(self.noise)
        if self.unit is not None:
            unit = _variance(self.unit, mean.detach())
        bound = -log(LEAST_VARIANCE)
        ratio = output[:, 1:2].clamp(-bound, bound).exp()
        return TensorEstimate(mean, (unit * ratio).sqrt())


@dataclass(frozen=True)
class LearningNoise(BlindSpot):
    """The same while the noise is learned, of which ``noise`` is the first guess.

    Beside the distribution the network's output has two channels: the noise's gain and its variance
    without light, each the same everywhere (:class:`n2v_scale.learned_noise.LearnedNoise`). The
    guess is the unit of the predicted variance too: what the network misses grows with the noise
    that it averages, and with a unit that did not, the gain would have to stand in for it.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", self.noise)

    def loss(self, output: Tensor, example: Example) -> Tensor:
        """As of a known noise, and :data:`NOISE_FIRST` of the mean of ``log(variance / noise)``.

        Of a variance that the network claims for its prediction and one that is noise the voxels
        say the same. The second term draws on the noise alone, the more of the variance the network
        claims, and no more once it claims nothing (Laine et al. 2019 take a tenth of
        the noise's standard deviation off the loss, which draws on for ever).
        """
        found = self._distribution(output)
        assert found.std is not None
        predicted, gain, floor = found.std.square(), output[:, 2:3], output[:, 3:4]
        noise = gain * (found.mean.detach() - self.noise.offset).clamp_min(0) + floor
        claimed = ((predicted.detach() + noise) / noise).log()
        mean = (claimed * _every(example.weight, output)).sum() / _voxels(example, output)
        return _likelihood(found, predicted + noise, example) + NOISE_FIRST * mean

    def learned(self, noise: NoiseModel) -> BlindSpot:
        """The method as it is applied, once the noise is known."""
        return BlindSpot(noise, self.unit)


def typical_variance(noise: NoiseModel) -> float:
    """At the mean of normalised voxels, 0."""
    return noise.gain * max(0.0, -noise.offset) + noise.read_noise**2


def _variance(noise: NoiseModel, mean: Tensor) -> Tensor:
    """Of normalised voxels whose signal is ``mean``."""
    return noise.gain * (mean - noise.offset).clamp_min(0) + noise.read_noise**2


def _likelihood(found: TensorEstimate, variance: Tensor, example: Example) -> Tensor:
    """The mean of ``(error² / variance + log variance) / 2`` over the voxels that there are."""
    target, weight = (_every(t, found.mean) for t in (example.target, example.weight))
    likelihood = (target - found.mean).square() / variance + variance.log()
    return (likelihood * weight).sum() / (2 * _voxels(example, found.mean))


def _every(x: Tensor, output: Tensor) -> Tensor:
    """The voxels that the output is of: one in some."""
    z, y, x_ = (n // m for n, m in zip(x.shape[2:], output.shape[2:], strict=True))
    return x[..., ::z, ::y, ::x_]


def _voxels(example: Example, output: Tensor) -> Tensor:
    return _every(example.weight, output).sum().clamp_min(1)
