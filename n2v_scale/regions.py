"""Where patches come from: chunk-aligned regions in a stratified order, and what is held out.

Pure geometry and seeded draws; nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from n2v_scale.geometry import (
    Box,
    Shape,
    as_shape,
    grid_cell,
    grid_shape,
    round_down,
    round_up,
)

STRATA = 512
"""A pass over the volume reads one region in each of at most so many equal parts."""
LARGEST_CHUNK = 128
"""Chunks up to this extent are read whole; of larger ones only a part is kept."""
HELD_OUT_SHARE = 1 / 16
FEWEST_CELLS = 8
"""With fewer cells than this nothing can be held out."""
MOST_HELD_OUT = 16


@dataclass(frozen=True)
class Region:
    """A box of one time point and channel (positions within the selection)."""

    t: int
    c: int
    box: Box


def region_shape(shape: Shape, chunk: Shape, patch: Shape) -> Shape:
    """Whole chunks, about two patches along each axis, clipped to the volume.

    Two patches along an axis keep the bytes decoded near the bytes used.
    """
    return as_shape(
        [
            min(n, round_up(2 * p, c if c <= LARGEST_CHUNK else 1))
            for n, c, p in zip(shape, chunk, patch, strict=True)
        ]
    )


@dataclass(frozen=True)
class RegionSampler:
    """An endless, seeded order of regions that visits every part of the volume in every pass.

    All cells (time, channel, space) in C order are cut into at most :data:`STRATA` equal runs; a
    pass takes one region from each, in random order. The grid is shifted by whole chunks from pass
    to pass, so that no place always lies at a region's border. Memory does not grow with the
    volume.
    """

    times: int
    channels: int
    shape: Shape
    chunk: Shape
    patch: Shape
    seed: int

    @property
    def extent(self) -> Shape:
        """A region's extent per axis."""
        return region_shape(self.shape, self.chunk, self.patch)

    @property
    def cells(self) -> int:
        """How many regions cover the whole selection."""
        return self.times * self.channels * prod(grid_shape(self.shape, self.extent))

    def __iter__(self) -> Iterator[Region]:
        """Pass after pass."""
        number = 0
        while True:
            yield from self.one_pass(number)
            number += 1

    def one_pass(self, number: int) -> Iterator[Region]:
        """One region from each stratum, in a random order that ``number`` decides."""
        rng = np.random.default_rng((self.seed, 1, number))
        grid = grid_shape(self.shape, self.extent)
        shift = self._shift(rng)
        strata = min(self.cells, STRATA)
        for k in rng.permutation(strata):
            first, last = int(k) * self.cells // strata, (int(k) + 1) * self.cells // strata
            flat = int(rng.integers(first, last))
            t, c, z, y, x = np.unravel_index(flat, (self.times, self.channels, *grid))
            yield Region(int(t), int(c), self._box((int(z), int(y), int(x)), shift))

    def _shift(self, rng: np.random.Generator) -> Shape:
        """Whole chunks, as often back as forth: no end of the volume is read less."""
        steps = [max(1, e // c) for e, c in zip(self.extent, self._unit(), strict=True)]
        draws = [int(rng.integers(n)) - n // 2 for n in steps]
        return as_shape([d * c for d, c in zip(draws, self._unit(), strict=True)])

    def _unit(self) -> Shape:
        return as_shape([c if c <= LARGEST_CHUNK else 1 for c in self.chunk])

    def _box(self, index: Shape, shift: Shape) -> Box:
        """A cell of the shifted grid, pushed back inside the volume, on chunk borders."""
        start, stop = [], []
        for i, s, e, n, c in zip(index, shift, self.extent, self.shape, self._unit(), strict=True):
            low = round_down(max(0, min(i * e + s, n - e)), c)
            start.append(low)
            # The last region takes the rest, less than a chunk more than the others.
            stop.append(n if n - (low + e) < c else low + e)
        return Box(as_shape(start), as_shape(stop))


def held_out_boxes(shape: Shape, unit: Shape, patch: Shape, *, seed: int) -> tuple[Box, ...]:
    """Boxes that training never touches, spread by ``seed``.

    ``unit`` is the shard (or the chunk where there is none). Whole units where the volume has
    enough of them, else pieces of a patch's size; nothing where even of these there are too few.
    """
    whole = as_shape([round_up(p, u) for p, u in zip(patch, unit, strict=True)])
    for cell in (whole, patch):
        # Cells that hold a patch: all but the last one along an axis, and that one if it is large.
        grid = [n // c + (n % c >= p) for n, c, p in zip(shape, cell, patch, strict=True)]
        cells = prod(grid)
        if cells >= FEWEST_CELLS:
            count = min(MOST_HELD_OUT, max(1, round(cells * HELD_OUT_SHARE)))
            picked = np.random.default_rng((seed, 2)).choice(cells, count, replace=False)
            where = np.stack(np.unravel_index(np.sort(picked), grid), axis=1).tolist()
            return tuple(grid_cell(as_shape(index), cell, shape) for index in where)
    return ()


def draw_patch(
    box: Box, patch: Shape, held_out: tuple[Box, ...], rng: np.random.Generator, tries: int = 32
) -> Box | None:
    """A patch uniform in ``box`` that touches nothing held out, or None after ``tries`` draws."""
    room = [e - p for e, p in zip(box.shape, patch, strict=True)]
    for _ in range(tries):
        start = as_shape(
            [a + int(rng.integers(r + 1)) for a, r in zip(box.start, room, strict=True)]
        )
        drawn = Box(start, as_shape([a + p for a, p in zip(start, patch, strict=True)]))
        if not any(drawn.intersect(held).size for held in held_out):
            return drawn
    return None
