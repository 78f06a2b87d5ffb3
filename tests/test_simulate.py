import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.camera import Camera
from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Box, grid_cell, grid_indices
from n2v_scale.metrics import psnr
from n2v_scale.simulate import LightSheetParameters, simulate_light_sheet
from n2v_scale.tissue import Tissue, Waves

SMALL = (24, 96, 96)


@pytest.fixture(scope="module")
def volume():
    return simulate_light_sheet(SMALL, seed=3)


@pytest.fixture(scope="module")
def default():
    return simulate_light_sheet()


@pytest.fixture(scope="module")
def residual(volume):
    return volume.noisy - volume.clean.astype(np.float64)


@pytest.mark.parametrize("shape", [(1, 64, 64), (5, 33, 47), (1, 1, 1), (70, 3, 2), SMALL])
def test_shape_and_dtype(shape):
    volume = simulate_light_sheet(shape)
    assert volume.clean.shape == volume.noisy.shape == shape
    assert volume.clean.dtype == np.float32
    assert volume.noisy.dtype == np.uint16
    assert np.isfinite(volume.clean).all()
    assert volume.clean.min() >= 100


def test_same_seed_same_bytes_other_seed_other_tissue(volume):
    again = simulate_light_sheet(SMALL, seed=3)
    other = simulate_light_sheet(SMALL, seed=4)
    assert np.array_equal(again.clean, volume.clean)
    assert np.array_equal(again.noisy, volume.noisy)
    assert again.parameters == volume.parameters
    assert not np.array_equal(other.clean, volume.clean)


def test_default_is_worth_denoising(default):
    assert 18 < psnr(default.noisy, default.clean, default.data_range) < 24
    low, high = np.percentile(default.electrons, [1, 99.9])
    assert low < 1
    assert 20 < high < 60


def test_default_holds_tissue_and_empty_space(default):
    dark = (default.electrons < 1.5).mean()
    bright = (default.electrons > 12).mean()
    assert 0.03 < dark < 0.4
    assert 0.05 < bright < 0.4


def test_depth_costs_light():
    kept = simulate_light_sheet(SMALL, depth_loss=0.0).electrons
    lost = simulate_light_sheet(SMALL, depth_loss=0.8).electrons
    ratio = lost / kept
    assert ratio.max() <= 1
    assert ratio[0].mean() > 1.5 * ratio[-1].mean()
    assert ratio[..., :10].mean() > 1.5 * ratio[..., -10:].mean()


def test_variance_is_that_of_the_camera(volume, residual):
    camera = volume.parameters.camera
    electrons = volume.electrons.ravel()
    order = np.argsort(electrons)
    for part in np.array_split(order, 12):
        expected = camera.gain**2 * (electrons[part].mean() + camera.read_noise**2) + 1 / 12
        assert (residual.ravel()[part] ** 2).mean() == pytest.approx(expected, rel=0.06)


def test_noise_has_no_bias(residual):
    assert abs(residual.mean()) < 4 * residual.std() / np.sqrt(residual.size)


def test_noise_is_independent_from_voxel_to_voxel(default):
    noise = default.noisy - default.clean.astype(np.float64)
    noise /= np.sqrt(default.electrons + default.parameters.camera.read_noise**2)
    for axis in range(3):
        a = np.delete(noise, 0, axis).ravel()
        b = np.delete(noise, -1, axis).ravel()
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.01


def test_offset_is_what_a_dark_camera_reads():
    camera = Camera(offset=137.0)
    dark = camera.expose(np.full((20, 64, 64), 137, np.float32), seed=0)
    assert dark.mean() == pytest.approx(137, abs=0.1)
    assert dark.std() == pytest.approx(camera.gain * camera.read_noise, rel=0.05)


def test_pixels_differ_in_read_noise_as_stated():
    dark = np.full((400, 24, 24), 100, np.float32)
    same = Camera(read_noise_spread=0.0).expose(dark, seed=0).std(axis=0)
    unequal = Camera(read_noise_spread=0.4).expose(dark, seed=0).std(axis=0)
    assert np.log(same).std() < 0.06
    assert np.log(unequal).std() == pytest.approx(0.4, rel=0.15)
    assert np.sqrt((unequal**2).mean()) == pytest.approx(2.2 * 1.6, rel=0.1)


def test_offset_spread_repeats_along_z():
    dark = np.full((200, 16, 16), 100, np.float32)
    mean = Camera(offset_spread=5.0).expose(dark, seed=0).mean(axis=0)
    assert mean.std() == pytest.approx(5, rel=0.2)


def test_each_plane_has_its_own_noise():
    noisy = Camera().expose(np.full((2, 64, 64), 200, np.float32), seed=0)
    assert not np.array_equal(noisy[0], noisy[1])


def test_camera_clips_to_16_bits():
    camera = Camera(offset=0.0, read_noise=3.0)
    extremes = np.stack([np.zeros((8, 8)), np.full((8, 8), 1e6)]).astype(np.float32)
    noisy = camera.expose(extremes, seed=0)
    assert noisy[0].max() < 40
    assert (noisy[1] == 65535).all()


def test_point_spread_function_smooths():
    sharp = simulate_light_sheet(SMALL, psf_sigma=(0.0, 0.0, 0.0)).clean
    blurred = simulate_light_sheet(SMALL).clean
    for axis in range(3):
        roughness = [np.abs(np.diff(c, n=2, axis=axis)).mean() for c in (sharp, blurred)]
        assert roughness[1] < 0.6 * roughness[0]
    assert blurred.mean() == pytest.approx(sharp.mean(), rel=0.02)


def test_clean_holds_no_detail_finer_than_the_optics(default):
    plane = default.clean[20].astype(np.float64)
    spectrum = np.abs(np.fft.rfft2(plane - plane.mean())) ** 2
    fine = np.abs(np.fft.fftfreq(plane.shape[0]))[:, None] > 0.4
    assert (spectrum * fine).sum() < 0.01 * spectrum.sum()


@settings(max_examples=8, deadline=None)
@given(cell=st.tuples(st.integers(3, 14), st.integers(9, 40), st.integers(9, 40)))
def test_boxes_of_tissue_fit_together(cell):
    shape = (13, 37, 41)
    tissue = Tissue(shape, (2.0, 0.4, 0.4), seed=5)
    whole = tissue.cells(Box.whole(shape))
    for index in grid_indices(shape, cell):
        box = grid_cell(index, cell, shape)
        np.testing.assert_allclose(tissue.cells(box), whole[box.slices], rtol=1e-4, atol=1e-5)


def test_waves_have_mean_0_and_variance_1():
    waves = Waves.draw(np.random.default_rng(0), 2.0)
    z, y, x = np.ogrid[0:60:40j, 0:60:40j, 0:60:40j]
    values = waves(*(p.astype(np.float32) for p in (z, y, x)))
    assert abs(values.mean()) < 0.05
    assert values.std() == pytest.approx(1, rel=0.05)


def test_parameters_are_json_and_reproduce_the_volume(volume):
    stored = json.loads(volume.parameters.to_json())
    assert stored == json.loads(json.dumps(asdict(volume.parameters)))
    camera = stored.pop("camera")
    again = simulate_light_sheet(**stored, **camera)
    assert np.array_equal(again.noisy, volume.noisy)


def test_more_photons_less_noise():
    few, many = (simulate_light_sheet(SMALL, photons=p) for p in (10.0, 160.0))
    assert psnr(many.noisy, many.clean, many.data_range) > 6 + psnr(
        few.noisy, few.clean, few.data_range
    )


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"shape": (4, 4)}, "shape"),
        ({"shape": (0, 4, 4)}, "shape"),
        ({"seed": -1}, "seed"),
        ({"voxel_size": (1.0, 0.0, 1.0)}, "voxel_size"),
        ({"psf_sigma": (1.0, -1.0, 1.0)}, "psf_sigma"),
        ({"photons": 0.0}, "photons"),
        ({"depth_loss": 1.0}, "depth_loss"),
        ({"gain": 0.0}, "gain"),
        ({"offset": -1.0}, "offset"),
        ({"read_noise": float("nan")}, "read_noise"),
    ],
)
def test_bad_settings_are_named(settings_, named):
    with pytest.raises(ConfigError, match=named):
        simulate_light_sheet(**{"shape": (4, 8, 8), **settings_})


def test_parameters_check_themselves():
    with pytest.raises(ConfigError, match="shape"):
        LightSheetParameters(shape=(1, 1, 0))
