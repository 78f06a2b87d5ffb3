"""How far around the core every layer of a U-Net is needed, and in which slabs: pure integers.

Along one axis, depth 1, low side (``|`` is where the core begins, in cells of each level)::

    level 0   given > hidden > encoded   ................|       the encoder narrows by its kernels
                                  skip > between > decoded       so does the decoder
    level 1              given > hidden > encoded        |

Each layer computes what the next one needs and no more. Where a tile ends at the volume's face,
the margins are what there is, and the convolutions' own zero padding acts, exactly as it does when
the whole volume is one tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from n2v_scale.geometry import Halo, Shape, as_shape, ceil_div, round_up
from n2v_scale.network_config import UNetConfig

SLAB_BYTES = 4 * 2**20
"""Of a tensor between two layers: a share of a processor's cache (2 to 8 MiB are within 7%,
32 MiB are 15% slower)."""
LARGE_SLAB_BYTES = 2**30
"""On a device of many cores, whose kernels need more work at a time."""
FEWEST_PLANES = 4
"""Of a slab: thinner ones cost more calls than the cache gains."""

Planes = tuple[int, int]
"""A half-open range along Z; 0 is where the core begins."""


@dataclass(frozen=True)
class Level:
    """One resolution of a tile: its core, and the margins around it, in cells of this level."""

    core: Shape
    given: Halo
    """Into the encoder."""
    hidden: Halo
    """Between the encoder's convolutions."""
    encoded: Halo
    """Out of the encoder, which is what the pooling sees."""
    skip: Halo
    """Of it into the decoder; at the lowest level, which has none, all three are ``encoded``."""
    between: Halo
    """Between the decoder's convolutions."""
    decoded: Halo
    """Out of the decoder."""


def levels_of(config: UNetConfig, core: Shape, crop: Halo) -> list[Level]:
    """Every level of a tile, from full resolution to the lowest.

    ``core`` and ``crop``, what the tile has around it, are in folded cells and multiples of the
    total pooling.
    """
    reach = as_shape([k // 2 for k in config.kernel])
    available, cores = [crop], [core]
    decoded: list[Halo] = [_all_sides(0)]
    for level in range(config.depth):
        factors = config.factors(level)
        cores.append(as_shape([n // f for n, f in zip(cores[-1], factors, strict=True)]))
        above = _grown(decoded[level], reach, available[level], times=1)
        upsampled = _grown(above, reach, None, times=1)
        available.append(_divided(available[level], factors))
        decoded.append(_least(_divided(upsampled, factors), available[-1]))
    levels: list[Level] = []
    encoded = decoded[-1]
    for level in reversed(range(config.depth + 1)):
        there = available[level]
        if levels:
            encoded = _multiplied(levels[0].given, config.factors(level))
        lowest = level == config.depth
        last = encoded if lowest else decoded[level]
        levels.insert(
            0,
            Level(
                core=cores[level],
                given=_grown(encoded, reach, there, times=2),
                hidden=_grown(encoded, reach, there, times=1),
                encoded=encoded,
                skip=encoded if lowest else _grown(last, reach, there, times=2),
                between=encoded if lowest else _grown(last, reach, there, times=1),
                decoded=last,
            ),
        )
    return levels


def cells_of(config: UNetConfig, core: Shape, crop: Halo) -> list[Level]:
    """:func:`levels_of` a tile in voxels; ``core`` and ``crop`` are multiples of the stride."""
    cells = as_shape([n // f for n, f in zip(core, config.fold, strict=True)])
    z, y, x = ((low // f, high // f) for (low, high), f in zip(crop, config.fold, strict=True))
    return levels_of(config, cells, (z, y, x))


def extent(core: Shape, margin: Halo) -> Shape:
    """The cells of a core and its margin."""
    return as_shape([n + low + high for n, (low, high) in zip(core, margin, strict=True)])


def difference(have: Halo, want: Halo) -> Halo:
    """What to cut from a margin to come to a smaller one."""
    pairs = zip(have, want, strict=True)
    return _halo([(a - p, b - q) for (a, b), (p, q) in pairs])


def slab_bytes(device: str) -> int:
    """About how large a slab is where the network is computed."""
    return SLAB_BYTES if device == "cpu" else LARGE_SLAB_BYTES


def slabs(planes: Planes, multiple: int, plane_bytes: int, most_bytes: int) -> Iterator[Planes]:
    """``planes`` in nearly equal parts of about ``most_bytes``, each a multiple of planes.

    >>> list(slabs((-3, 17), 2, 1, 5))
    [(-3, 1), (1, 5), (5, 9), (9, 13), (13, 17)]
    """
    start, stop = planes
    most = max(FEWEST_PLANES, most_bytes // plane_bytes)
    step = round_up(ceil_div(stop - start, ceil_div(stop - start, most)), multiple)
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


def _grown(halo: Halo, reach: Shape, limit: Halo | None, *, times: int) -> Halo:
    sides = [(a + times * r, b + times * r) for (a, b), r in zip(halo, reach, strict=True)]
    return _halo(sides) if limit is None else _least(_halo(sides), limit)


def _least(halo: Halo, limit: Halo) -> Halo:
    pairs = zip(halo, limit, strict=True)
    return _halo([(min(a, low), min(b, high)) for (a, b), (low, high) in pairs])


def _divided(halo: Halo, factors: Shape) -> Halo:
    pairs = zip(halo, factors, strict=True)
    return _halo([(ceil_div(a, f), ceil_div(b, f)) for (a, b), f in pairs])


def _multiplied(halo: Halo, factors: Shape) -> Halo:
    return _halo([(a * f, b * f) for (a, b), f in zip(halo, factors, strict=True)])


def _all_sides(margin: int) -> Halo:
    return _halo([(margin, margin)] * 3)


def _halo(sides: list[tuple[int, int]]) -> Halo:
    z, y, x = sides
    return z, y, x
