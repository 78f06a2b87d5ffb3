"""Learning from pairs: a second noisy capture, or a clean one.

Noise2Noise (Lehtinen et al., ICML 2018): a network that is trained towards a noisy target learns
the target's mean, or with absolute errors its median, since nothing of the target's noise can be
predicted from the other capture. With a clean target it is ordinary supervised learning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from n2v_scale.geometry import Box, Halo, Shape
from n2v_scale.methods.base import Example, TensorEstimate
from n2v_scale.streams import Streams


@dataclass(frozen=True)
class Paired:
    """Every voxel of the target, squared or absolute errors."""

    error: Literal["l2", "l1"] = "l2"
    """l2 learns the mean of what a voxel may be, l1 the median."""
    swaps: bool = False
    """Whether both captures are alike: each is the target half of the time."""
    name: str = "n2n"
    blind: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    reach: ClassVar[Shape] = (0, 0, 0)
    passes: ClassVar[int] = 1

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """An example from pairs (b, 2, z, y, x); a voxel that one of them lacks does not count."""
        if self.swaps:
            swapped = streams.rand(len(batch), 1, 1, 1, 1) < 0.5
            batch = torch.where(swapped, batch.flip(1), batch)
        there = torch.isfinite(batch).all(dim=1, keepdim=True)
        clean = torch.nan_to_num(batch, nan=0.0)
        return Example(clean[:, :1], clean[:, 1:], there.to(clean))

    def loss(self, output: Tensor, example: Example) -> Tensor:
        """The mean error over all voxels."""
        difference = output - example.target
        error = difference.square() if self.error == "l2" else difference.abs()
        return (error * example.weight).sum() / example.weight.sum().clamp_min(1)

    def infer(
        self,
        network: nn.Module,
        tile: Tensor,
        crop: Halo,
        inside: Box | None,
        origin: Shape = (0, 0, 0),
    ) -> TensorEstimate:
        """The plain forward pass."""
        del origin
        return TensorEstimate(network(tile, crop, inside))
