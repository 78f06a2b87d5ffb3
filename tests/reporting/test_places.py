"""Places are where something is, and at random; what is shown of them are the volume's voxels."""

from __future__ import annotations

import numpy as np
import pytest

from n2v_scale.reporting.places import BY_CHANCE, BY_CONTRAST, MOST, choose_places, planes_of
from n2v_scale.reporting.sight import Sight


@pytest.fixture
def sight(tmp_path, write_volume):
    def make(values, axes="", scale=None, chunk=None):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        return Sight(write_volume(path, values, axes, scale=scale, chunk=chunk))

    return make


def noise(*shape):
    return np.random.default_rng(0).normal(100, 2, shape).astype("f4")


def test_the_first_place_is_where_most_contrast_is(sight):
    values = noise(32, 64, 64)
    values[20:24, 40:44, 8:12] += 500
    first = choose_places(sight(values, chunk=(16, 32, 32)))[0]
    assert first.why == BY_CONTRAST
    assert all(a <= c < b for c, a, b in zip(first.centre, (20, 40, 8), (24, 44, 12), strict=True))


def test_nan_is_no_contrast(sight):
    values = noise(32, 64, 64)
    values[:16, :32, :31] = np.nan
    values[20:24, 40:44, 8:12] += 500
    first = choose_places(sight(values, chunk=(16, 32, 32)))[0]
    assert first.centre[0] >= 20
    assert choose_places(sight(np.full((16, 32, 32), np.nan, "f4")))[0].why == BY_CHANCE


def test_the_same_seed_gives_the_same_places_and_another_others(sight):
    of = sight(noise(32, 64, 64), chunk=(16, 32, 32))
    assert choose_places(of, seed=3) == choose_places(of, seed=3) != choose_places(of, seed=4)
    assert [place.why for place in choose_places(of)] == [BY_CONTRAST] * 3 + [BY_CHANCE] * 2


def test_a_plane_is_shown_once(sight):
    (place,) = choose_places(sight(noise(1, 60, 80)))
    assert place.box.shape == (1, 60, 80)
    (flat,) = choose_places(sight(noise(60, 80), "yx"))
    assert flat.box.shape == (1, 60, 80)
    several = choose_places(sight(noise(1, 600, 700), chunk=(1, 64, 64)))
    assert len({place.box for place in several}) == len(several) == 5


def test_channels_share_the_places_and_none_is_alone(sight):
    four = choose_places(sight(noise(4, 8, 24, 24), "czyx", chunk=(1, 8, 8, 8)))
    assert [place.c for place in four] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert {place.why for place in four} == {BY_CONTRAST, BY_CHANCE}
    many = choose_places(sight(noise(9, 8, 24, 24), "czyx", chunk=(1, 8, 8, 8)))
    assert len(many) <= MOST
    assert {place.c for place in many} == {0, 3, 5, 8}


def test_a_place_is_no_deeper_than_it_is_wide(sight):
    values = noise(100, 40, 50)
    (shape,) = {place.box.shape for place in choose_places(sight(values, scale=(1, 1, 1)))}
    assert shape == (50, 40, 50)
    (coarse,) = {place.box.shape for place in choose_places(sight(values, scale=(2, 0.4, 0.4)))}
    assert coarse == (16, 40, 50)
    (fine,) = {place.box.shape for place in choose_places(sight(values, scale=(0.5, 1, 1)))}
    assert fine == (100, 40, 50)


def test_planes_are_the_voxels(sight):
    values = noise(2, 20, 30, 40)
    for place in choose_places(sight(values, "tzyx", chunk=(1, 8, 8, 8))):
        z, y, x = place.centre
        (z0, y0, x0), (z1, y1, x1) = place.box.start, place.box.stop
        volume = values[place.t]
        planes = planes_of(sight(values, "tzyx"), place)
        assert np.array_equal(planes["xy"], volume[z, y0:y1, x0:x1])
        assert np.array_equal(planes["xz"], volume[z0:z1, y, x0:x1])
        assert np.array_equal(planes["yz"], volume[z0:z1, y0:y1, x])
