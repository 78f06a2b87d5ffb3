"""Classical filters are local, exact and scale with the noise, whatever the tile."""

from __future__ import annotations

import importlib.util
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from n2v_scale.classical import FILTERS, axis_ratio, filter_named
from n2v_scale.classical.base import LEAST
from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Box

NAMES = [n for n in FILTERS if n != "wavelet" or importlib.util.find_spec("pywt")]
AGREEMENT = {"nlm": 1e-7}
"""Non-local means take an exponential from a table: a rounding may become a step of 1e-9."""


def noisy(shape, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 2) * 20
    return (smooth + rng.standard_normal(shape)).astype(dtype)


def halo_of(one):
    return tuple((r, r) for r in one.reach)


@pytest.mark.parametrize(
    ("shape", "size", "ratio"),
    [
        ((9, 9, 9), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        ((9, 9, 9), (2.0, 0.5, 0.4), (0.2, 0.8, 1.0)),
        ((1, 9, 9), (0.1, 0.5, 0.5), (0.0, 1.0, 1.0)),
        ((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    ],
)
def test_the_ratio_of_the_axes(shape, size, ratio):
    assert axis_ratio(shape, size) == pytest.approx(ratio)


SHAPES = {  # volume, core of a tile, voxel size
    "isotropic": ((80, 84, 90), Box((36, 40, 44), (40, 44, 50)), (1.0, 1.0, 1.0)),
    "at faces": ((80, 84, 90), Box((0, 40, 80), (3, 44, 90)), (1.0, 1.0, 1.0)),
    "coarse planes": ((9, 100, 60), Box((3, 48, 0), (5, 54, 10)), (2.0, 0.4, 0.4)),
    "one plane": ((1, 130, 130), Box((0, 60, 64), (1, 66, 70)), (2.0, 0.4, 0.4)),
    "two planes": ((2, 100, 90), Box((1, 10, 40), (2, 15, 48)), (1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_tile_with_its_reach_is_the_whole(name, case):
    shape, core, size = SHAPES[case]
    values = noisy(shape)
    one = FILTERS[name](FILTERS[name].candidates[-1], axis_ratio(shape, size))
    data = core.expand(halo_of(one)).intersect(Box.whole(shape))
    assert data.size < values.size
    tile = one(values[data.slices].copy())[core.slices_in(data)]
    np.testing.assert_allclose(
        tile, one(values)[core.slices], rtol=0, atol=AGREEMENT.get(name, 1e-12)
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("name", NAMES)
def test_any_tile_is_the_whole(name, data):
    shape = tuple(data.draw(st.integers(1, n)) for n in (12, 40, 40))
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    core = Box(start, stop)
    size = data.draw(st.sampled_from([(1.0, 1.0, 1.0), (1.6, 1.0, 1.0), (3.0, 1.0, 1.0)]))
    one = FILTERS[name](
        data.draw(st.sampled_from(FILTERS[name].candidates)), axis_ratio(shape, size)
    )
    values = noisy(shape, data.draw(st.integers(0, 99)))
    box = core.expand(halo_of(one)).intersect(Box.whole(shape))
    np.testing.assert_allclose(
        one(values[box.slices])[core.slices_in(box)],
        one(values)[core.slices],
        rtol=0,
        atol=AGREEMENT.get(name, 1e-12),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_reach_is_needed(name):
    """One voxel moves no result beyond the reach, and moves one near it."""
    one = FILTERS[name](FILTERS[name].candidates[-1])
    values = noisy((3, 90, 90)) if name != "tv" else noisy((3, 90, 90)) / 50
    other = values.copy()
    other[1, 45, 45] += 30
    far = np.abs(np.argwhere(np.abs(one(values) - one(other)) > 1e-7) - (1, 45, 45)).max(axis=0)
    assert (far <= one.reach).all()
    assert far[2] >= (0.2 if name == "tv" else 0.5) * one.reach[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_type_stays_and_nothing_is_rescaled(name):
    """No filter looks at the range of what it is given."""
    values = noisy((4, 30, 30), dtype=np.float32)
    one = FILTERS[name](FILTERS[name].candidates[2])
    result = one(values)
    assert result.dtype == np.float32
    assert result.shape == values.shape
    np.testing.assert_allclose(one(values + 100), result + 100, rtol=0, atol=1e-3)
    peak = values.copy()
    peak[:, :2, :2] = 1e3
    np.testing.assert_allclose(one(peak)[:, -1, -1], result[:, -1, -1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_noise_becomes_less_and_a_constant_stays(name):
    one = FILTERS[name](FILTERS[name].candidates[-2])
    noise = np.random.default_rng(0).standard_normal((8, 40, 40))
    assert one(noise).std() < 0.75
    np.testing.assert_allclose(one(np.full((5, 20, 20), 7.0)), 7.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", [(1.0, 1.0, 1.0), (0.2, 1.0, 1.0), (0.0, 1.0, 1.0)])
@pytest.mark.parametrize("name", NAMES)
def test_memory_is_within_the_forecast(name, ratio):
    one = FILTERS[name](FILTERS[name].candidates[3], ratio)
    for shape in ((24, 60, 60), (6, 90, 90)) if ratio[0] else ((1, 200, 200),):
        values = noisy(shape, dtype=np.float32)
        one(values)  # loads its library
        tracemalloc.start()
        one(values)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= one.memory_bytes(shape) < 6 * peak + 2**16


def test_windows_follow_the_voxels():
    assert FILTERS["gaussian"](2.0, (0.25, 1.0, 1.0)).reach == (2, 8, 8)
    assert FILTERS["median"](2.5, (0.25, 1.0, 1.0)).footprint.shape == (1, 5, 5)
    ball = FILTERS["median"](1.5).footprint
    assert ball.shape == (3, 3, 3)
    assert ball.sum() == 19


@pytest.mark.parametrize("name", ["tv", "nlm"])
def test_planes_far_apart_are_filtered_one_by_one(name):
    values = noisy((3, 24, 24))
    one = FILTERS[name](0.8, (0.2, 1.0, 1.0))
    assert one.reach[0] == 0
    plane = FILTERS[name](0.8, (0.0, 1.0, 1.0))
    np.testing.assert_array_equal(one(values)[1:2], plane(values[1:2]))


def test_the_wavelets_noise_is_that_of_its_levels():
    """White noise of 1 has the standard deviation that the thresholds are a multiple of."""
    pywt = pytest.importorskip("pywt")
    noise = np.random.default_rng(0).standard_normal((64, 64, 64))
    _, *levels = pywt.swtn(noise, "db2", 2, trim_approx=True, norm=True)
    for level, details in zip((2, 1), levels, strict=True):
        for band in details.values():
            assert band.std() == pytest.approx(2 ** (-1.5 * level), rel=0.05)


@pytest.mark.parametrize("name", FILTERS)
def test_the_ends_of_what_a_parameter_may_be_can_be_computed(name):
    values = noisy((5, 12, 14), dtype=np.float32)
    for value in (LEAST, min(FILTERS[name].largest, 6.0 if name == "median" else np.inf)):
        found = FILTERS[name](value)(values)
        assert np.isfinite(found).all()
        assert found.std() <= 1.001 * values.std()
    with pytest.raises(ConfigError, match="--values"):
        FILTERS[name](1e9)


def test_what_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="no filter 'bm3d': choose one of gaussian, median"):
        filter_named("bm3d")
    for value in (0.0, -1.0, 1e-30, 65.0, 1e9, np.nan, np.inf):
        with pytest.raises(ConfigError, match=r"sigma.* is .*: give a number from 0.001 to 64"):
            FILTERS["gaussian"](value)
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(ConfigError, match=r"pip install 'n2v-scale\[wavelets\]'"):
        FILTERS["wavelet"](1.0)(np.zeros((4, 8, 8)))
