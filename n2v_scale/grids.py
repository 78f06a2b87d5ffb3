"""The blocks of an array: numbered, each found by its number, none of them kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from n2v_scale.geometry import Box, Shape, as_shape, ceil_div, grid_cell, grid_shape


@dataclass(frozen=True)
class Block:
    """One task: it owns every shard that its write box covers."""

    number: int
    t: int
    c: int
    write: Box


@dataclass(frozen=True)
class BlockGrid:
    """The blocks of an array, in C order of (t, c, z, y, x). Their write boxes partition it."""

    times: int
    channels: int
    shape: Shape
    """Extent of the array along (z, y, x)."""
    block: Shape

    def __len__(self) -> int:
        return self.times * self.channels * prod(grid_shape(self.shape, self.block))

    @property
    def voxels(self) -> int:
        """Of the whole array."""
        return self.times * self.channels * prod(self.shape)

    def at(self, number: int) -> Block:
        """Block ``number``; an IndexError where there is none."""
        if not 0 <= number < len(self):
            raise IndexError(f"there is no block {number}: they go from 0 to {len(self) - 1}")
        index = []
        rest = number
        for extent in reversed((self.channels, *grid_shape(self.shape, self.block))):
            rest, place = divmod(rest, extent)
            index.append(place)
        x, y, z, c = index
        return Block(number, rest, c, grid_cell(as_shape((z, y, x)), self.block, self.shape))

    def channels_of(self, block: Block, stored: int) -> range:
        """Those of an array with ``stored`` channels that belong to a block.

        >>> grid = BlockGrid(times=1, channels=2, shape=(8, 8, 8), block=(8, 8, 8))
        >>> list(grid.channels_of(grid.at(1), stored=4))
        [1, 3]
        """
        return range(block.c, stored, self.channels)

    def touching(self, t: int, c: int, box: Box) -> Iterator[int]:
        """The numbers of the blocks that share a voxel with ``box``."""
        z, y, x = grid_shape(self.shape, self.block)
        ranges = [
            range(a // b, ceil_div(e, b))
            for a, e, b in zip(box.start, box.stop, self.block, strict=True)
        ]
        for i, j, k in product(*ranges):
            yield ((((t * self.channels + c) * z) + i) * y + j) * x + k

    def __iter__(self) -> Iterator[Block]:
        return (self.at(number) for number in range(len(self)))
