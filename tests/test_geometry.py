"""Boxes and grids against brute force on voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2v_scale.geometry import (
    Box,
    as_shape,
    ceil_div,
    cells_touching,
    grid_cell,
    grid_indices,
    grid_shape,
    padded_shape,
    round_down,
    round_up,
)

SIZE = 9
extents = st.integers(1, SIZE)
shapes = st.tuples(extents, extents, extents)
multiples = st.tuples(*[st.integers(1, 5)] * 3)
halos = st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3)


@st.composite
def boxes(draw):
    start = [draw(st.integers(0, SIZE - 1)) for _ in range(3)]
    return Box(as_shape(start), as_shape([draw(st.integers(a + 1, SIZE)) for a in start]))


def painted(box: Box) -> np.ndarray:
    canvas = np.zeros((SIZE,) * 3, bool)
    canvas[box.slices] = True
    return canvas


@given(st.integers(-50, 50), st.integers(1, 12))
def test_rounding_brackets_its_argument(a, multiple):
    assert round_down(a, multiple) <= a <= round_up(a, multiple)
    assert a - round_down(a, multiple) < multiple
    assert round_up(a, multiple) - a < multiple
    assert round_down(a, multiple) % multiple == round_up(a, multiple) % multiple == 0
    assert ceil_div(a, multiple) * multiple == round_up(a, multiple)


@given(shapes, multiples)
def test_cells_partition_the_volume(shape, cell):
    covered = np.zeros(shape, int)
    for index in grid_indices(shape, cell):
        covered[grid_cell(index, cell, shape).slices] += 1
    np.testing.assert_array_equal(covered, 1)
    assert len(list(grid_indices(shape, cell))) == np.prod(grid_shape(shape, cell))


@given(shapes, multiples)
def test_cells_lie_on_the_grid_and_are_full_but_at_the_end(shape, cell):
    for index in grid_indices(shape, cell):
        box = grid_cell(index, cell, shape)
        for i, a, b, c, n in zip(index, box.start, box.stop, cell, shape, strict=True):
            assert a == i * c
            assert b == min(a + c, n)
            assert b > a


@given(boxes(), boxes())
def test_intersection_holds_the_common_voxels(a, b):
    common = a.intersect(b)
    both = painted(a) & painted(b)
    assert common.size == both.sum()
    if common.size:
        np.testing.assert_array_equal(painted(common), both)
    assert common == b.intersect(a) or not common.size


@given(boxes(), boxes())
def test_contains_means_every_voxel(a, b):
    assert a.contains(b) == bool(painted(a)[painted(b)].all())


@given(boxes(), boxes())
def test_union_is_the_smallest_box_around_both(a, b):
    where = np.argwhere(painted(a) | painted(b))
    smallest = Box(as_shape(where.min(0).tolist()), as_shape((where.max(0) + 1).tolist()))
    assert a.union(b) == smallest


@given(boxes(), halos)
def test_expanding_adds_the_halo_on_each_side(box, halo):
    grown = box.expand(halo)
    for axis, (low, high) in enumerate(halo):
        assert grown.start[axis] == box.start[axis] - low
        assert grown.stop[axis] == box.stop[axis] + high
    assert grown.expand(tuple((-low, -high) for low, high in halo)) == box


@given(boxes(), multiples)
def test_aligning_gives_the_smallest_aligned_box_around(box, multiple):
    aligned = box.align(multiple)
    assert aligned.contains(box)
    for a, b, start, stop, m in zip(
        aligned.start, aligned.stop, box.start, box.stop, multiple, strict=True
    ):
        assert a % m == b % m == 0
        assert start - a < m
        assert b - stop < m
    assert aligned.align(multiple) == aligned


@given(boxes(), multiples)
def test_dividing_gives_the_coarse_voxels_that_are_made_from_the_box(box, factors):
    coarse = np.zeros([-(-SIZE // f) for f in factors], bool)
    for voxel in np.argwhere(painted(box)):
        coarse[tuple(voxel // factors)] = True
    found = np.zeros_like(coarse)
    found[box.divide(factors).slices] = True
    np.testing.assert_array_equal(found, coarse)


@given(boxes(), multiples, multiples)
def test_dividing_twice_is_dividing_by_the_product(box, first, then):
    both = as_shape([a * b for a, b in zip(first, then, strict=True)])
    assert box.divide(first).divide(then) == box.divide(both)


@given(boxes(), st.tuples(*[st.integers(-5, 5)] * 3))
def test_shifting_keeps_the_shape(box, offset):
    moved = box.shift(offset)
    assert moved.shape == box.shape
    assert moved.shift(tuple(-o for o in offset)) == box


@given(boxes(), boxes())
def test_slices_in_pick_the_same_voxels(a, b):
    outer = a.union(b)
    canvas = np.arange(SIZE**3).reshape((SIZE,) * 3)
    np.testing.assert_array_equal(canvas[outer.slices][a.slices_in(outer)], canvas[a.slices])


@given(shapes, multiples, st.data())
def test_cells_touching_match_brute_force(shape, cell, data):
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    box = Box(as_shape(start), as_shape(stop))
    every = [grid_cell(i, cell, shape) for i in grid_indices(shape, cell)]
    assert list(cells_touching(box, cell, shape)) == [c for c in every if c.intersect(box).size]


@given(shapes, multiples)
def test_padded_shape_is_the_aligned_volume(shape, stride):
    assert padded_shape(shape, stride) == Box.whole(shape).align(stride).stop


@pytest.mark.parametrize(
    ("box", "size"),
    [(Box((0, 0, 0), (2, 3, 4)), 24), (Box((1, 1, 1), (1, 3, 4)), 0), (Box((5,) * 3, (2,) * 3), 0)],
)
def test_size_counts_voxels_and_is_never_negative(box, size):
    assert box.size == size
