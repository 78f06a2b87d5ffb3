"""The least-squares linear filter without its centre, as a method: trained in seconds, no GPU.

Of all linear functions that are J-invariant (Batson and Royer 2019) it has the least
self-supervised loss, and so the least error. With the voxel's own value put back by
:mod:`n2v_scale.posterior` it is better than any linear filter with its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from n2v_scale.geometry import Box, Halo, Shape
from n2v_scale.methods.base import Example, TensorEstimate
from n2v_scale.streams import Streams


@dataclass(frozen=True)
class Linear:
    """Every voxel is predicted, none is hidden: the filter does not see it."""

    name: str = "linear"
    blind: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True
    reach: ClassVar[Shape] = (0, 0, 0)
    passes: ClassVar[int] = 1

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """The patches as they are; see :class:`n2v_scale.methods.base.Method`."""
        del streams
        clean = torch.nan_to_num(batch, nan=0.0)
        return Example(clean, clean, torch.isfinite(batch).to(clean))

    def loss(self, output: Tensor, example: Example) -> Tensor:
        """Mean squared error over all voxels: the true one plus the noise's variance."""
        error = (output - example.target).square() * example.weight
        return error.sum() / example.weight.sum().clamp_min(1)

    def infer(
        self,
        network: nn.Module,
        tile: Tensor,
        crop: Halo,
        inside: Box | None,
        origin: Shape = (0, 0, 0),
    ) -> TensorEstimate:
        """The filter's response."""
        del origin
        return TensorEstimate(network(tile, crop, inside))
