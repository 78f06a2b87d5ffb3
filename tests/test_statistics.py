"""Global statistics: exact where all is read, representative where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.statistics import (
    ChannelStatistics,
    box_statistics,
    normalisation_from,
    sample_boxes,
    sample_statistics,
)


@pytest.fixture
def store(tmp_path):
    """An array (t, c, z, y, x), or fewer axes from the right, as an opened volume."""

    def write(data, chunks, axes=None):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        zarr.create_array(str(path), data=data, chunks=chunks)
        return open_volume(path, axes=axes)

    return write


def of(values) -> ChannelStatistics:
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    missing = values.size - finite.size
    if not finite.size:
        return ChannelStatistics(0, 0.0, 0.0, np.inf, -np.inf, missing)
    moments = (finite.mean(), finite.std(), finite.min(), finite.max())
    return ChannelStatistics(finite.size, *map(float, moments), missing)


def assert_close(a: ChannelStatistics, b: ChannelStatistics, scale: float) -> None:
    assert (a.voxels, a.minimum, a.maximum) == (b.voxels, b.minimum, b.maximum)
    assert a.not_finite == b.not_finite
    assert a.mean == pytest.approx(b.mean, abs=1e-9 * scale)
    assert a.std == pytest.approx(b.std, abs=1e-6 * scale)


numbers = st.floats(-1000, 1000) | st.sampled_from([np.nan, np.inf])
samples = hnp.arrays(np.float64, st.integers(0, 20), elements=numbers)


@given(samples, samples, samples)
def test_merging_equals_numpy_on_everything(a, b, c):
    everything = of(np.concatenate([a, b, c]))
    assert_close(of(a).merge(of(b)).merge(of(c)), everything, 1000)
    assert_close(of(a).merge(of(b).merge(of(c))), everything, 1000)


def test_merging_keeps_the_digits_on_a_large_offset():
    rng = np.random.default_rng(0)
    a, b = 1e6 + rng.normal(size=500), 1e6 + 3 + rng.normal(size=300)
    assert of(a).merge(of(b)).std == pytest.approx(np.concatenate([a, b]).std(), rel=1e-6)


def test_merging_keeps_the_first_place_without_a_value():
    first = ChannelStatistics(1, 0.0, 0.0, 0.0, 0.0, 1, (0, 0, 0))
    second = ChannelStatistics(1, 0.0, 0.0, 0.0, 0.0, 1, (1, 2, 3))
    none = ChannelStatistics(1, 0.0, 0.0, 0.0, 0.0, 0)
    assert first.merge(second).first_not_finite == (0, 0, 0)
    assert none.merge(second).first_not_finite == (1, 2, 3)
    assert none.merge(none).first_not_finite is None


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
def test_a_small_volume_is_read_whole(store, dtype):
    data = np.random.default_rng(0).integers(0, 200, (20, 33, 47)).astype(dtype)
    (found,) = sample_statistics(store(data, (8, 16, 16)))
    assert_close(found, of(data), 1)


def test_channels_have_statistics_of_their_own_over_all_times(store):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3, 2, 4, 16, 16)).astype("f4")
    data[:, 1] = 50 + 7 * data[:, 1]
    volume = store(data, (1, 1, 4, 16, 16))
    found = sample_statistics(volume)
    for c in range(2):
        assert_close(found[c], of(data[:, c]), 1)
    constants = normalisation_from(found, "v")
    assert constants.offset == pytest.approx((data[:, 0].mean(), data[:, 1].mean()), rel=1e-4)
    assert constants.scale == pytest.approx((data[:, 0].std(), data[:, 1].std()), rel=1e-4)


def test_selected_channels_come_in_their_order(store, tmp_path):
    data = np.stack([np.full((4, 16, 16), v, "u2") for v in (5, 6, 7)])
    zarr.create_array(str(tmp_path / "v.zarr"), data=data, chunks=(1, 4, 16, 16))
    volume = open_volume(tmp_path / "v.zarr", axes="czyx", channels=[2, 0])
    assert [s.mean for s in sample_statistics(volume)] == [7, 5]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_whose_halves_differ_is_sampled_in_both(store, axis):
    shape = [64, 64, 64]
    data = np.zeros(shape, "u2")
    half = [slice(None)] * 3
    half[axis] = slice(32, None)
    data[tuple(half)] = 1000
    # 512 chunks, of which 64 are read.
    (found,) = sample_statistics(store(data, (8, 8, 8)), count=64)
    assert found.voxels == 64 * 16**3
    assert (found.minimum, found.maximum) == (0, 1000)
    assert found.mean == pytest.approx(500, abs=1e-6)


@pytest.mark.parametrize("count", [16, 20])
def test_a_sample_of_a_drifting_volume_is_close(store, count):
    data = np.broadcast_to(np.arange(256, dtype="u2")[:, None, None], (256, 32, 32)).copy()
    (found,) = sample_statistics(store(data, (16, 16, 16)), count=count)
    assert found.voxels == count * 16**3
    assert found.mean == pytest.approx(data.mean(), rel=0.08)
    assert found.std == pytest.approx(data.std(), rel=0.08)


def test_samples_are_spread_over_time(store):
    volume = store(np.zeros((40, 4, 16, 16), "u1"), (1, 4, 16, 16), axes="tzyx")
    times = [s.t for s in sample_boxes(volume, count=10)]
    assert [t // 4 for t in times] == list(range(10))


def test_boxes_are_whole_chunks_or_joined_thin_ones(store):
    volume = store(np.zeros((40, 48, 48), "u1"), (1, 24, 24))
    for sample in sample_boxes(volume):
        z, y, x = sample.box.shape
        assert (y, x) == (24, 24)
        assert z in (16, 8)
        assert all(a % c == 0 for a, c in zip(sample.box.start, (16, 24, 24), strict=True))


def test_a_sample_of_a_huge_volume_is_bounded(tmp_path):
    zarr.create_array(str(tmp_path / "huge.zarr"), shape=(10**5,) * 3, chunks=(64,) * 3, dtype="u2")
    boxes = sample_boxes(open_volume(tmp_path / "huge.zarr"))
    assert len(boxes) == 64
    assert max(s.box.size for s in boxes) <= 128**3
    assert max(s.box.start[0] for s in boxes) > 9 * 10**4
    assert min(s.box.start[0] for s in boxes) < 10**4


def test_the_seed_decides_the_sample(store):
    volume = store(np.zeros((64, 64, 64), "u1"), (8, 8, 8))
    first, again, other = (sample_boxes(volume, count=9, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_voxels_without_a_value_are_counted_placed_and_left_out(store):
    data = np.random.default_rng(0).normal(size=(20, 32, 32)).astype("f4")
    data[17, 30, 31], data[3, 4, 5], data[3, 4, 6] = np.nan, np.inf, -np.inf
    (found,) = sample_statistics(store(data, (16, 16, 16)))
    assert_close(found, of(data), 1)
    assert found.not_finite == 3
    assert found.first_not_finite == (3, 4, 5)


def test_a_place_without_a_value_is_told_in_the_volumes_coordinates():
    data = np.zeros((20, 32, 32), "f4")
    data[18, 21, 30] = np.nan
    box = Box((16, 16, 16), (20, 32, 32))
    found = box_statistics(data[box.slices], box)
    assert (found.first_not_finite, found.not_finite) == ((18, 21, 30), 1)


def test_a_box_without_any_value_changes_no_mean(store):
    data = np.full((32, 16, 16), np.nan, "f4")
    data[16:] = np.random.default_rng(0).normal(size=(16, 16, 16))
    (found,) = sample_statistics(store(data, (16, 16, 16)))
    assert_close(found, of(data), 1)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f2", "f4", "f8"])
def test_the_statistics_of_a_box_equal_numpy_whatever_the_type(dtype):
    data = np.random.default_rng(0).integers(0, 100, (4, 5, 6)).astype(dtype)
    assert_close(box_statistics(data, Box.whole((4, 5, 6))), of(data), 1)


def test_a_box_that_cannot_be_read_is_left_out(store):
    data = np.random.default_rng(0).integers(0, 100, (32, 16, 16)).astype("u2")
    volume = store(data, (16, 16, 16))
    (Path(volume.address) / "c/0/0/0").write_bytes(b"broken")
    (found,) = sample_statistics(volume)
    assert_close(found, of(data[16:]), 1)


def test_a_constant_volume_is_refused(store):
    found = sample_statistics(store(np.full((16, 16, 16), 7, "u2"), (8, 8, 8)))
    with pytest.raises(InputError, match="v: all 4096 sampled voxels of channel 0 are 7: a const"):
        normalisation_from(found, "v")


def test_the_constant_channel_is_named(store):
    data = np.zeros((2, 8, 16, 16), "u2")
    data[0] = np.random.default_rng(0).integers(0, 9, data.shape[1:])
    found = sample_statistics(store(data, (1, 8, 16, 16), axes="czyx"))
    with pytest.raises(InputError, match="channel 1 are 0"):
        normalisation_from(found, "v")


def test_a_volume_without_any_value_is_refused(store):
    found = sample_statistics(store(np.full((8, 16, 16), np.nan, "f4"), (8, 16, 16)))
    with pytest.raises(InputError, match=r"v: channel 0 holds no finite.* voxel"):
        normalisation_from(found, "v")
