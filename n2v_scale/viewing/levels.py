"""The resolutions that a volume is shown at: those that are stored, and some that are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from n2v_scale.geometry import Shape, as_shape, ceil_div
from n2v_scale.io.axes import spatial
from n2v_scale.io.transforms import scale_and_translation
from n2v_scale.io.volume import Volume

Point = tuple[float, float, float]
"""A position or a distance along (z, y, x)."""

SMALL = 1024
"""Voxels along an edge of a level that needs no coarser one."""
COARSEST_MADE = 8
"""A made level averages at most so many voxels along an axis."""


@dataclass(frozen=True)
class ShownLevel:
    """One resolution: what is stored, or a mean over ``factors`` of its voxels."""

    stored: int
    """Position among the volume's stored levels."""
    factors: Shape
    """(1, 1, 1) for a level that is stored."""
    shape: Shape
    scale: Point
    """Distance from voxel to voxel, in the volume's unit."""
    origin: Point
    """Where the centre of the first voxel is, in the volume's unit."""


def shown_levels(volume: Volume) -> tuple[ShownLevel, ...]:
    """The stored levels, the finest first, then made ones until one is small."""
    levels = [_stored(volume, position) for position in range(max(1, len(volume.levels)))]
    base, step = levels[-1], 2
    while max(levels[-1].shape) > SMALL and step <= COARSEST_MADE:
        levels.append(_made(base, step))
        step *= 2
    return tuple(levels)


def _stored(volume: Volume, position: int) -> ShownLevel:
    names, ndim = volume.axis_names, len(volume.axes)
    shape: tuple[int, ...] = volume.stored_shape
    scale: Sequence[float] = [axis.scale for axis in volume.axes]
    start: Sequence[float] = [axis.translation for axis in volume.axes]
    if len(volume.levels) > 1:
        level = volume.levels[position]
        shape, scale, start = level.shape, level.scale, level.translation or (0.0,) * ndim
    outer, shift = scale_and_translation(list(volume.multiscale_transforms), ndim, volume.location)
    outer = outer or (1.0,) * ndim
    sizes = {n: s * o for n, s, o in zip(names, scale, outer, strict=True)}
    places = {n: t * o + d for n, t, o, d in zip(names, start, outer, shift, strict=True)}
    return ShownLevel(
        position,
        (1, 1, 1),
        spatial(shape, names),
        (sizes.get("z", 1.0), sizes["y"], sizes["x"]),
        (places.get("z", 0.0), places["y"], places["x"]),
    )


def _made(base: ShownLevel, step: int) -> ShownLevel:
    """``base`` halved along the axes whose voxels are finer than ``step`` of the finest's."""
    finest = min(base.scale)
    factors = [max(1, _power_of_two(step * finest / size)) for size in base.scale]
    factors = [min(f, n) for f, n in zip(factors, base.shape, strict=True)]
    scale = [s * f for s, f in zip(base.scale, factors, strict=True)]
    parts = zip(base.origin, base.scale, factors, strict=True)
    origin = [o + s * (f - 1) / 2 for o, s, f in parts]
    shape = as_shape([ceil_div(n, f) for n, f in zip(base.shape, factors, strict=True)])
    return ShownLevel(
        base.stored, as_shape(factors), shape, (scale[0], scale[1], scale[2]),
        (origin[0], origin[1], origin[2]),
    )  # fmt: skip


def _power_of_two(ratio: float) -> int:
    """The largest power of two that is not above ``ratio``; 1 below 2."""
    power = 1
    while power * 2 <= ratio * (1 + 1e-9):
        power *= 2
    return power
