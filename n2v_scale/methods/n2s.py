"""Noise2Self (Batson and Royer, ICML 2019): voxels predicted from a grid's complement.

The volume is cut into subsets, every voxel of a cell in another one. A subset is hidden by what its
neighbours say, and the network learns to predict it. Applied in the same way, subset after subset,
it is J-invariant: no voxel sees itself, for as many forward passes as there are subsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from n2v_scale.geometry import Box, Halo, Shape, as_shape
from n2v_scale.line_sums import line_sum
from n2v_scale.methods.base import Example, TensorEstimate
from n2v_scale.noise import NoiseModel
from n2v_scale.streams import Streams


@dataclass(frozen=True)
class Noise2Self:
    """A grid of voxels hidden by the mean of their neighbours, squared error there."""

    partition: Shape = (3, 3, 3)
    """Voxels of a cell (z, y, x): as many subsets."""
    noise: NoiseModel | None = None
    """Of normalised voxels; errors count by its inverse where the neighbours' mean says."""
    name: str = "n2s"
    plain: bool = False
    """Whether it is applied in one forward pass, which sees every voxel and is not blind."""
    closed_form: ClassVar[bool] = False
    reach: ClassVar[Shape] = (1, 1, 1)

    @property
    def blind(self) -> bool:
        """J-invariant, unless it is applied plainly."""
        return not self.plain

    @property
    def passes(self) -> int:
        """One a subset."""
        return 1 if self.plain else prod(self.partition)

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """Hide one subset of each patch; see :class:`n2v_scale.methods.base.Method`."""
        clean = torch.nan_to_num(batch, nan=0.0)
        there = torch.isfinite(batch).to(clean)
        draws = (streams.rand(len(batch), 1) * prod(self.partition)).long().flatten().tolist()
        phases = list(product(*map(range, self.partition)))
        masks = [self._subset(clean, phases[min(d, len(phases) - 1)], (0, 0, 0)) for d in draws]
        subset = torch.cat(masks)  # (b, 1, z, y, x)
        around = neighbours_mean(clean, there * (1 - subset))
        hidden = torch.where(subset > 0, around, clean)
        weight = subset * there
        if self.noise is not None:
            weight = weight * self.noise_weight(around)
        return Example(hidden, clean, weight)

    def loss(self, output: Tensor, example: Example) -> Tensor:
        """Mean squared error over the subset: the true one plus the noise's variance."""
        error = (output - example.target).square() * example.weight
        return error.sum() / (example.weight > 0).sum().clamp_min(1)

    def infer(
        self,
        network: nn.Module,
        tile: Tensor,
        crop: Halo,
        inside: Box | None,
        origin: Shape = (0, 0, 0),
    ) -> TensorEstimate:
        """Subset after subset, each hidden from its own prediction; phased by the volume."""
        if self.plain:
            return TensorEstimate(network(tile, crop, inside))
        there = torch.ones_like(tile) if inside is None else torch.zeros_like(tile)
        if inside is not None:
            there[(..., *inside.slices)] = 1
        shape = as_shape(list(tile.shape[2:]))
        core = Box(
            as_shape([low for low, _ in crop]),
            as_shape([n - high for n, (_, high) in zip(shape, crop, strict=True)]),
        )
        mean = tile.new_empty(*tile.shape[:2], *core.shape)
        for phase in product(*map(range, self.partition)):
            subset, hidden = self.hidden(tile, phase, origin, there)
            chosen = subset[(..., *core.slices)] > 0
            mean = torch.where(chosen, network(hidden * there, crop, inside), mean)
        return TensorEstimate(mean)

    def hidden(
        self,
        tile: Tensor,
        phase: Sequence[int | Tensor],
        origin: Shape = (0, 0, 0),
        there: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A subset, 1 at its voxels, (1, 1, z, y, x), and a tile in which it is hidden."""
        subset = self._subset(tile, phase, origin)
        around = neighbours_mean(tile, 1 - subset if there is None else there * (1 - subset))
        return subset, torch.where(subset > 0, around, tile)

    def noise_weight(self, mean: Tensor) -> Tensor:
        """The inverse variance where the signal is ``mean``; 1 where it is the volume's mean."""
        assert self.noise is not None
        noise = self.noise
        typical = noise.gain * max(0.0, -noise.offset) + noise.read_noise**2
        variance = noise.gain * (mean - noise.offset).clamp_min(0) + noise.read_noise**2
        return (1.1 * typical / (variance + 0.1 * typical)).clamp(0.05, 4.0)

    def _subset(self, like: Tensor, phase: Sequence[int | Tensor], origin: Shape) -> Tensor:
        """1 at the voxels of a subset, (1, 1, z, y, x)."""
        lines = [
            ((torch.arange(n, device=like.device) + o) % p == k).to(like.dtype)
            for n, o, p, k in zip(like.shape[2:], origin, self.partition, phase, strict=True)
        ]
        return torch.einsum("z,y,x->zyx", *lines)[None, None]


def neighbours_mean(x: Tensor, there: Tensor) -> Tensor:
    """The mean of the neighbours within one voxel that are ``there``, (b, 1, z, y, x)."""
    total, count = x * there, there.expand_as(x)
    for axis in (2, 3, 4):
        total, count = (line_sum(t, axis, (1.0, 1.0, 1.0)) for t in (total, count))
    return total / count.clamp_min(1)
