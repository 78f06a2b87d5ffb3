"""Where patches come from: every part of the volume, nothing that is held out."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from n2v_scale.geometry import Box, as_shape, grid_cell, grid_indices, grid_shape, round_up
from n2v_scale.regions import (
    LARGEST_CHUNK,
    STRATA,
    RegionSampler,
    draw_patch,
    held_out_boxes,
    region_shape,
)


@st.composite
def samplers(draw, largest=(40, 60, 300)):
    shape = as_shape([draw(st.integers(1, n)) for n in largest])
    return RegionSampler(
        times=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 2)),
        shape=shape,
        chunk=as_shape([draw(st.integers(1, n)) for n in shape]),
        patch=as_shape([draw(st.integers(1, min(n, 16))) for n in shape]),
        seed=draw(st.integers(0, 99)),
    )


@given(samplers(), st.integers(0, 5))
@settings(deadline=None)
def test_regions_lie_in_the_volume_on_chunks_and_hold_a_patch(sampler, number):
    whole = Box.whole(sampler.shape)
    for region in sampler.one_pass(number):
        assert whole.contains(region.box)
        assert 0 <= region.t < sampler.times
        assert 0 <= region.c < sampler.channels
        for a, e, p, c in zip(
            region.box.start, region.box.shape, sampler.patch, sampler.chunk, strict=True
        ):
            assert e >= p
            assert c > LARGEST_CHUNK or a % c == 0


@given(samplers(), st.integers(0, 5))
@settings(deadline=None)
def test_regions_are_no_larger_than_announced_and_a_chunk(sampler, number):
    for region in sampler.one_pass(number):
        for have, extent, c in zip(region.box.shape, sampler.extent, sampler.chunk, strict=True):
            assert have < extent + (c if c <= LARGEST_CHUNK else 1)


@given(
    st.tuples(*[st.integers(1, 500)] * 3),
    st.tuples(*[st.integers(1, 500)] * 3),
    st.tuples(*[st.integers(1, 64)] * 3),
)
def test_a_region_is_about_two_patches_of_whole_chunks(shape, chunk, patch):
    for e, n, c, p in zip(region_shape(shape, chunk, patch), shape, chunk, patch, strict=True):
        assert e <= n
        assert e == n or 2 * p <= e < 2 * p + min(c, LARGEST_CHUNK)
        assert e == n or c > LARGEST_CHUNK or e % c == 0


def stratum_of(sampler: RegionSampler, flat: int) -> int:
    """Stratum k holds the cells from k * cells // strata up to the next one's first."""
    firsts = [k * sampler.cells // sampler.strata for k in range(sampler.strata)]
    return int(np.searchsorted(firsts, flat, side="right")) - 1


@given(samplers(), st.integers(0, 5), st.integers(1, 40))
@settings(deadline=None)
def test_a_pass_visits_every_stratum_once(sampler, number, most):
    sampler = replace(sampler, most=most)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RegionSampler, "_box", lambda _self, index, _shift: index)
        visited = sampler.one_pass(number)
    assert len(visited) == sampler.strata == sampler.pass_length
    assert min(sampler.cells, most) <= sampler.strata <= sampler.cells
    size = (sampler.channels, sampler.times, *grid_shape(sampler.shape, sampler.extent))
    flat = [int(np.ravel_multi_index((r.c, r.t, *r.box), size)) for r in visited]
    assert [stratum_of(sampler, n) for n in flat] == [r.stratum for r in visited]
    assert sorted(r.stratum for r in visited) == list(range(sampler.strata))


@given(samplers(), st.integers(0, 5), st.integers(1, 40), st.data())
@settings(deadline=None)
def test_every_stratum_is_in_a_pass_with_weights(sampler, number, most, data):
    sampler = replace(sampler, most=most)
    weights = data.draw(
        st.lists(st.floats(0.01, 1), min_size=sampler.strata, max_size=sampler.strata)
    )
    weighted = replace(sampler, weights=tuple(weights))
    visited = weighted.one_pass(number)
    assert len(visited) == weighted.pass_length == 2 * sampler.strata
    assert {r.stratum for r in visited} == set(range(sampler.strata))


def test_heavier_strata_come_more_often():
    weights = (0.1, 0.1, 1.0, 0.4) * 8
    sampler = RegionSampler(1, 1, (64, 64, 128), (8,) * 3, (8,) * 3, 0, 32, weights)
    assert sampler.strata == 32
    passes = 60
    count = Counter(r.stratum for k in range(passes) for r in sampler.one_pass(k))
    by_weight = {
        w: np.mean([count[k] for k in range(32) if weights[k] == w]) / passes for w in set(weights)
    }
    # Once a pass for all, and as often again on average: 32 draws, shared by weight.
    expected = {w: 1 + 32 * w / sum(weights) for w in by_weight}
    assert by_weight == pytest.approx(expected, rel=0.1)


def test_a_pass_can_be_asked_for_by_its_number():
    sampler = RegionSampler(2, 2, (40, 40, 40), (8,) * 3, (8,) * 3, 5, 16, (1.0,) * 16)
    late = sampler.one_pass(1000)
    assert isinstance(late, list)
    assert late == replace(sampler).one_pass(1000)
    assert late != sampler.one_pass(1001)


@given(samplers(), st.integers(0, 5), st.integers(1, 40))
@settings(deadline=None)
def test_a_region_drawn_again_is_of_the_same_stratum(sampler, seed, most):
    sampler = replace(sampler, most=most)
    region = sampler.one_pass(0)[0]
    size = (sampler.channels, sampler.times, *grid_shape(sampler.shape, sampler.extent))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RegionSampler, "_box", lambda _self, index, _shift: index)
        again = sampler.redraw(region, np.random.default_rng(seed))
    flat = int(np.ravel_multi_index((again.c, again.t, *again.box), size))
    assert again.stratum == region.stratum == stratum_of(sampler, flat)


def test_drawing_again_reaches_all_of_a_stratum():
    sampler = RegionSampler(1, 1, (64, 64, 64), (8,) * 3, (8,) * 3, 0, most=8)
    region = sampler.one_pass(0)[0]
    rng = np.random.default_rng(0)
    assert len({sampler.redraw(region, rng).box for _ in range(200)}) == 64 / 8


@given(samplers(), st.integers(1, 40))
@settings(deadline=None)
def test_the_survey_looks_at_one_cell_a_stratum(sampler, most):
    sampler = replace(sampler, most=most)
    boxes = sampler.survey_boxes()
    assert [r.stratum for r in boxes] == list(range(sampler.strata))
    cells = set()
    for r in boxes:
        index = [a // e for a, e in zip(r.box.start, sampler.extent, strict=True)]
        assert r.box == grid_cell(as_shape(index), sampler.extent, sampler.shape)
        cells.add((r.t, r.c, r.box))
    assert len(cells) == len(boxes)
    assert boxes == sampler.survey_boxes()


@given(samplers(), st.integers(1, 40))
@settings(deadline=None)
def test_every_channel_is_surveyed(sampler, most):
    sampler = replace(sampler, most=most)
    assert {r.c for r in sampler.survey_boxes()} == set(range(sampler.channels))


@pytest.mark.parametrize("channels", [3, 5, 7, 10, 12])
def test_every_channel_is_surveyed_and_passed_even_with_few_strata(channels):
    for seed in range(10):
        sampler = RegionSampler(4, channels, (64, 64, 64), (8,) * 3, (8,) * 3, seed, most=16)
        assert {r.c for r in sampler.survey_boxes()} == set(range(channels))
        assert {r.c for r in sampler.one_pass(0)} == set(range(channels))


@given(samplers(), st.integers(1, 2**12))
@settings(deadline=None)
def test_pieces_to_look_at_are_whole_chunks_in_their_cells(sampler, voxels):
    unit = [c if c <= LARGEST_CHUNK else 1 for c in sampler.chunk]
    whole = sampler.survey_boxes(2**40)
    for piece, cell in zip(sampler.survey_boxes(voxels), whole, strict=True):
        assert piece.stratum == cell.stratum
        assert Box.whole(sampler.shape).contains(piece.box)
        assert piece.box.size
        for a, b, n, c in zip(piece.box.start, piece.box.stop, sampler.shape, unit, strict=True):
            assert a % c == 0
            assert b % c == 0 or b == n or c == 1
            assert b - a <= max(64, c)


def test_the_survey_of_a_huge_volume_is_bounded_and_reaches_all_of_it():
    sampler = RegionSampler(2, 2, (4096, 65536, 65536), (64,) * 3, (64, 128, 128), 0)
    boxes = sampler.survey_boxes()
    assert len(boxes) == STRATA
    assert sum(r.box.size for r in boxes) <= STRATA * 64**3
    assert {(r.t, r.c) for r in boxes} == {(t, c) for t in range(2) for c in range(2)}
    assert min(r.box.start[0] for r in boxes) < 512
    assert max(r.box.stop[0] for r in boxes) > 3584


def test_a_large_volume_is_visited_in_a_bounded_number_of_strata():
    sampler = RegionSampler(3, 2, (4096, 65536, 65536), (64,) * 3, (32, 64, 64), 0)
    boxes = sampler.one_pass(0)
    assert sampler.cells > 10**6
    assert len(boxes) == STRATA
    assert {(r.t, r.c) for r in boxes} == {(t, c) for t in range(3) for c in range(2)}
    assert min(r.box.start[0] for r in boxes) < 512
    assert max(r.box.stop[0] for r in boxes) > 3584


def test_the_order_within_a_pass_is_random():
    sampler = RegionSampler(1, 1, (64, 64, 64), (8,) * 3, (8,) * 3, 0)
    first, second = sampler.one_pass(0), sampler.one_pass(1)
    assert [r.box.start for r in first] != sorted(r.box.start for r in first)
    assert first != second


@given(samplers(largest=(20, 30, 30)))
@settings(deadline=None, max_examples=25)
def test_every_voxel_is_reached_over_the_passes(sampler):
    reached = np.zeros((sampler.times, sampler.channels, *sampler.shape), bool)
    for number in range(400):
        for region in sampler.one_pass(number):
            reached[(region.t, region.c, *region.box.slices)] = True
        if reached.all():
            break
    assert reached.all()


@pytest.mark.parametrize("chunk", [1, 3, 16, 48])
@pytest.mark.parametrize("length", [32, 40, 64, 100, 129])
def test_no_part_of_an_axis_is_read_much_less_than_the_others(length, chunk):
    sampler = RegionSampler(1, 1, (1, 1, length), (1, 1, min(chunk, length)), (1, 1, 16), 0)
    counts = np.zeros(length)
    for region in islice(sampler, 2000):
        counts[region.box.slices[2]] += 1
    # Regions pushed back from the ends overlap: up to twice, and three times about a middle.
    assert counts.min() > 0.2 * np.median(counts)
    assert counts.max() < 3 * np.median(counts)


@given(samplers())
@settings(deadline=None, max_examples=20)
def test_the_seed_decides_the_order(sampler):
    again = replace(sampler)
    first = list(islice(sampler, 30))
    assert list(islice(again, 30)) == first
    assume(sampler.cells > 8)
    other = replace(sampler, seed=sampler.seed + 1)
    assert list(islice(other, 30)) != first


def test_passes_follow_each_other():
    sampler = RegionSampler(1, 2, (20, 20, 20), (5,) * 3, (5,) * 3, 3)
    n = sampler.pass_length
    assert list(islice(sampler, 3 * n)) == [r for k in range(3) for r in sampler.one_pass(k)]


@given(
    st.tuples(*[st.integers(1, 120)] * 3),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(1, 24)] * 3),
    st.integers(0, 99),
)
def test_held_out_boxes_are_apart_hold_a_patch_and_are_few(shape, unit, patch, seed):
    boxes = held_out_boxes(shape, unit, patch, seed=seed)
    assert boxes == held_out_boxes(shape, unit, patch, seed=seed)
    for k, box in enumerate(boxes):
        assert Box.whole(shape).contains(box)
        assert all(e >= p for e, p in zip(box.shape, patch, strict=True))
        assert not any(box.intersect(other).size for other in boxes[:k])
    assert len(boxes) <= 16
    assert sum(b.size for b in boxes) <= Box.whole(shape).size / 4


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(2, 12)] * 3),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_held_out_boxes_are_cells_of_shards_that_hold_a_patch(shape, unit, patch, seed):
    whole = as_shape([round_up(p, u) for p, u in zip(patch, unit, strict=True)])
    for cell in (whole, patch):
        every = [grid_cell(i, cell, shape) for i in grid_indices(shape, cell)]
        large = {b for b in every if all(e >= p for e, p in zip(b.shape, patch, strict=True))}
        if len(large) >= 8:
            break
    else:
        large = set()
    boxes = held_out_boxes(shape, unit, patch, seed=seed)
    assert set(boxes) <= large
    assert bool(boxes) == bool(large)


def test_holding_out_costs_nothing_that_grows_with_the_volume():
    started = time.process_time()
    boxes = held_out_boxes((10**6, 10**6, 10**6), (64, 64, 64), (32, 64, 64), seed=0)
    assert len(boxes) == 16
    assert time.process_time() - started < 1


@given(
    st.tuples(*[st.integers(2, 5)] * 3),
    st.tuples(*[st.integers(4, 20)] * 3),
    st.tuples(*[st.integers(1, 20)] * 3),
    st.integers(0, 9),
)
def test_whole_shards_are_held_out_where_there_are_enough(cells, unit, patch, seed):
    assume(all(p <= u for p, u in zip(patch, unit, strict=True)))
    shape = as_shape([n * u for n, u in zip(cells, unit, strict=True)])
    boxes = held_out_boxes(shape, unit, patch, seed=seed)
    assert boxes
    for box in boxes:
        assert box.shape == unit
        assert all(a % u == 0 for a, u in zip(box.start, unit, strict=True))


def test_a_shard_smaller_than_a_patch_is_held_out_with_its_neighbours():
    boxes = held_out_boxes((64, 64, 64), (6, 8, 8), (8, 8, 16), seed=0)
    assert {b.shape for b in boxes} <= {(12, 8, 16)}
    assert boxes


def test_few_large_shards_are_not_lost_as_a_whole():
    boxes = held_out_boxes((64, 64, 64), (64, 64, 64), (16, 16, 16), seed=0)
    assert [b.shape for b in boxes] == [(16, 16, 16)] * 4


def test_nothing_is_held_out_of_a_volume_of_few_patches():
    assert held_out_boxes((16, 32, 32), (8, 8, 8), (16, 16, 16), seed=0) == ()


def test_the_seed_spreads_what_is_held_out():
    places = Counter(
        b for seed in range(200) for b in held_out_boxes((32,) * 3, (8,) * 3, (8,) * 3, seed=seed)
    )
    assert len(places) == 64
    assert max(places.values()) < 4 * 200 * 4 / 64


@given(st.data())
@settings(deadline=None)
def test_a_drawn_patch_lies_in_the_box_and_touches_nothing_held_out(data):
    shape = data.draw(st.tuples(*[st.integers(8, 40)] * 3))
    patch = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    held = held_out_boxes(shape, (8, 8, 8), patch, seed=data.draw(st.integers(0, 9)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    for _ in range(20):
        drawn = draw_patch(Box.whole(shape), patch, held, rng)
        if drawn is not None:
            assert drawn.shape == patch
            assert Box.whole(shape).contains(drawn)
            assert not any(drawn.intersect(h).size for h in held)


def test_patches_are_uniform_in_the_box():
    rng, box = np.random.default_rng(0), Box((2, 3, 4), (5, 7, 9))
    drawn = Counter(draw_patch(box, (2, 2, 2), (), rng).start for _ in range(4800))
    assert len(drawn) == 2 * 3 * 4
    assert min(drawn.values()) > 140
    assert max(drawn.values()) < 260


def test_a_box_that_is_held_out_gives_no_patch():
    box = Box((0, 0, 0), (8, 8, 8))
    rng = np.random.default_rng(0)
    assert draw_patch(box, (2, 2, 2), (box,), rng) is None
    assert draw_patch(box, (8, 8, 8), (Box((7, 7, 7), (9, 9, 9)),), rng) is None
