"""Where patches come from: chunk-aligned regions in a stratified order, and what is held out.

Pure geometry and seeded draws; nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
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
SURVEY_VOXELS = 2**26
"""A volume up to this size is surveyed whole."""
SURVEY_EDGE, SURVEY_WIDEST = 64, 256
SURVEY_BOX, SURVEY_DECODED = 2**20, 2**29
"""Voxels that are decoded for a box of the survey, and for all of it, unless a chunk is larger."""
FEWEST_SURVEYED = 64
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
    stratum: int = field(default=0, compare=False)


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

    All cells (channel, time, space) in C order are cut into at most ``most`` equal strata. A pass
    takes one region from each, and with ``weights`` as many again where they are large, in random
    order. The grid is shifted by whole chunks from pass to pass, so that no place always lies at a
    region's border. Any region can be asked for by its number; memory does not grow with the
    volume.
    """

    times: int
    channels: int
    shape: Shape
    chunk: Shape
    patch: Shape
    seed: int
    most: int = STRATA
    weights: tuple[float, ...] | None = None
    """How often a stratum is drawn beside the once a pass; None where all are alike."""

    @property
    def extent(self) -> Shape:
        """A region's extent per axis."""
        return region_shape(self.shape, self.chunk, self.patch)

    @property
    def largest(self) -> Shape:
        """The extent of a region that takes what is left at the volume's end."""
        sides = zip(self.shape, self.extent, self._unit(), strict=True)
        return as_shape([min(n, e + n % unit) for n, e, unit in sides])

    @property
    def cells(self) -> int:
        """How many regions cover the whole selection."""
        return self.times * self.channels * prod(grid_shape(self.shape, self.extent))

    @property
    def strata(self) -> int:
        """How many parts there are; at least one a channel."""
        return min(self.cells, round_up(max(self.most, self.channels), self.channels))

    @property
    def pass_length(self) -> int:
        """Regions of a pass; in so many every stratum is among them."""
        return self.strata if self.weights is None else 2 * self.strata

    def __iter__(self) -> Iterator[Region]:
        """Pass after pass."""
        for number in count():
            yield from self.one_pass(number)

    def one_pass(self, number: int) -> list[Region]:
        """The regions of a pass, in an order that ``number`` decides."""
        rng = np.random.default_rng((self.seed, 1, number))
        shift = self._shift(rng)
        drawn = np.arange(self.strata)
        if self.weights is not None:
            chances = np.asarray(self.weights) / np.sum(self.weights)
            drawn = np.concatenate([drawn, rng.choice(self.strata, self.strata, p=chances)])
        return [self._region(int(k), rng, shift) for k in rng.permutation(drawn)]

    def redraw(self, region: Region, rng: np.random.Generator) -> Region:
        """Another region of the same stratum."""
        return self._region(region.stratum, rng, (0, 0, 0))

    def survey_boxes(self, voxels: int = SURVEY_VOXELS) -> list[Region]:
        """One box a stratum to look at; fewer strata, evenly spread, where chunks are large.

        Whole cells where all of them are ``voxels`` at most, else pieces that are cheap to decode.
        """
        rng = np.random.default_rng((self.seed, 8))
        whole = prod(self.extent) * self.strata <= voxels
        piece = self.extent if whole else self._piece_shape()
        decoded = prod(round_up(p, c) for p, c in zip(piece, self.chunk, strict=True))
        most = max(FEWEST_SURVEYED, self.channels, SURVEY_DECODED // decoded)
        count = self.strata if whole else min(self.strata, most)
        boxes = []
        for k in range(count):
            stratum = k * self.strata // count
            c, t, *index = self._draw(stratum, rng)
            box = grid_cell(as_shape(index), self.extent, self.shape)
            boxes.append(Region(t, c, box if whole else self._piece(box, piece, rng), stratum))
        return boxes

    def _piece_shape(self) -> Shape:
        """Whole chunks of about :data:`SURVEY_EDGE` voxels an axis, as long as they are cheap."""
        piece = [min(c, SURVEY_WIDEST, e) for c, e in zip(self.chunk, self.extent, strict=True)]
        decoded = prod(self.chunk)
        for axis in (2, 1, 0):
            times = min(max(1, SURVEY_EDGE // piece[axis]), max(1, SURVEY_BOX // decoded))
            if piece[axis] * times <= self.extent[axis]:
                piece[axis] *= times
                decoded *= times
        return as_shape(piece)

    def _draw(self, stratum: int, rng: np.random.Generator) -> tuple[int, ...]:
        """A cell (c, t, z, y, x) of a stratum."""
        first = stratum * self.cells // self.strata
        last = (stratum + 1) * self.cells // self.strata
        grid = grid_shape(self.shape, self.extent)
        flat = int(rng.integers(first, last))
        return tuple(int(i) for i in np.unravel_index(flat, (self.channels, self.times, *grid)))

    def _region(self, stratum: int, rng: np.random.Generator, shift: Shape) -> Region:
        c, t, *index = self._draw(stratum, rng)
        return Region(t, c, self._box(as_shape(index), shift), stratum)

    def _piece(self, box: Box, piece: Shape, rng: np.random.Generator) -> Box:
        """Some part of a cell, on chunk borders where chunks are small."""
        start, stop = [], []
        for a, b, size, unit in zip(box.start, box.stop, piece, self._unit(), strict=True):
            steps = max(0, b - a - size) // unit + 1
            start.append(a + int(rng.integers(steps)) * unit)
            stop.append(min(b, start[-1] + size))
        return Box(as_shape(start), as_shape(stop))

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
            chosen = min(MOST_HELD_OUT, max(1, round(cells * HELD_OUT_SHARE)))
            picked = np.random.default_rng((seed, 2)).choice(cells, chosen, replace=False)
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
