"""A survey: exact where all is read, honest about what it does not know where it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.local_cluster import thread_client
from n2v_scale.regions import RegionSampler
from n2v_scale.statistics import SampledBox
from n2v_scale.survey import PERCENTILES, Survey, survey_volume

PATCH = (8, 8, 8)


@pytest.fixture
def store(tmp_path):
    """An array (t, c, z, y, x), or fewer axes from the right, as an opened volume."""

    def write(data, chunks=(16, 16, 16), axes=None):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        zarr.create_array(str(path), data=data, chunks=chunks, compressors=None)
        return open_volume(path, axes=axes)

    return write


def boxes_of(volume, *, voxels=2**26, **options) -> list[SampledBox]:
    times, channels = volume.shape[:2]
    sampler = RegionSampler(times, channels, volume.spatial_shape, volume.chunk, PATCH, 0)
    found = replace(sampler, **options).survey_boxes(voxels)
    return [SampledBox(r.t, r.c, r.box) for r in found]


def survey(volume, client, **options) -> Survey:
    return survey_volume(volume, boxes_of(volume, **options), client)


def blobs(shape, electrons=40.0, seed=0) -> np.ndarray:
    """Structure of all brightnesses with a camera's noise: gain 2, offset 100."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    light = np.maximum(0, np.sin(z / 5) * np.sin(y / 6 + 1) * np.sin(x / 7 + 2))
    counted = rng.poisson(electrons * light) + 1.5 * rng.standard_normal(shape)
    return np.round(100 + 2 * counted).clip(0, 65535).astype("u2")


@pytest.mark.parametrize("dtype", ["u2", "i2", "f4"])
def test_a_volume_that_is_read_whole_is_known_exactly(store, client, dtype):
    data = blobs((40, 50, 60)).astype(dtype)
    (found,) = survey(store(data), client).channels
    assert found.moments.voxels == data.size
    assert found.moments.mean == pytest.approx(data.mean(dtype="f8"), rel=1e-12)
    assert found.moments.std == pytest.approx(data.std(dtype="f8"), rel=1e-9)
    assert (found.moments.minimum, found.moments.maximum) == (data.min(), data.max())
    assert found.mean_error == found.std_error == 0


def test_channels_are_surveyed_apart_over_all_times(store, client):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3, 2, 16, 32, 32)).astype("f4")
    data[:, 1] = 50 + 7 * data[:, 1]
    found = survey(store(data, (1, 1, 16, 16, 16)), client)
    for c, channel in enumerate(found.channels):
        assert channel.moments.voxels == 3 * 16 * 32 * 32
        assert channel.moments.mean == pytest.approx(data[:, c].mean(dtype="f8"), abs=1e-9)
        assert channel.moments.std == pytest.approx(data[:, c].std(dtype="f8"), rel=1e-9)
        assert channel.mean_error == channel.std_error == 0
    assert found.statistics == tuple(channel.moments for channel in found.channels)


def test_percentiles_of_small_boxes_equal_numpy(store, client):
    data = blobs((24, 24, 24))
    volume = store(data, (12, 12, 12))
    small = [
        SampledBox(0, 0, Box((z, y, x), (z + 12, y + 12, x + 12)))
        for z in (0, 12)
        for y in (0, 12)
        for x in (0, 12)
    ]
    (found,) = survey_volume(volume, small, client).channels
    assert tuple(found.percentiles) == PERCENTILES
    expected = np.percentile(data, PERCENTILES)
    assert list(found.percentiles.values()) == pytest.approx(expected.tolist())


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("edge", [32, 64])
def test_percentiles_see_all_of_a_box_whatever_it_varies_along(store, client, axis, edge):
    data = np.moveaxis(np.broadcast_to(np.arange(edge, dtype="u2"), (edge,) * 3), 2, axis)
    volume = store(np.ascontiguousarray(data), (16, 16, 16))
    whole = [SampledBox(0, 0, Box.whole((edge,) * 3))]
    (found,) = survey_volume(volume, whole, client).channels
    expected = np.percentile(data, PERCENTILES)
    assert list(found.percentiles.values()) == pytest.approx(expected.tolist(), abs=edge / 32)


def test_saturated_voxels_are_counted(store, client):
    data = blobs((32, 32, 32))
    data[:, :, :4][data[:, :, :4] > 100] = 65535
    share = (data == 65535).mean()
    assert share > 0.02
    assert survey(store(data), client).channels[0].saturated == pytest.approx(share)
    signed = np.where(data == 65535, 32767, 5).astype("i2")
    signed[0, 0, 0] = 6
    assert survey(store(signed), client).channels[0].saturated == pytest.approx(share, rel=1e-3)


def test_real_numbers_have_no_largest_value(store, client):
    data = np.minimum(blobs((32, 32, 32)), 120).astype("f4")
    assert survey(store(data), client).channels[0].saturated == 0


def half(background) -> np.ndarray:
    data = blobs((32, 64, 64))
    data[:, :, 32:] = background
    return data


def test_the_empty_share_of_a_half_empty_volume_is_about_half(store, client):
    dark = blobs((32, 64, 32), electrons=0)
    full = survey(store(blobs((32, 64, 64))), client).channels[0].empty
    found = survey(store(half(dark)), client).channels[0].empty
    # Of the full half too, some cells are dark.
    assert found == pytest.approx(0.5 + 0.5 * full, abs=0.08)


@pytest.mark.parametrize("value", [0, 100])
def test_a_half_without_even_noise_is_empty(store, client, value):
    found = survey(store(half(value)), client)
    assert 0.49 < found.channels[0].empty < 0.7  # some of the full half is dark, too


@pytest.mark.parametrize("value", [0, 100, 500])
def test_padding_does_not_change_the_noise(store, client, value):
    (found,) = survey(store(half(value)), client).channels
    assert found.noise is not None
    assert found.noise.gain == pytest.approx(2, rel=0.2)


def test_a_half_without_even_noise_has_no_content(store, client):
    data = half(0)
    data[:, :, :32] *= 20
    volume = store(data)
    boxes = boxes_of(volume)
    found = survey_volume(volume, boxes, client)
    outside = [c for c, b in zip(found.content, boxes, strict=True) if b.box.start[2] >= 32]
    inside = [c for c, b in zip(found.content, boxes, strict=True) if b.box.stop[2] <= 32]
    assert max(outside) == 0
    assert max(inside) > 0.3


def test_content_is_high_where_there_is_structure(store, client):
    data = half(blobs((32, 64, 32), electrons=0))
    volume = store(data)
    boxes = boxes_of(volume)
    found = survey_volume(volume, boxes, client)
    assert len(found.content) == len(boxes)
    outside = [c for c, b in zip(found.content, boxes, strict=True) if b.box.start[2] >= 32]
    inside = [c for c, b in zip(found.content, boxes, strict=True) if b.box.stop[2] <= 32]
    assert max(outside) < 0.12
    assert np.mean(inside) > 0.3


def test_the_noise_is_that_of_the_camera(store, client):
    noise = survey(store(blobs((48, 64, 64))), client).channels[0].noise
    assert noise is not None
    assert noise.gain == pytest.approx(2, rel=0.15)
    assert noise.offset == pytest.approx(100, abs=1)
    assert noise.read_noise_electrons == pytest.approx(1.5, rel=0.15)


def drifting(seed: int, shape=(128, 128, 128)) -> np.ndarray:
    """Bright lumps of about two chunks in the dark: boxes differ much from each other."""
    rng = np.random.default_rng(seed)
    coarse = rng.exponential(size=[n // 16 for n in shape])
    light = coarse.repeat(16, 0).repeat(16, 1).repeat(16, 2)
    return (100 * light + rng.normal(size=shape)).astype("f4")


@pytest.mark.parametrize("voxels", [2**26, 1])
def test_the_truth_mostly_lies_within_the_stated_errors(store, client, voxels):
    data = drifting(0)
    volume = store(data)
    within_mean = within_std = 0
    for seed in range(12):
        # 512 cells of one chunk, of which 32 are read.
        (found,) = survey(volume, client, most=32, seed=seed, voxels=voxels).channels
        assert found.moments.voxels == data.size / 16
        assert 0 < found.mean_error < found.moments.mean
        within_mean += abs(found.moments.mean - data.mean()) <= found.mean_error
        within_std += abs(found.moments.std - data.std()) <= found.std_error
    assert within_mean >= 10
    assert within_std >= 9


def test_the_errors_shrink_with_what_is_read(store, client):
    volume = store(drifting(0))
    few, many = (survey(volume, client, most=n).channels[0].mean_error for n in (16, 256))
    assert few > 2 * many > 0


def test_an_unreadable_chunk_is_left_out(store, client):
    data = blobs((32, 32, 64))
    volume = store(data)
    (Path(volume.address) / "c/0/0/0").write_bytes(b"broken")
    boxes = boxes_of(volume)
    found = survey_volume(volume, boxes, client)
    (channel,) = found.channels
    rest = data.astype("f8")
    rest[:16, :16, :16] = np.nan
    assert channel.moments.voxels == data.size - 16**3
    assert channel.moments.mean == pytest.approx(np.nanmean(rest))
    assert channel.moments.std == pytest.approx(np.nanstd(rest))
    assert channel.mean_error > 0
    broken = [k for k, b in enumerate(boxes) if b.box.start == (0, 0, 0)]
    assert [k for k, c in enumerate(found.content) if c == 0] == broken
    json.dumps(channel.to_dict())


def test_a_volume_that_cannot_be_read_has_no_statistics(store, client):
    volume = store(blobs((16, 16, 16)))
    (Path(volume.address) / "c/0/0/0").write_bytes(b"broken")
    found = survey(volume, client)
    assert found.channels[0].moments.voxels == 0
    assert found.channels[0].noise is None
    assert found.channels[0].empty == found.channels[0].saturated == 0
    assert found.content == (0,)


def test_missing_voxels_are_counted_and_change_nothing_else(store, client):
    data = blobs((48, 64, 64)).astype("f4")
    data[17, 3, 20], data[5, 6, 7] = np.nan, np.inf
    (found,) = survey(store(data), client).channels
    finite = data[np.isfinite(data)].astype("f8")
    assert found.moments.not_finite == 2
    assert found.moments.mean == pytest.approx(finite.mean())
    assert found.mean_error == found.std_error == 0
    assert np.isfinite(list(found.percentiles.values())).all()
    (without,) = survey(store(blobs((48, 64, 64)).astype("f4")), client).channels
    assert found.noise is not None
    assert found.noise.gain == pytest.approx(without.noise.gain, rel=0.05)


def test_a_single_plane_and_a_thin_volume_are_surveyed(store, client):
    for planes in (1, 2):
        data = blobs((7, 128, 128))[-planes:]
        volume = store(data, (1, 32, 32))
        sampler = RegionSampler(1, 1, data.shape, volume.chunk, (planes, 16, 16), 0)
        boxes = [SampledBox(r.t, r.c, r.box) for r in sampler.survey_boxes()]
        (found,) = survey_volume(volume, boxes, client).channels
        assert found.moments.voxels == data.size
        assert found.noise is not None
        assert found.noise.gain == pytest.approx(2, rel=0.3)


def test_a_line_of_voxels_has_statistics_and_no_noise_model(store, client):
    volume = store(np.arange(64, dtype="u2").reshape(1, 2, 32), (1, 2, 32))
    found = survey_volume(volume, [SampledBox(0, 0, Box.whole((1, 2, 32)))], client)
    assert found.channels[0].moments.mean == 31.5
    assert found.channels[0].noise is None


def test_the_survey_does_not_depend_on_the_readers(store):
    volume = store(drifting(0, (64, 64, 64)))
    found = []
    for threads in (1, 3):
        with thread_client(threads) as client:
            found.append(survey(volume, client, most=32))
    assert found[0] == found[1]


def test_a_survey_survives_json(store, client):
    (found,) = survey(store(blobs((32, 32, 32))), client).channels
    told = json.loads(json.dumps(found.to_dict()))
    assert told["mean"] == found.moments.mean
    assert told["percentiles"]["99.9"] == found.percentiles[99.9]
    assert told["noise"]["gain"] == found.noise.gain
    assert told["sampled_voxels"] == 32**3
