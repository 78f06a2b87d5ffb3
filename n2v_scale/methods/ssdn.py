"""Self-supervised denoising with a network that is blind by construction (Laine et al. 2019).

The network predicts a normal distribution from the neighbours; with the camera's noise on top it
must explain the voxel itself. Every voxel of a patch is learned from. At prediction the voxel's own
value is put back by Bayes: :mod:`n2v_scale.posterior`.
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


@dataclass(frozen=True)
class BlindSpot:
    """Negative log-likelihood of every voxel under the predicted distribution and the noise."""

    noise: NoiseModel
    """Of normalised voxels."""
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
        variance = found.std.square() + self.noise_variance(found.mean.detach())
        z, y, x = (n // m for n, m in zip(example.target.shape[2:], output.shape[2:], strict=True))
        target, weight = (t[..., ::z, ::y, ::x] for t in (example.target, example.weight))
        likelihood = (target - found.mean).square() / variance + variance.log()
        return (likelihood * weight).sum() / (2 * weight.sum().clamp_min(1))

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
        noise = self.noise
        return noise.gain * (mean - noise.offset).clamp_min(0) + noise.read_noise**2

    def _distribution(self, output: Tensor) -> TensorEstimate:
        """From mean and log-variance, (b, 2, z, y, x), the latter in units of the typical noise."""
        typical = self.noise.gain * max(0.0, -self.noise.offset) + self.noise.read_noise**2
        bound = -log(LEAST_VARIANCE)
        variance = typical * output[:, 1:].clamp(-bound, bound).exp()
        return TensorEstimate(output[:, :1], variance.sqrt())
