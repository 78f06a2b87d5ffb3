"""Every tile is the region that was asked for, at every level and in every plane."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from n2v_scale.errors import InputError
from n2v_scale.io.open import open_volume
from n2v_scale.viewing import levels as levels_module
from n2v_scale.viewing import shown as shown_module
from n2v_scale.viewing.chunk_cache import ChunkCache
from n2v_scale.viewing.shown import Region, ShownVolume
from tests.viewing.conftest import SHAPE, values


def show(volume):
    return ShownVolume("it", volume, "volume", ChunkCache())


def cut(array, axis, index, start, stop):
    plane = np.take(array, index, axis)
    return plane[start[0] : stop[0], start[1] : stop[1]]


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("name", ["noisy", "denoised"])
def test_tiles_are_the_stored_values(pair, name, axis):
    address = getattr(pair, name)
    shown = show(open_volume(address))
    group = zarr.open_group(address, mode="r")
    assert len(shown.levels) == len(list(group.array_keys()))
    for number in range(len(shown.levels)):
        stored = group[str(number)][:]
        assert shown.levels[number].shape == stored.shape
        rows, columns = (n for a, n in enumerate(stored.shape) if a != axis)
        for index in (0, stored.shape[axis] - 1):
            start, stop = (1, 0), (rows - 1, columns)
            tile = shown.tile(Region(number, 0, 0, axis, index, start, stop))
            np.testing.assert_array_equal(tile, cut(stored, axis, index, start, stop))
            assert tile.dtype == np.dtype("<u2")
            assert tile.flags.c_contiguous


@pytest.mark.parametrize("kept", [True, False])
def test_time_channel_and_stored_order(tmp_path, write_volume, monkeypatch, kept):
    monkeypatch.setattr(shown_module, "KEPT_CHUNK", 10**9 if kept else 0)
    data = np.arange(2 * 3 * 4 * 6 * 8, dtype=np.float32).reshape(2, 3, 4, 6, 8)
    volume = write_volume(tmp_path / "v.zarr", data, "tczyx", chunk=(1, 1, 2, 4, 4))
    tile = show(volume).tile(Region(0, 1, 2, 1, 5, (1, 2), (4, 7)))
    np.testing.assert_array_equal(tile, data[1, 2, 1:4, 5, 2:7])


@pytest.mark.parametrize(("stored", "sent"), [("float64", "float32"), ("bool", "uint8"),
                                              ("int64", "float32"), ("int8", "int8")])  # fmt: skip
def test_types_that_a_browser_lacks_are_converted(tmp_path, write_volume, stored, sent):
    data = (np.arange(60).reshape(3, 4, 5) % 2).astype(stored)
    shown = show(write_volume(tmp_path / "v.zarr", data, any_dtype=True))
    tile = shown.tile(Region(0, 0, 0, 0, 1, (0, 0), (4, 5)))
    np.testing.assert_array_equal(tile, data[1])
    assert tile.dtype.name == sent
    assert shown.describe()["dtype"] == sent


def test_complex_numbers_are_refused(tmp_path, write_volume):
    volume = write_volume(tmp_path / "v.zarr", np.zeros((2, 2, 2), complex), any_dtype=True)
    with pytest.raises(InputError, match="complex128, which cannot be shown"):
        show(volume)


@pytest.mark.parametrize(
    "region",
    [
        Region(9, 0, 0, 0, 0, (0, 0), (1, 1)),
        Region(-1, 0, 0, 0, 0, (0, 0), (1, 1)),
        Region(0, 1, 0, 0, 0, (0, 0), (1, 1)),
        Region(0, 0, 1, 0, 0, (0, 0), (1, 1)),
        Region(0, 0, 0, 0, 20, (0, 0), (1, 1)),
        Region(0, 0, 0, 0, -1, (0, 0), (1, 1)),
        Region(0, 0, 0, 0, 0, (0, 0), (97, 1)),
        Region(0, 0, 0, 0, 0, (5, 0), (5, 1)),
    ],
)
def test_a_region_outside_is_refused(pair, region):
    with pytest.raises(InputError):
        show(open_volume(pair.noisy)).tile(region)


def test_levels_that_are_missing_are_made(tmp_path, write_volume, monkeypatch):
    """Means in the plane, the middle slice along the normal; z, which is coarse, is left."""
    monkeypatch.setattr(levels_module, "SMALL", 30)
    data = values(shape=(6, 50, 61))
    shown = show(write_volume(tmp_path / "v.zarr", data, chunk=(4, 16, 16), scale=(2, 1, 1)))
    assert [level.factors for level in shown.levels] == [(1, 1, 1), (1, 2, 2), (2, 4, 4)]
    middle, coarse = shown.levels[1:]
    assert middle.shape == (6, 25, 31)
    assert (middle.scale, middle.origin) == ((2, 2, 2), (0, 0.5, 0.5))
    assert (coarse.scale, coarse.origin) == ((4, 4, 4), (1, 1.5, 1.5))
    tile = shown.tile(Region(1, 0, 0, 0, 2, (1, 30), (25, 31)))
    expected = data[2, 2:50, 60:61].reshape(24, 2, 1).mean(axis=1)
    np.testing.assert_array_equal(tile, np.rint(expected))
    side = shown.tile(Region(2, 0, 0, 1, 3, (0, 0), (3, 15)))
    expected = data[:, 14, :60].reshape(3, 2, 15, 4).mean(axis=(1, 3))
    np.testing.assert_array_equal(side, np.rint(expected))


def test_a_gray_scale_is_of_the_coarsest_level(pair):
    shown = show(open_volume(pair.denoised))
    coarsest = zarr.open_group(pair.denoised, mode="r")["4"][:]
    window = shown.window(0, 0)
    assert (window["low"], window["high"]) == tuple(np.percentile(coarsest, [0.2, 99.9]))
    assert (window["min"], window["max"]) == (coarsest.min(), coarsest.max())


def test_a_large_level_is_sampled(tmp_path, write_volume):
    data = np.zeros((2, 2000, 2000), np.uint8)
    data[:, 968:1032, 968:1032] = 200  # the middle one of nine samples
    window = show(write_volume(tmp_path / "v.zarr", data, chunk=(2, 256, 256))).window(0, 0)
    assert (window["low"], window["high"]) == (0, 200)


def test_a_constant_volume_has_a_gray_scale(tmp_path, write_volume):
    window = show(write_volume(tmp_path / "v.zarr", np.full((2, 3, 4), 7, np.uint8))).window(0, 0)
    assert window["low"] == 7 < window["high"]


def test_nan_has_no_part_in_it(tmp_path, write_volume):
    data = np.full((2, 3, 4), np.nan, np.float32)
    data[0, 0, :2] = 1, 2
    window = show(write_volume(tmp_path / "v.zarr", data)).window(0, 0)
    assert (window["min"], window["max"]) == (1, 2)


def test_levels_lie_where_the_metadata_says(pair):
    shown = show(open_volume(pair.denoised))
    assert shown.levels[0].scale == (2, 0.4, 0.4)
    assert shown.levels[1].scale == (2, 0.8, 0.8)
    assert shown.levels[1].origin == pytest.approx((0, 0.2, 0.2))
    assert shown.levels[0].shape == SHAPE
