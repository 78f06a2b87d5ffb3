"""The receptive field, measured on the network itself.

A voxel is poisoned with NaN, which every layer passes on whatever its weights are, so also layers
that start at zero, and pooling, where a gradient would follow one of several voxels only. Outputs
that turn NaN have seen the voxel. In float64 no algorithm that mixes distant voxels is used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from n2v_scale.errors import ModelError
from n2v_scale.geometry import Halo, Shape, round_up

LARGEST_REACH = 1024


def measure_receptive_field(network: nn.Module, stride: Shape, channels: int = 1) -> Halo:
    """How far an output voxel sees, per axis (z, y, x) and side, in voxels.

    Parameters
    ----------
    network
        Maps (b, channels, z, y, x) to (b, c, z, y, x).
    stride
        What extents must be multiples of.

    Raises
    ------
    ModelError
        When the field does not end within 1024 voxels: such a network cannot be tiled exactly.
    """
    probe = copy.deepcopy(network).to(device="cpu", dtype=torch.float64).eval()
    z, y, x = (_reach_along(probe, axis, stride, channels) for axis in range(3))
    return z, y, x


@torch.no_grad()
def _reach_along(
    network: Callable[[Tensor], Tensor], axis: int, stride: Shape, channels: int
) -> tuple[int, int]:
    length = round_up(48, stride[axis])
    while length <= 2 * LARGEST_REACH:
        reach = _reach_within(network, axis, length, stride, channels)
        if reach is not None:
            return reach
        length *= 2
    raise ModelError(
        f"the network's receptive field along axis {'zyx'[axis]} exceeds {LARGEST_REACH} voxels: "
        "it depends on the whole tile and cannot be stitched exactly"
    )


def _reach_within(
    network: Callable[[Tensor], Tensor], axis: int, length: int, stride: Shape, channels: int
) -> tuple[int, int] | None:
    """The reach on a bar of ``length`` voxels, or None when it touches the bar's ends."""
    shape = list(stride)
    shape[axis] = length
    low = high = 0
    middle = round_up(length // 2, stride[axis])
    # Pooling grids make the reach depend on the position: every phase is tried.
    for position in range(middle, middle + stride[axis]):
        bar = torch.zeros(1, channels, *shape, dtype=torch.float64)
        bar.select(axis + 2, position).fill_(torch.nan)
        seen = torch.isnan(network(bar)).movedim(axis + 2, 0).flatten(1).any(dim=1)
        where = torch.nonzero(seen).flatten()
        if where.numel() == 0:
            continue
        first, last = int(where[0]), int(where[-1])
        if first == 0 or last == length - 1:
            return None
        low, high = max(low, last - position), max(high, position - first)
    return low, high
