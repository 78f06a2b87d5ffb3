"""A diagnosis: right on simulated cameras and on real volumes whose noise is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from scipy.ndimage import convolve1d

import n2v_scale
from n2v_scale.blind_masks import parse_blind_mask
from n2v_scale.correlation import AxisCorrelation
from n2v_scale.diagnosis import diagnose_volume, pile
from n2v_scale.diagnosis_text import diagnosis_text
from n2v_scale.io.open import open_volume
from n2v_scale.noise import NoiseModel
from n2v_scale.recommendation import FEWEST_VOXELS, recommend
from n2v_scale.simulate import simulate_light_sheet

SHAPE = (32, 128, 128)
CAMERA = NoiseModel(2.0, 100.0, 3.0, 0.01)


@pytest.fixture
def diagnose(tmp_path):
    def call(values, chunks=(16, 64, 64), axes=None):
        path = str(tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr")
        small = tuple(min(a, b) for a, b in zip(values.shape[-3:], chunks, strict=True))
        chunks = (1,) * (values.ndim - 3) + small
        zarr.create_array(path, data=values, chunks=chunks)
        return diagnose_volume(open_volume(path, axes=axes))

    return call


@pytest.fixture(scope="module")
def simulated():
    return simulate_light_sheet(SHAPE, seed=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("gain", "read_noise"), [(2.2, 1.6), (0.7, 2.5)])
def test_a_camera_is_found(diagnose, seed, gain, read_noise):
    volume = simulate_light_sheet(SHAPE, seed=seed, gain=gain, read_noise=read_noise)
    found = diagnose(volume.noisy)
    (channel,) = found.channels
    assert channel.noise.gain == pytest.approx(gain, rel=0.1)
    assert channel.noise.read_noise == pytest.approx(gain * read_noise, rel=0.2)
    assert channel.noise.offset == pytest.approx(100, abs=2)
    assert found.recommendation.method == "ssdn"
    assert found.recommendation.mask == ""
    assert "independent" in found.recommendation.sentence


@pytest.mark.parametrize("photons", [8, 150, 400])
def test_structure_in_little_noise_raises_no_alarm(diagnose, photons):
    found = diagnose(simulate_light_sheet(SHAPE, seed=1, photons=photons).noisy)
    assert all(abs(axis.strongest) < 0.1 for axis in found.channels[0].correlation)
    assert found.recommendation.mask == ""


def test_row_noise_needs_a_mask_along_x(diagnose, simulated):
    rows = 5 * np.random.default_rng(0).standard_normal((*SHAPE[:2], 1))
    found = diagnose((simulated.noisy + rows).astype("f4"))
    assert found.recommendation.method == "structn2v"
    assert found.recommendation.mask == "x:8"
    assert "along x" in found.recommendation.sentence
    assert any("lines" in note for note in found.recommendation.notes)


def test_line_noise_is_found_and_the_gain_corrected(diagnose, simulated):
    white = np.random.default_rng(0).standard_normal(SHAPE)
    correlated = convolve1d(white, [0.5, 1, 0.5], axis=2) / np.sqrt(1.5)
    noise = correlated * np.sqrt(2.2 * (simulated.clean - 100) + 3.52**2)
    found = diagnose((simulated.clean + noise).astype("f4"))
    (channel,) = found.channels
    assert found.recommendation.mask == "x:2"
    assert channel.correlation[2].lags[0] == pytest.approx(2 / 3, abs=0.05)
    assert channel.survey.noise.gain < 0.4 * 2.2
    assert channel.noise.gain == pytest.approx(2.2, rel=0.15)
    assert channel.noise.read_noise == pytest.approx(3.52, rel=0.2)
    assert any("corrected" in note for note in found.recommendation.notes)


def test_a_pattern_of_the_sensor_repeats_along_z(diagnose, simulated):
    pattern = 6 * np.random.default_rng(0).standard_normal((1, *SHAPE[1:]))
    found = diagnose((simulated.noisy + pattern).astype("f4"))
    assert found.channels[0].correlation[0].pattern > 0.15
    assert found.recommendation.mask == "z:8"
    assert any("dark frame" in note for note in found.recommendation.notes)


def test_saturation_clipping_and_emptiness(diagnose, simulated):
    values = np.clip(simulated.noisy, 103, 160)
    (channel,) = diagnose(values).channels
    assert channel.saturated == pytest.approx((values == 160).mean(), rel=0.2)
    assert channel.clipped == pytest.approx((values == 103).mean(), rel=0.1)
    (whole,) = diagnose(simulated.noisy).channels
    assert whole.saturated == whole.clipped == 0
    padded = simulated.noisy.copy()
    padded[:, :64] = 0
    (half,) = diagnose(padded).channels
    assert half.clipped == pytest.approx(0.5, abs=0.02)
    assert half.survey.empty >= 0.5


def test_a_pile_is_more_than_the_end_of_a_distribution():
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, 10_000).astype("f4")
    assert pile(counts, 0) == pile(counts, -1) == 0
    bright = rng.normal(100, 9, 10_000).round().astype("f4")
    assert pile(np.minimum(bright, 105), -1) == pytest.approx((bright >= 105).mean())
    assert pile(np.full(100, 3, "f4"), -1) == 0
    assert pile(np.empty(0, "f4"), 0) == 0


def test_channels_share_a_recommendation(diagnose, simulated):
    white = np.random.default_rng(0).normal(100, 5, SHAPE)
    rows = np.random.default_rng(1).normal(0, 5, (*SHAPE[:2], 1))
    both = np.stack([white, simulated.noisy + rows]).astype("f4")
    found = diagnose(both, axes="czyx")
    assert len(found.channels) == 2
    assert not any(axis.strong for axis in found.channels[0].correlation)
    assert found.recommendation.mask == "x:8"


@pytest.mark.parametrize("shape", [(1, 256, 256), (2, 200, 200), (40, 130, 67)])
def test_thin_and_odd_volumes(diagnose, shape):
    found = diagnose(np.random.default_rng(0).normal(100, 5, shape).astype("f4"))
    assert found.recommendation.mask == ""
    assert all(abs(axis.strongest) < 0.1 for axis in found.channels[0].correlation)


def test_a_tiny_volume_says_so(diagnose):
    found = diagnose(np.random.default_rng(0).normal(100, 5, (4, 20, 20)).astype("f4"))
    assert found.recommendation.method == "linear"
    assert found.channels[0].noise is None
    assert "too little" in found.recommendation.sentence
    assert "too few voxels to see it" in diagnosis_text(found)
    json.dumps(found.to_dict())


def test_nan_is_counted_and_left_out(diagnose, simulated):
    values = simulated.noisy.astype("f4")
    values[:8, :30, :30] = np.nan
    found = diagnose(values)
    assert found.channels[0].noise.gain == pytest.approx(2.2, rel=0.15)
    assert "not finite     7.2 kvoxel" in diagnosis_text(found).replace("7.20", "7.2")


def test_it_is_repeatable_and_public(tmp_path, simulated):
    path = str(tmp_path / "v.zarr")
    zarr.create_array(path, data=simulated.noisy, chunks=(16, 64, 64))
    first, second = n2v_scale.diagnose(path), n2v_scale.diagnose(open_volume(path))
    assert first.to_dict() == second.to_dict()
    described = json.loads(json.dumps(first.to_dict()))
    assert set(described) == {"recommendation", "channels"}
    assert set(described["channels"][0]["correlation"]) == {"z", "y", "x"}


def axes(*strongest, errors=0.01):
    return [
        AxisCorrelation(name, (r, 0.0, 0.0), (errors,) * 3)
        for name, r in zip("zyx", strongest, strict=True)
    ]


@pytest.mark.parametrize(
    ("noise", "along", "voxels", "method", "mask"),
    [
        (CAMERA, axes(0, 0, 0), 2**24, "ssdn", ""),
        (CAMERA, axes(0, 0.1, 0), 2**24, "ssdn", ""),
        (CAMERA, axes(0, 0, 0.5), 2**24, "structn2v", "x:1"),
        (CAMERA, axes(0, 0.4, 0.5), 2**10, "linear", "box:0,1,1"),
        (CAMERA, axes(0, 0, 0), FEWEST_VOXELS - 1, "linear", ""),
        (NoiseModel(1, 0, 1, 0.9), axes(0, 0, 0), 2**24, "n2v", ""),
        (NoiseModel(1, 0, 1, 0.9), axes(0, 0, 0.5), 2**24, "structn2v", "x:1"),
        (NoiseModel(1, 0, 1, 0.9), axes(0, 0, 0.5, errors=0.3), 2**24, "n2v", ""),
        (None, axes(0, 0, 0), 2**24, "n2v", ""),
    ],
)
def test_the_recommendation(noise, along, voxels, method, mask):
    found = recommend([(noise, along)], voxels)
    assert (found.method, found.mask) == (method, mask)
    assert found.sentence.startswith(method)
    assert not mask or parse_blind_mask(mask)
    assert ("mask " + mask in found.sentence) or not mask


REAL = {
    "chromosomes.tif": ("ssdn", ""),
    "dendrite_correlated_noise.tif": ("structn2v", "x:8"),
    "lateralroot_nuclei_lightsheet.tif": ("structn2v", "z:8,y:1,x:1"),
    "lightsheet_timelapse_tzyx.tif": ("ssdn", ""),
    "mousebrain_atlas_clean.tif": ("n2v", ""),
    "mousebrain_background.tif": ("n2v", ""),
    "mousebrain_signal.tif": ("ssdn", ""),
    "nuclear_envelope.tif": ("structn2v", "box:0,2,2"),
    "organoid_lowsnr.tif": ("ssdn", ""),
    "ovule_nuclei_confocal.tif": ("ssdn", ""),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_volumes(data_dir, name):
    found = n2v_scale.diagnose(data_dir / "volumes" / name).recommendation
    assert (found.method, found.mask) == REAL[name]


@pytest.mark.data
def test_white_noise_on_a_real_brain(data_dir, diagnose):
    import tifffile

    brain = tifffile.imread(data_dir / "volumes" / "mousebrain_atlas_clean.tif")
    crop = brain[60:156, 0:192, 8:264].astype("f4")
    clean = 40 * crop / np.percentile(crop, 99.9)
    rng = np.random.default_rng(0)
    noisy = rng.poisson(clean) + 2.5 * rng.standard_normal(clean.shape)
    (channel,) = (found := diagnose(noisy.astype("f4"))).channels
    assert max(abs(axis.strongest) for axis in channel.correlation) < 0.03
    assert channel.noise.gain == pytest.approx(1, rel=0.1)
    assert channel.noise.read_noise == pytest.approx(2.5, rel=0.1)
    assert found.recommendation.method == "ssdn"
