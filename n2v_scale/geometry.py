"""Boxes, grids and halos: pure integers, no arrays.

A spatial position is always ``(z, y, x)``. Boxes are half-open.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

Shape = tuple[int, int, int]
"""Voxels along (z, y, x)."""

Halo = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Context per axis (z, y, x): (towards the origin, away from the origin), in voxels."""

NO_HALO: Halo = ((0, 0), (0, 0), (0, 0))


def ceil_div(a: int, b: int) -> int:
    """The smallest integer not below ``a / b``, for ``b > 0``."""
    return -(-a // b)


def round_up(a: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``a``."""
    return ceil_div(a, multiple) * multiple


def round_down(a: int, multiple: int) -> int:
    """The largest multiple of ``multiple`` that is not above ``a``."""
    return a // multiple * multiple


def as_shape(values: tuple[int, ...] | list[int]) -> Shape:
    """Three integers as a :data:`Shape`."""
    z, y, x = values
    return int(z), int(y), int(x)


@dataclass(frozen=True, order=True)
class Box:
    """A half-open region ``start <= voxel < stop``, per axis (z, y, x)."""

    start: Shape
    stop: Shape

    @classmethod
    def whole(cls, shape: Shape) -> Box:
        """The box of a whole volume of ``shape``."""
        return cls((0, 0, 0), shape)

    @property
    def shape(self) -> Shape:
        """Extent per axis."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def size(self) -> int:
        """Number of voxels; 0 when any axis is empty."""
        return prod(max(0, n) for n in self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array that starts at the origin."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def slices_in(self, outer: Box) -> tuple[slice, slice, slice]:
        """The box as an index into an array that holds ``outer``."""
        return self.shift(tuple(-a for a in outer.start)).slices

    def shift(self, offset: tuple[int, ...]) -> Box:
        """The box moved by ``offset``."""
        return Box(
            as_shape([a + o for a, o in zip(self.start, offset, strict=True)]),
            as_shape([b + o for b, o in zip(self.stop, offset, strict=True)]),
        )

    def intersect(self, other: Box) -> Box:
        """The common part; its size is 0 when there is none."""
        start = as_shape([max(a, b) for a, b in zip(self.start, other.start, strict=True)])
        stop = as_shape([min(a, b) for a, b in zip(self.stop, other.stop, strict=True)])
        return Box(start, as_shape([max(a, b) for a, b in zip(start, stop, strict=True)]))

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            as_shape([min(a, b) for a, b in zip(self.start, other.start, strict=True)]),
            as_shape([max(a, b) for a, b in zip(self.stop, other.stop, strict=True)]),
        )

    def contains(self, other: Box) -> bool:
        """Whether ``other`` lies inside."""
        return self.intersect(other) == other

    def expand(self, halo: Halo) -> Box:
        """The box grown by a halo; it may reach outside the volume."""
        return Box(
            as_shape([a - low for a, (low, _) in zip(self.start, halo, strict=True)]),
            as_shape([b + high for b, (_, high) in zip(self.stop, halo, strict=True)]),
        )

    def divide(self, factors: Shape) -> Box:
        """The box in an array whose voxels are ``factors`` as large, grown to whole voxels."""
        return Box(
            as_shape([a // f for a, f in zip(self.start, factors, strict=True)]),
            as_shape([ceil_div(b, f) for b, f in zip(self.stop, factors, strict=True)]),
        )

    def align(self, multiple: Shape) -> Box:
        """The box grown outwards until both corners are multiples of ``multiple``."""
        return Box(
            as_shape([round_down(a, m) for a, m in zip(self.start, multiple, strict=True)]),
            as_shape([round_up(b, m) for b, m in zip(self.stop, multiple, strict=True)]),
        )


def padded_shape(shape: Shape, stride: Shape) -> Shape:
    """``shape`` rounded up to the network's stride, per axis."""
    return as_shape([round_up(n, s) for n, s in zip(shape, stride, strict=True)])


def align_halo(halo: Halo, stride: Shape) -> Halo:
    """``halo`` rounded up to the stride, per axis and side."""
    z, y, x = (
        (round_up(low, s), round_up(high, s)) for (low, high), s in zip(halo, stride, strict=True)
    )
    return z, y, x


def grid_shape(shape: Shape, cell: Shape) -> Shape:
    """How many cells of a grid anchored at the origin cover ``shape``, per axis."""
    return as_shape([ceil_div(n, c) for n, c in zip(shape, cell, strict=True)])


def grid_cell(index: Shape, cell: Shape, shape: Shape) -> Box:
    """Cell ``index`` of a grid anchored at the origin, clipped to ``shape``."""
    start = as_shape([i * c for i, c in zip(index, cell, strict=True)])
    stop = as_shape([min(a + c, n) for a, c, n in zip(start, cell, shape, strict=True)])
    return Box(start, stop)


def grid_indices(shape: Shape, cell: Shape) -> Iterator[Shape]:
    """The index of every cell that covers ``shape``, in C order."""
    z, y, x = grid_shape(shape, cell)
    yield from product(range(z), range(y), range(x))


def cells_touching(box: Box, cell: Shape, shape: Shape) -> Iterator[Box]:
    """Every grid cell (clipped to ``shape``) that shares a voxel with ``box``, in C order."""
    ranges = [
        range(a // c, ceil_div(b, c)) for a, b, c in zip(box.start, box.stop, cell, strict=True)
    ]
    for z, y, x in product(*ranges):
        yield grid_cell((z, y, x), cell, shape)
