"""Sites and replacements: one a cell, uniform, never the site itself."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from n2v_scale.blind_masks import parse_blind_mask
from n2v_scale.errors import ConfigError
from n2v_scale.geometry import grid_cell, grid_indices
from n2v_scale.masks import (
    flat_index,
    free_shifts,
    hidden_structures,
    neighbourhood_medians,
    site_cell,
    stratified_sites,
    uniform_neighbours,
)
from n2v_scale.streams import Streams

shapes = st.tuples(st.integers(1, 7), st.integers(2, 9), st.integers(2, 9))
cells = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


def streams(seed: int = 0, patches: int = 1) -> Streams:
    return Streams([(seed, k) for k in range(patches)])


def is_uniform(counts) -> bool:
    return chisquare(counts).pvalue > 1e-4


@given(shapes, cells, st.integers(0, 99))
@settings(deadline=None)
def test_every_cell_has_exactly_one_site(shape, cell, seed):
    sites = stratified_sites(2, shape, cell, streams(seed, 2))
    for one in sites.tolist():
        boxes = [grid_cell(i, cell, shape) for i in grid_indices(shape, cell)]
        assert len(one) == len(boxes)
        for site, box in zip(one, boxes, strict=True):
            assert all(a <= p < b for p, a, b in zip(site, box.start, box.stop, strict=True))


@pytest.mark.parametrize(("shape", "cell"), [((3, 4, 5), (2, 3, 2)), ((1, 7, 6), (1, 4, 4))])
def test_sites_are_uniform_within_their_cell(shape, cell):
    sites = stratified_sites(6000, shape, cell, streams(1))
    for n, index in enumerate(grid_indices(shape, cell)):
        box = grid_cell(index, cell, shape)
        where = sites[:, n] - torch.tensor(box.start)
        flat = flat_index(where, torch.tensor(box.shape).expand_as(where))
        counts = np.bincount(flat.numpy(), minlength=box.size)
        assert len(counts) == box.size
        assert box.size == 1 or is_uniform(counts)


def test_samples_of_a_batch_and_cells_of_a_patch_draw_apart():
    sites = stratified_sites(400, (2, 4, 4), (2, 2, 2), streams(2, 400)) % 2
    flat = sites @ torch.tensor([4, 2, 1])  # (400, 4), which voxel of its cell
    pairs = np.bincount((flat[:, 0] * 8 + flat[:, 3]).numpy(), minlength=64)
    assert is_uniform(pairs)
    samples = np.bincount((flat[:200, 0] * 8 + flat[200:, 0]).numpy(), minlength=64)
    assert is_uniform(samples)


def neighbours_of(site, shape, radius):
    ranges = [
        range(max(0, p - r), min(n, p + r + 1)) for p, n, r in zip(site, shape, radius, strict=True)
    ]
    return [p for p in product(*ranges) if p != tuple(site)]


@pytest.mark.parametrize(
    ("site", "shape", "radius"),
    [
        ((2, 2, 2), (5, 5, 5), (1, 1, 1)),
        ((2, 3, 3), (5, 7, 7), (1, 2, 2)),
        ((0, 0, 0), (5, 5, 5), (2, 2, 2)),
        ((4, 4, 4), (5, 5, 5), (2, 2, 2)),
        ((0, 2, 4), (3, 5, 5), (2, 2, 2)),
        ((0, 4, 4), (1, 9, 9), (1, 2, 2)),
        ((0, 0, 8), (1, 9, 9), (2, 2, 2)),
        ((1, 0, 1), (3, 1, 2), (2, 2, 2)),
        ((0, 0, 1), (1, 1, 2), (2, 2, 2)),
    ],
)
def test_replacements_are_uniform_over_all_other_voxels_of_the_window(site, shape, radius):
    sites = torch.tensor(site).expand(60, 200, 3)
    drawn = uniform_neighbours(sites, shape, radius, streams(3)).reshape(-1, 3).numpy()
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert [tuple(p) for p in found.tolist()] == neighbours_of(site, shape, radius)
    assert len(counts) == 1 or is_uniform(counts)


@given(shapes, cells, st.tuples(*[st.integers(1, 3)] * 3), st.integers(0, 99))
@settings(deadline=None)
def test_replacements_lie_in_the_window_and_are_not_the_site(shape, cell, radius, seed):
    drawing = streams(seed, 2)
    sites = stratified_sites(2, shape, cell, drawing)
    drawn = uniform_neighbours(sites, shape, radius, drawing)
    assert (drawn >= 0).all()
    assert (drawn < torch.tensor(shape)).all()
    assert ((drawn - sites).abs() <= torch.tensor(radius)).all()
    assert (drawn != sites).any(dim=-1).all()


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 64), st.integers(1, 64)),
    st.integers(2, 200),
)
def test_a_cell_holds_about_as_many_voxels_as_asked(patch, voxels_per_site):
    cell = site_cell(patch, voxels_per_site)
    assert all(1 <= c <= n for c, n in zip(cell, patch, strict=True))
    if prod(patch) <= voxels_per_site:
        assert cell == patch
    else:
        assert voxels_per_site <= prod(cell) < 2 * voxels_per_site
    free = [c for c, n in zip(cell, patch, strict=True) if c < n]
    assert not free or max(cell) - min(free) <= 1  # as cubic as the patch allows


@pytest.mark.parametrize(
    ("patch", "n", "cell"),
    [
        ((1, 64, 64), 16, (1, 4, 4)),
        ((1, 1, 64), 16, (1, 1, 16)),
        ((32, 64, 64), 16, (2, 3, 3)),
        ((32, 64, 64), 64, (4, 4, 4)),
        ((2, 64, 64), 50, (2, 5, 5)),
    ],
)
def test_cells_of_common_patches(patch, n, cell):
    assert site_cell(patch, n) == cell


def test_flat_index_is_c_order():
    shape = (3, 4, 5)
    positions = torch.tensor(list(product(*map(range, shape))))
    flat = flat_index(positions, torch.tensor(shape).expand_as(positions))
    assert flat.tolist() == list(range(60))


def test_the_streams_decide_the_draws():
    first, again, other = (stratified_sites(1, (8, 8, 8), (2, 2, 2), streams(s)) for s in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_patch_has_the_same_sites_in_whatever_batch():
    together = stratified_sites(4, (4, 8, 8), (2, 2, 2), streams(1, 4))
    neighbours = uniform_neighbours(together, (4, 8, 8), (1, 2, 2), streams(2, 4))
    for k in range(4):
        alone = stratified_sites(1, (4, 8, 8), (2, 2, 2), Streams([(1, k)]))
        assert torch.equal(alone[0], together[k])
        one = uniform_neighbours(alone, (4, 8, 8), (1, 2, 2), Streams([(2, k)]))
        assert torch.equal(one[0], neighbours[k])


# The median of the neighbourhood, and structures


def test_the_median_is_numpys_without_the_site():
    shape, radius = (5, 7, 8), (1, 2, 1)
    voxels = torch.randn(2, prod(shape), generator=torch.Generator().manual_seed(0))
    sites = torch.tensor([[[2, 3, 4], [1, 2, 1]], [[3, 4, 6], [2, 2, 2]]])
    found = neighbourhood_medians(voxels, sites, shape, radius)
    for k, places in enumerate(sites.tolist()):
        volume = voxels[k].reshape(shape).numpy()
        for n, (z, y, x) in enumerate(places):
            window = volume[z - 1 : z + 2, y - 2 : y + 3, x - 1 : x + 2].copy()
            window[1, 2, 1] = np.nan
            around = np.sort(window[np.isfinite(window)])  # 44: torch takes the lower of the two
            assert found[k, n].item() == around[(len(around) - 1) // 2]


@pytest.mark.parametrize("site", [(0, 0, 0), (4, 6, 7), (0, 6, 3)])
def test_at_the_border_the_median_is_that_of_neighbours(site):
    shape = (5, 7, 8)
    voxels = torch.zeros(1, prod(shape))
    place = torch.tensor([[site]])
    voxels[0, flat_index(place[0], torch.tensor([shape]))] = 100.0
    assert neighbourhood_medians(voxels, place, shape, (2, 2, 2)).item() == 0
    alone = neighbourhood_medians(
        torch.full((1, 3), 5.0), torch.tensor([[[0, 0, 0]]]), (1, 1, 3), (0, 0, 1)
    )
    assert alone.item() == 5


def test_in_one_plane_the_median_does_not_know_the_site():
    shape = (1, 9, 9)
    voxels = torch.randn(1, 81, generator=torch.Generator().manual_seed(0))
    site = torch.tensor([[[0, 4, 4]]])
    before = neighbourhood_medians(voxels, site, shape, (1, 2, 2)).item()
    for value in (-100.0, 100.0):
        voxels[0, 40] = value
        assert neighbourhood_medians(voxels, site, shape, (1, 2, 2)).item() == before


MASKS = ["x:3", "y:1", "z:1,x:2", "box:0,1,1", "box:1,1,1"]


@pytest.mark.parametrize("text", MASKS)
@given(
    shape=st.tuples(st.integers(7, 9), st.integers(9, 14), st.integers(9, 14)),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=25)
def test_nothing_of_a_structure_is_left_where_it_was(text, shape, seed):
    """What stands at a site and beside it comes from outside of the site's own structure."""
    mask = parse_blind_mask(text)
    sites = stratified_sites(1, shape, shape, streams(seed))  # one: none meets another
    extent = torch.tensor(shape).expand_as(sites)
    at = flat_index(sites, extent)
    source = hidden_structures(sites, at, shape, mask, (2, 2, 2), streams(seed))[0]
    own = {
        tuple(p)
        for p in (sites[0, 0] + torch.tensor([(0, 0, 0), *mask])).tolist()
        if all(0 <= v < n for v, n in zip(p, shape, strict=True))
    }
    indices = {np.ravel_multi_index(p, shape) for p in own}
    assert source[list(indices)].tolist() != list(indices)
    for index, value in enumerate(source.tolist()):
        if index in indices:
            assert value not in indices
        else:
            assert value == index


@pytest.mark.parametrize("text", MASKS)
def test_many_structures_are_hidden_alike_each_time(text):
    shape, mask = (8, 24, 24), parse_blind_mask(text)
    sites = stratified_sites(3, shape, (4, 4, 4), streams(1, 3))
    at = flat_index(sites, torch.tensor(shape).expand_as(sites))
    first = hidden_structures(sites, at, shape, mask, (2, 2, 2), streams(2, 3))
    again = hidden_structures(sites, at, shape, mask, (2, 2, 2), streams(2, 3))
    assert torch.equal(first, again)
    assert (first.gather(1, at) != at).all()
    assert ((first >= 0) & (first < prod(shape))).all()


def test_a_structure_that_fills_the_patch_is_refused():
    with pytest.raises(ConfigError, match="smaller mask or a larger patch"):
        free_shifts(parse_blind_mask("box:3,3,3"), (2, 2, 2), (7, 7, 7))


@pytest.mark.parametrize(
    ("text", "count"), [("x:5", 10), ("x:5,y:2", 14), ("box:0,2,2", 24), ("z:1", 2)]
)
def test_a_mask_is_written_as_lines_or_a_box(text, count):
    offsets = parse_blind_mask(text)
    assert len(offsets) == count
    assert (0, 0, 0) not in offsets
    assert {tuple(-a for a in o) for o in offsets} == set(offsets)


@pytest.mark.parametrize(
    "text", ["", "x", "x:", "x:0", "q:3", "zy:2", ":5", "box:1,1", "x:-2", "5"]
)
def test_what_is_no_mask_is_an_error_that_shows_one(text):
    with pytest.raises(ConfigError, match="write x:5 for a line along X"):
        parse_blind_mask(text)
