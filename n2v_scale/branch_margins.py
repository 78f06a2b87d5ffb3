"""Where the branches of a network look, and how far each of their layers is needed: pure integers.

A branch sees a half-space. It is computed on a tile that is turned so that the half-space lies
towards lower indices of the branch's axis. Along that axis, depth 1, kernel 3 (``|`` is where the
core begins, in cells of each level; nothing past the core's other end is ever needed)::

    level 0   given ........ encoded .. skip .... decoded .|    one voxel further: the last shift
    level 1            given .... decoded ..|               encoded: a cell further, the shift
                                                            before the pooling

Across the axis it is the U-Net's own reach; see :mod:`n2v_scale.margins`. Tiles begin and end on
the pooling's grid, so a turned tile lies on it too, and where a tile ends at the volume's face, so
does its turned image: there the zero padding of the convolutions and of the shifts acts, exactly
as it does when the whole volume is one tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from n2v_scale.geometry import Halo, Shape, as_shape, ceil_div
from n2v_scale.network_config import BranchUNetConfig, UNetConfig

TWICE = 2
"""Convolutions of an encoder or a decoder."""


@dataclass(frozen=True)
class Direction:
    """Where a branch looks: towards lower indices of ``axis``, in a turned or mirrored tile."""

    branch: int
    """Whose weights; directions that differ by a turn or a mirror share them."""
    axis: int
    turns: int = 0
    """By 90° in the plane, from Y to X, as in ``torch.rot90``."""
    mirrored: bool = False
    """Along the axis."""

    def shape(self, shape: Shape) -> Shape:
        """A tile's extent as the branch sees it."""
        z, y, x = shape
        return (z, x, y) if self.turns % 2 else shape

    def halo(self, halo: Halo) -> Halo:
        """A tile's margins as the branch sees them."""
        z, y, x = halo
        for _ in range(self.turns):
            y, x = x[::-1], y
        z, y, x = (
            side[::-1] if self.mirrored and k == self.axis else side
            for k, side in enumerate((z, y, x))
        )
        return z, y, x


@dataclass(frozen=True)
class BranchLevel:
    """One resolution of a turned tile: its core, and the margins around it, in its cells."""

    core: Shape
    given: Halo
    """Into the encoder."""
    skip: Halo
    """Into the decoder."""
    decoded: Halo
    """Out of the decoder; at the lowest level, out of the encoder."""


def directions_of(config: BranchUNetConfig) -> tuple[Direction, ...]:
    """Both ways along every axis whose kernel sees neighbours; together they see all voxels but
    the centre.
    """
    axes = [axis for axis in (1, 2, 0) if config.unet.kernel[axis] > 1]
    found = []
    if config.turned and 1 in axes:
        found = [Direction(0, 1, turns) for turns in range(4)]
        axes = [axis for axis in axes if axis == 0]
    for branch, axis in enumerate(axes, start=1 if found else 0):
        found += [Direction(branch, axis, mirrored=mirrored) for mirrored in (False, True)]
    return tuple(found)


def branch_levels(config: UNetConfig, axis: int, core: Shape, crop: Halo) -> list[BranchLevel]:
    """Every level of a turned tile, from full resolution to the lowest.

    ``core`` and ``crop``, what the tile has around it, are multiples of the stride.
    """
    behind = _along(axis, 1)
    available, cores = [crop], [core]
    decoded, skips = [_least(behind, crop)], []
    for level in range(config.depth):
        factors = config.factors(level)
        skips.append(_least(_behind_layers(decoded[level], config, axis), available[level]))
        cores.append(as_shape([n // f for n, f in zip(cores[level], factors, strict=True)]))
        available.append(divided(available[level], factors))
        decoded.append(_least(divided(skips[level], factors), available[-1]))
    skips.append(decoded[-1])
    levels: list[BranchLevel] = []
    encoded = decoded[-1]
    for level in reversed(range(config.depth + 1)):
        given = _least(_behind_layers(encoded, config, axis), available[level])
        levels.insert(0, BranchLevel(cores[level], given, skips[level], decoded[level]))
        if level:
            factors = config.factors(level - 1)
            shifted = _sum(multiplied(given, factors), _along(axis, int(factors[axis] > 1)))
            encoded = _least(shifted, available[level - 1])
    return levels


def multiplied(halo: Halo, factors: Shape) -> Halo:
    """A margin in cells of the level above."""
    return _halo([(a * f, b * f) for (a, b), f in zip(halo, factors, strict=True)])


def divided(halo: Halo, factors: Shape) -> Halo:
    """A margin in cells of the level below, grown to whole ones."""
    pairs = zip(halo, factors, strict=True)
    return _halo([(ceil_div(a, f), ceil_div(b, f)) for (a, b), f in pairs])


def _behind_layers(halo: Halo, config: UNetConfig, axis: int) -> Halo:
    """What an encoder or a decoder sees of what it computes ``halo`` of."""
    reach = [
        (TWICE * (k - 1), 0) if a == axis else (TWICE * (k // 2),) * 2
        for a, k in enumerate(config.kernel)
    ]
    return _sum(halo, _halo(reach))


def _along(axis: int, voxels: int) -> Halo:
    return _halo([(voxels if a == axis else 0, 0) for a in range(3)])


def _sum(one: Halo, other: Halo) -> Halo:
    return _halo([(a + c, b + d) for (a, b), (c, d) in zip(one, other, strict=True)])


def _least(one: Halo, other: Halo) -> Halo:
    return _halo([(min(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True)])


def _halo(sides: list[tuple[int, int]]) -> Halo:
    z, y, x = sides
    return z, y, x
