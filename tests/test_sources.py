"""Sources: what a survey makes of a volume, and the one order of the regions of all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import zarr

from n2v_scale.content import cells_of
from n2v_scale.errors import InputError
from n2v_scale.foreground import open_foreground
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.noise import NoiseModel
from n2v_scale.regions import Region, RegionSampler
from n2v_scale.sources import (
    LEAST_CHANCE,
    Source,
    SourceRegions,
    cells_under,
    common_noise,
    open_sources,
)

PATCH = (8, 8, 8)
SHAPE = (32, 64, 64)


@pytest.fixture
def store(tmp_path):
    """An array (t, c, z, y, x), or fewer axes from the right, as an opened volume."""

    def write(data, chunks=(8, 8, 8), axes=None, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        zarr.create_array(str(path), data=data, chunks=chunks, compressors=None, **options)
        return open_volume(path, axes=axes)

    return write


def textured(shape=SHAPE, *, seed=0, signal=60.0, share=1.0) -> np.ndarray:
    """Noise, and structure in the first ``share`` of the planes along x."""
    rng = np.random.default_rng(seed)
    values = 500 + 5 * rng.standard_normal(shape)
    n = round(share * shape[2])
    values[..., :n] += signal * np.sin(np.indices(shape).sum(axis=0) / 3)[..., :n]
    return values.round().astype("u2")


def masked(store, volume, mask):
    return open_foreground(store(mask.astype("u1"), mask.shape).address, volume)


def chances_of(source: Source, region: Region) -> np.ndarray:
    return source.chances(region, cells_of(source.volume.read(region.t, region.c, region.box)))


def test_the_constants_of_a_source_are_its_mean_and_standard_deviation(store, client):
    data = textured()
    (source,) = open_sources([store(data)], PATCH, client)
    assert source.normalisation.offset == pytest.approx((data.mean(),))
    assert source.normalisation.scale == pytest.approx((data.std(),))


def test_every_volume_has_constants_and_held_out_boxes_of_its_own(store, client):
    volumes = [store(textured(seed=s) + np.uint16(1000 * s)) for s in range(3)]
    sources = open_sources(volumes, PATCH, client, seed=3)
    offsets = [s.normalisation.offset[0] for s in sources]
    assert offsets == pytest.approx([500, 1500, 2500], abs=3)
    assert len({s.held_out for s in sources}) == 3
    assert [s.volume for s in sources] == volumes


def test_shards_are_held_out_whole(store, client):
    (source,) = open_sources([store(textured(), shards=(16, 16, 16))], PATCH, client)
    assert source.held_out
    assert {b.shape for b in source.held_out} == {(16, 16, 16)}


def test_a_volume_smaller_than_a_patch_is_refused(store, client):
    with pytest.raises(InputError, match=r"\(32, 64, 64\).*smaller than a patch of \(8, 8, 80\)"):
        open_sources([store(textured())], (8, 8, 80), client)


def test_a_constant_volume_is_refused_when_its_constants_are_asked_for(store, client):
    (source,) = open_sources([store(np.full(SHAPE, 7, "u2"))], PATCH, client)
    with pytest.raises(InputError, match="a constant volume holds nothing to denoise"):
        _ = source.normalisation


def test_uniform_sampling_has_all_chances_alike(store, client):
    (source,) = open_sources([store(textured(share=0.25))], PATCH, client, uniform=True)
    assert source.regions.weights is None
    for region in source.regions.one_pass(0):
        assert (chances_of(source, region) == 1).all()


def test_places_with_structure_have_better_chances_than_noise(store, client):
    (source,) = open_sources([store(textured(share=0.5))], PATCH, client)
    region = Region(0, 0, Box.whole(SHAPE))
    chances = chances_of(source, region)
    assert chances.shape == (4, 8, 8)
    assert chances[..., :4].min() > 0.9
    assert chances[..., 4:].mean() < 0.2
    assert chances.min() >= LEAST_CHANCE - 1e-6
    assert chances.max() <= 1


def test_strata_with_structure_weigh_more(store, client):
    (source,) = open_sources([store(textured(share=0.5))], PATCH, client)
    weights = np.array(source.regions.weights)
    assert len(weights) == source.regions.strata
    looked_at = replace(source.regions, weights=None).survey_boxes()
    right = np.array([r.box.start[2] >= 32 for r in looked_at])
    left = np.array([r.box.stop[2] <= 32 for r in looked_at])
    assert weights[left].min() > 0.9
    assert weights[right].mean() < 0.2
    assert weights.min() >= LEAST_CHANCE - 1e-9


def test_a_volume_of_nothing_but_noise_is_drawn_from_evenly_enough(store, client):
    (source,) = open_sources([store(textured(signal=0))], PATCH, client)
    weights = np.array(source.regions.weights)
    assert weights.max() / weights.min() <= 1 / LEAST_CHANCE + 1e-6
    assert weights.sum() > 8 * weights.max()


def test_a_mask_decides_alone(store, client):
    volume = store(textured(share=0.5))
    mask = np.zeros((4, 8, 8))
    mask[:, :, 4:] = 1  # the half without structure
    (source,) = open_sources([volume], PATCH, client, foregrounds=[masked(store, volume, mask)])
    assert source.regions.weights is None
    chances = chances_of(source, Region(0, 0, Box.whole(SHAPE)))
    np.testing.assert_array_equal(chances, mask)
    inner = chances_of(source, Region(0, 0, Box((8, 16, 16), (24, 40, 48))))
    np.testing.assert_array_equal(inner, mask[1:3, 2:5, 2:6])


def many(count, *, cells=(4, 8, 8), weights=True) -> list[Source]:
    """Sources of which only the geometry is looked at."""
    shape = tuple(8 * n for n in cells)
    sources = []
    for k in range(count):
        regions = RegionSampler(1, 1, shape, (8,) * 3, (4,) * 3, k, most=16 * (k + 1))
        if weights:
            regions = replace(regions, weights=tuple(np.linspace(0.1, 1, regions.strata)))
        sources.append(Source(None, regions, ()))
    return sources


def test_every_stratum_of_every_source_is_in_a_pass():
    sources = many(3)
    order = SourceRegions(sources, 0)
    assert order.pass_length == sum(s.regions.pass_length for s in sources)
    for number in range(3):
        found = [order[number * order.pass_length + k] for k in range(order.pass_length)]
        strata = {(f.source, f.region.stratum) for f in found}
        assert strata == {(s, k) for s in range(3) for k in range(sources[s].regions.strata)}


def test_sources_are_mixed_and_come_in_proportion():
    sources = many(3, weights=False)
    order = SourceRegions(sources, 0)
    found = [order[k].source for k in range(order.pass_length)]
    assert Counter(found) == {0: 16, 1: 32, 2: 48}
    assert set(found[: len(found) // 3]) == {0, 1, 2}
    assert found != sorted(found)


def test_a_region_can_be_asked_for_in_any_order():
    sources = many(2)
    forwards, backwards = SourceRegions(sources, 0), SourceRegions(sources, 0)
    numbers = range(6 * forwards.pass_length)
    there = [forwards[k] for k in numbers]
    assert [backwards[k] for k in reversed(numbers)] == there[::-1]
    other = SourceRegions(sources, 1)
    assert [other[k] for k in numbers] != there


def test_a_large_volume_beside_small_ones_has_more_strata(store, client):
    volumes = [store(textured((16, 16, 16))), store(textured((64, 128, 128)), (16, 16, 16))]
    sources = open_sources(volumes, PATCH, client)
    small, large = (s.regions for s in sources)
    assert small.strata == small.cells == 1
    assert large.strata == large.cells == 4 * 8 * 8


def test_regions_without_foreground_are_drawn_again_or_given_up(store, client):
    volume = store(textured())
    mask = np.zeros((4, 8, 8))
    mask[:2] = 1
    foreground = masked(store, volume, mask)
    (source,) = open_sources([volume], PATCH, client, foregrounds=[foreground])
    order = SourceRegions([source], 0)
    found = [order[k] for k in range(4 * order.pass_length)]
    present = [f for f in found if f is not None]
    assert len(present) >= 2 * order.pass_length
    assert not any(foreground.outside(0, 0, f.region.box) for f in present)
    again = SourceRegions([source], 0)
    assert [again[k] for k in range(4 * order.pass_length)] == found


def test_a_mask_without_foreground_has_no_region(store, client):
    volume = store(textured())
    (source,) = open_sources(
        [volume], PATCH, client, foregrounds=[masked(store, volume, np.zeros((4, 8, 8)))]
    )
    assert SourceRegions([source], 0)[0] is None


def test_cells_under_a_box_are_those_it_touches():
    chances = np.arange(4 * 3 * 2, dtype="f4").reshape(4, 3, 2)
    region = Box((100, 200, 300), (132, 224, 316))
    np.testing.assert_array_equal(cells_under(region, region, chances), chances)
    one = cells_under(Box((108, 208, 300), (116, 216, 308)), region, chances)
    np.testing.assert_array_equal(one, chances[1:2, 1:2, :1])
    straddling = cells_under(Box((107, 208, 307), (109, 209, 309)), region, chances)
    np.testing.assert_array_equal(straddling, chances[0:2, 1:2, :])


def test_the_rest_beyond_the_cells_counts_as_the_last_of_them():
    chances = np.arange(2 * 1 * 1, dtype="f4").reshape(2, 1, 1)  # of (20, 12, 3) voxels
    region = Box((0, 0, 0), (20, 12, 3))
    rest = cells_under(Box((16, 8, 0), (20, 12, 3)), region, chances)
    np.testing.assert_array_equal(rest, chances[1:])


def test_the_common_content_is_never_zero(store, client):
    (source,) = open_sources([store(textured(signal=0))], PATCH, client)
    assert source.common > 0
    unlooked = Source(source.volume, source.regions, ())
    assert unlooked.common > 0
    cells = cells_of(textured((8, 8, 8)))
    assert (unlooked.chances(Region(0, 0, Box.whole((8, 8, 8))), cells) == 1).all()
    assert isinstance(source.survey.channels[0].noise, NoiseModel)


def test_the_common_noise_is_the_mean_of_the_channels_normalised(store, client):
    rng = np.random.default_rng(3)
    signal = 20 + 60 * np.sin(np.indices(SHAPE).sum(axis=0) / 9) ** 2
    bright, dim = (gain * rng.poisson(signal) + 100 for gain in (1, 5))
    sources = open_sources([store(v.astype("u2")) for v in (bright, dim)], PATCH, client)
    noise = common_noise(sources)
    assert noise is not None
    expected = []
    for source in sources:
        constants, channel = source.normalisation, source.survey.channels[0]
        expected.append(channel.noise.normalised(constants.offset[0], constants.scale[0]))
    assert noise.gain == pytest.approx(np.mean([n.gain for n in expected]))
    # Per electron the same: gain and spread are both five times as large.
    assert expected[0].gain == pytest.approx(expected[1].gain, rel=0.15)
    assert noise.variance(np.zeros(())) > 0
    assert common_noise([replace(sources[0], survey=None)]) is None


def test_noise_that_is_not_trusted_is_not_common(store, client):
    (source,) = open_sources([store(textured())], PATCH, client)
    channel = source.survey.channels[0]
    for noise in (
        None,
        NoiseModel(1.0, 500.0, 5.0, misfit=0.3),
        NoiseModel(1.0, 5000.0, 0.0),  # nothing is known where most voxels are
    ):
        survey = replace(source.survey, channels=(replace(channel, noise=noise),))
        assert common_noise([replace(source, survey=survey)]) is None
    camera = NoiseModel(0.0, 500.0, 5.0)
    found = common_noise([source], camera)
    assert found.read_noise == pytest.approx(5 / source.normalisation.scale[0])
    assert found.gain == 0


def test_foreground_in_what_the_cells_leave_out_is_found(store, client):
    """12 planes are one cell of 8, and the mask holds one of the other four."""
    volume = store(textured((12, 64, 64)), chunks=(12, 8, 8))
    mask = np.zeros((12, 64, 64))
    mask[10, 16:32, 16:32] = 1
    (source,) = open_sources([volume], PATCH, client, foregrounds=[masked(store, volume, mask)])
    chances = chances_of(source, Region(0, 0, Box.whole((12, 64, 64))))
    assert chances.shape == (2, 8, 8)
    assert np.argwhere(chances).tolist() == [[1, y, x] for y in (2, 3) for x in (2, 3)]
