"""How the tiles of a plan lie along each axis, and what the halo makes them cost.

Boxes are products of intervals, so what is read and how many tiles there are follow from one axis
at a time, however large the volume is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Protocol

from n2v_scale.denoiser import Denoiser, TileBoxes, tile_boxes
from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, ceil_div

Segment = tuple[int, int, int]
"""A tile along one axis: voxels kept, and context before and after; multiples of the stride."""


@dataclass(frozen=True)
class Lengths:
    """Along one axis, over all blocks."""

    segments: Counter[Segment]
    """How often each kind of tile is computed: inner ones, those at a face, those cut short."""
    read: int
    """Voxels."""


@dataclass(frozen=True)
class Tiling:
    """All tiles of one time point and channel."""

    axes: tuple[Lengths, Lengths, Lengths]
    shape: Shape

    @property
    def tiles(self) -> int:
        """How many forward passes."""
        return prod(axis.segments.total() for axis in self.axes)

    @property
    def read(self) -> int:
        """Voxels that are read."""
        return prod(axis.read for axis in self.axes)

    @property
    def read_overhead(self) -> float:
        """Voxels read over voxels of the volume."""
        return self.read / prod(self.shape)

    def work(self, denoiser: Denoiser, *, halo: bool = True) -> float:
        """What ``denoiser`` does for all tiles, with or without what the halo costs."""
        work = 0.0
        for (z, i), (y, j), (x, k) in product(*(axis.segments.items() for axis in self.axes)):
            context = (z[1:], y[1:], x[1:]) if halo else NO_HALO
            work += i * j * k * denoiser.work((z[0], y[0], x[0]), context)
        return work

    def compute_overhead(self, denoiser: Denoiser) -> float:
        """The work over that of tiles which need no halo and cover every voxel once."""
        (z, y, x), covered = self.axes, 1
        for axis in (z, y, x):
            covered *= sum(count * kept for (kept, _, _), count in axis.segments.items())
        once = prod(self.shape) / covered
        return self.work(denoiser) / (self.work(denoiser, halo=False) * once)


class Reach(Protocol):
    """A denoiser, or a plan for one."""

    @property
    def halo(self) -> Halo:
        """Context that a core needs."""

    @property
    def stride(self) -> Shape:
        """What origins and extents of tiles are multiples of."""


def tiling(reach: Reach, shape: Shape, block: Shape, tile: Shape) -> Tiling:
    """The tiles of a volume of ``shape``; each block computes all that share a voxel with it."""
    z, y, x = (
        _along(n, b, t, halo, stride)
        for n, b, t, halo, stride in zip(shape, block, tile, reach.halo, reach.stride, strict=True)
    )
    return Tiling((z, y, x), shape)


@lru_cache(4096)
def _along(n: int, block: int, tile: int, halo: tuple[int, int], stride: int) -> Lengths:
    segments: Counter[Segment] = Counter()
    read = 0
    for start in range(0, n, block):
        stop = min(n, start + block)
        places = range(start // tile, ceil_div(stop, tile))
        boxes = [_tile_along(i * tile, min(n, (i + 1) * tile), halo, stride, n) for i in places]
        segments.update(_segment(boxes_of) for boxes_of in boxes)
        read += max(one.data.stop[0] for one in boxes) - boxes[0].data.start[0]
    return Lengths(segments, read)


def _tile_along(start: int, stop: int, halo: tuple[int, int], stride: int, n: int) -> TileBoxes:
    core = Box((start, 0, 0), (stop, 1, 1))
    return tile_boxes(core, (halo, (0, 0), (0, 0)), (stride, 1, 1), (n, 1, 1))


def _segment(boxes: TileBoxes) -> Segment:
    padded, kept = boxes.padded, boxes.aligned
    return (
        kept.stop[0] - kept.start[0],
        kept.start[0] - padded.start[0],
        padded.stop[0] - kept.stop[0],
    )
