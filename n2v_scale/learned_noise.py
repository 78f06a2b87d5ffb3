"""A camera's noise that is trained together with a network (Laine et al. 2019).

The gain and the read noise are two numbers that the optimizer moves, both kept positive by a
softplus. They travel with the network's weights: averaged, kept in checkpoints, shared by all
processes. Where the line has its dark end, the offset, stays as the sample shows it: from there
on, the read noise tells what the noise is.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.methods.base import Method
from n2v_scale.methods.ssdn import LearningNoise, typical_variance
from n2v_scale.nets import Network
from n2v_scale.noise import NoiseModel
from n2v_scale.sources import Source

LEAST_SHARE = 0.02
"""Of the noise's variance that each of the two begins with: from nothing it would never grow."""
WAIT = 200
"""Steps that the network takes first: what it does not know yet would all be taken for noise."""
LEAST_LIGHT = 1e-3
"""Of the volume's standard deviation: that its mean lies above what is dark."""
SPEED = 10.0
"""By how much the noise moves faster than a weight: it must not be the last to find its place."""


class LearnedNoise(nn.Module):
    """A network, with the noise as two more channels of its output."""

    raw: Tensor
    taken: Tensor

    def __init__(self, network: Network, first: NoiseModel) -> None:
        """``first`` is the guess to begin with, of normalised voxels; see :func:`of_both`."""
        super().__init__()
        self.network = network
        self.first = first
        self.typical = typical_variance(first)
        self.light = max(-first.offset, LEAST_LIGHT)
        """That a voxel of the volume's mean brightness has."""
        floor = first.read_noise**2 / self.typical
        shares = torch.tensor([1 - floor, floor])
        self.register_buffer("taken", torch.zeros((), dtype=torch.long))
        self.raw = nn.Parameter(torch.expm1(shares).log() / SPEED)

    def forward(self, x: Tensor) -> Tensor:
        """What the network says, then gain and variance without light, (b, c + 2, z, y, x)."""
        out = self.network(x)
        if self.training:
            self.taken += 1
        terms = self._terms()
        moves = (self.taken > WAIT).to(terms)
        terms = torch.lerp(terms.detach(), terms, moves)
        channels = terms.reshape(1, 2, 1, 1, 1).expand(len(out), 2, *out.shape[2:])
        return torch.cat([out, channels], dim=1)

    def _terms(self) -> Tensor:
        """Gain, and the variance without light."""
        scale = self.raw.new_tensor([self.typical / self.light, self.typical])
        return scale * F.softplus(SPEED * self.raw)

    def noise(self) -> NoiseModel:
        """As it is now."""
        gain, floor = self._terms().tolist()
        return NoiseModel(gain, self.first.offset, sqrt(floor))


def of_both(first: NoiseModel) -> NoiseModel:
    """As noisy at the volume's mean, with at least :data:`LEAST_SHARE` of gain and of read noise.

    ``first`` is of normalised voxels.
    """
    typical = typical_variance(first)
    floor = min(max(first.read_noise**2 / typical, LEAST_SHARE), 1 - LEAST_SHARE)
    light = max(-first.offset, LEAST_LIGHT)
    return NoiseModel((1 - floor) * typical / light, -light, sqrt(floor * typical))


def in_training(network: Network, method: Method) -> nn.Module:
    """What the optimizer works on: the network, and the noise where that is learned."""
    if isinstance(method, LearningNoise):
        return LearnedNoise(network, method.noise)
    return network


def as_trained(
    module: nn.Module, weights: dict[str, Tensor], method: Method
) -> tuple[nn.Module, dict[str, Tensor], Method]:
    """The network, its own part of ``weights``, and the method with the noise they hold."""
    if not isinstance(module, LearnedNoise) or not isinstance(method, LearningNoise):
        return module, weights, method
    module.load_state_dict(weights)
    network = module.network
    return network, dict(network.state_dict()), method.learned(module.noise())


def first_camera(sources: Sequence[Source]) -> NoiseModel | None:
    """The one camera of all channels of all sources, as far as the samples show it, in units."""
    seen = [c.noise for s in sources if s.survey is not None for c in s.survey.channels]
    known = [noise for noise in seen if noise is not None]
    if not known or len(known) < len(seen):
        return None
    return NoiseModel(
        fmean(noise.gain for noise in known),
        fmean(noise.offset for noise in known),
        sqrt(fmean(noise.read_noise**2 for noise in known)),
    )


def camera_of(noise: NoiseModel, sources: Sequence[Source]) -> NoiseModel | None:
    """A noise of normalised voxels, learned from :func:`first_camera`, in the volumes' units."""
    first = first_camera(sources)
    if first is None:
        return None
    scales = [scale for source in sources for scale in source.normalisation.scale]
    gain = noise.gain / fmean(1 / scale for scale in scales)
    read_noise = noise.read_noise / sqrt(fmean(1 / scale**2 for scale in scales))
    return NoiseModel(gain, first.offset, read_noise)
