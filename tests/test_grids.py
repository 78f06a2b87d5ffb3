"""The blocks of an array against brute force on its voxels."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.geometry import Box, as_shape, grid_cell, grid_indices
from n2v_scale.grids import Block, BlockGrid

extents = st.integers(1, 9)
shapes = st.tuples(extents, extents, extents)
cells = st.tuples(*[st.integers(1, 5)] * 3)
grids = st.builds(BlockGrid, st.integers(1, 3), st.integers(1, 3), shapes, cells)


def drawn(grid: BlockGrid) -> list[Block]:
    """Every block, by the loops that the numbering stands for."""
    images = product(range(grid.times), range(grid.channels))
    every = [(t, c, i) for t, c in images for i in grid_indices(grid.shape, grid.block)]
    return [
        Block(number, t, c, grid_cell(index, grid.block, grid.shape))
        for number, (t, c, index) in enumerate(every)
    ]


@st.composite
def boxes_of(draw: st.DrawFn, grid: BlockGrid) -> Box:
    start = [draw(st.integers(0, n - 1)) for n in grid.shape]
    stop = [draw(st.integers(a + 1, n)) for a, n in zip(start, grid.shape, strict=True)]
    return Box(as_shape(start), as_shape(stop))


@settings(deadline=None)
@given(grids)
def test_blocks_are_numbered_in_c_order(grid: BlockGrid) -> None:
    expected = drawn(grid)
    assert list(grid) == expected
    assert len(grid) == len(expected)
    assert [grid.at(block.number) for block in expected] == expected


@settings(deadline=None)
@given(grids)
def test_write_boxes_partition_the_array(grid: BlockGrid) -> None:
    owners = np.zeros((grid.times, grid.channels, *grid.shape), int)
    for block in grid:
        owners[(block.t, block.c, *block.write.slices)] += 1
    np.testing.assert_array_equal(owners, 1)
    assert owners.size == grid.voxels == sum(block.write.size for block in grid)


@settings(deadline=None)
@given(grids, st.data())
def test_touching_finds_the_blocks_that_share_a_voxel(grid: BlockGrid, data: st.DataObject) -> None:
    box = data.draw(boxes_of(grid))
    t, c = data.draw(st.integers(0, grid.times - 1)), data.draw(st.integers(0, grid.channels - 1))
    assert list(grid.touching(t, c, box)) == [
        block.number
        for block in drawn(grid)
        if (block.t, block.c) == (t, c) and block.write.intersect(box).size
    ]


@settings(deadline=None)
@given(grids)
def test_every_block_touches_itself_alone(grid: BlockGrid) -> None:
    assert all(list(grid.touching(b.t, b.c, b.write)) == [b.number] for b in grid)


def test_a_grid_that_can_be_drawn() -> None:
    grid = BlockGrid(2, 3, (5, 4, 7), (5, 2, 4))  # 1 x 2 x 2 blocks an image
    assert len(grid) == 24
    assert grid.at(0) == Block(0, 0, 0, Box((0, 0, 0), (5, 2, 4)))
    assert grid.at(3) == Block(3, 0, 0, Box((0, 2, 4), (5, 4, 7)))
    assert grid.at(4) == Block(4, 0, 1, Box((0, 0, 0), (5, 2, 4)))
    assert grid.at(23) == Block(23, 1, 2, Box((0, 2, 4), (5, 4, 7)))
    assert list(grid.touching(1, 0, Box((0, 1, 3), (1, 3, 5)))) == [12, 13, 14, 15]


def test_a_grid_of_a_petabyte_is_only_numbers() -> None:
    grid = BlockGrid(100, 4, (100_000, 100_000, 100_000), (512, 512, 512))
    last = grid.at(len(grid) - 1)
    assert last == Block(400 * 196**3 - 1, 99, 3, Box((99_840,) * 3, (100_000,) * 3))
    assert next(iter(grid)).number == 0


@pytest.mark.parametrize("number", [-1, 24, 1000])
def test_a_number_that_no_block_has(number: int) -> None:
    with pytest.raises(IndexError, match=f"no block {number}.* 0 to 23"):
        BlockGrid(2, 3, (5, 4, 7), (5, 2, 4)).at(number)
