"""The camera's line, found again in data that were made with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from n2v_scale.content import cells_of
from n2v_scale.noise import NoiseModel, fit_noise
from n2v_scale.simulate import simulate_light_sheet


def ramp(shape, low, high) -> np.ndarray:
    """Brightness that grows along x, from no light at all."""
    return np.broadcast_to(np.linspace(low, high, shape[2]), shape)


def exposed(electrons, gain, offset, read_noise, seed=0) -> np.ndarray:
    """Counts of a camera: Poisson and Gaussian noise, ``read_noise`` in electrons."""
    rng = np.random.default_rng(seed)
    counted = rng.poisson(electrons) + read_noise * rng.standard_normal(electrons.shape)
    return np.round(offset + gain * counted).astype("f4")


def fitted(values) -> NoiseModel:
    cells = cells_of(values)
    found = fit_noise(cells.mean.ravel(), cells.noise.ravel(), cells.freedom)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("gain", "offset", "read_noise"), [(2.2, 100, 1.6), (0.5, 1000, 6), (10, 0, 2)]
)
def test_the_fit_finds_the_camera_in_a_ramp(gain, offset, read_noise, seed):
    electrons = np.maximum(0, ramp((32, 128, 256), -40, 200))
    found = fitted(exposed(electrons, gain, offset, read_noise, seed))
    assert found.gain == pytest.approx(gain, rel=0.1)
    assert found.offset == pytest.approx(offset, abs=0.2 * gain * read_noise)
    assert found.read_noise_electrons == pytest.approx(read_noise, rel=0.15)


@pytest.mark.parametrize("brightest", [50, 200, 1000])
def test_the_gain_is_found_where_hardly_a_place_is_dark(brightest):
    found = fitted(exposed(ramp((32, 128, 256), 0, brightest), 2.2, 100, 1.6))
    assert found.gain == pytest.approx(2.2, rel=0.1)


@pytest.mark.parametrize("seed", range(2))
def test_the_fit_finds_the_camera_of_a_simulated_light_sheet(seed):
    volume = simulate_light_sheet((32, 192, 192), seed=seed)
    found = fitted(volume.noisy)
    assert found.gain == pytest.approx(2.2, rel=0.15)
    assert found.offset == pytest.approx(100, abs=2)
    assert found.read_noise_electrons == pytest.approx(1.6, rel=0.15)


@pytest.mark.parametrize("seed", range(4))
def test_noise_that_does_not_grow_with_the_signal_has_no_gain(seed):
    rng = np.random.default_rng(seed)
    found = fitted(ramp((16, 128, 128), 0, 500) + 7 * rng.standard_normal((16, 128, 128)))
    assert found.gain == 0
    assert found.read_noise == pytest.approx(7, rel=0.05)
    assert found.read_noise_electrons is None


def test_structure_in_many_cells_is_not_taken_for_noise():
    rng = np.random.default_rng(0)
    electrons = np.array(ramp((32, 128, 256), 0, 200))
    # Checkerboards, which the filter lets through, in two of five cells.
    _, y, x = np.indices(electrons.shape)
    strong = rng.random((4, 16, 32)) < 0.4
    strong = strong.repeat(8, 0).repeat(8, 1).repeat(8, 2)
    electrons *= 1 + 0.5 * strong * (1 - 2 * ((x + y) % 2))
    found = fitted(exposed(electrons, 2.2, 100, 1.6))
    assert found.gain == pytest.approx(2.2, rel=0.15)


def test_without_noise_there_is_none():
    found = fitted(ramp((8, 64, 64), 0, 100))
    assert found.gain == pytest.approx(0, abs=1e-6)
    assert found.read_noise == pytest.approx(0, abs=1e-3)


def test_one_brightness_gives_the_noise_there():
    found = fitted(exposed(np.full((16, 64, 64), 100.0), 2, 50, 1))
    # Where all is alike, any split of the variance will do, as long as it adds up.
    variance = found.variance(np.float64(250))
    assert variance == pytest.approx(4 * 101, rel=0.1)


@given(st.floats(0.01, 1000), st.floats(-1000, 1000))
@settings(deadline=None, max_examples=20)
def test_the_fit_follows_the_units(scale, shift):
    values = exposed(ramp((8, 64, 64), 0, 200), 2.2, 100, 1.6)
    cells = cells_of(values)
    means, variances = cells.mean.ravel().astype(float), cells.noise.ravel().astype(float)
    found = fit_noise(means, variances, cells.freedom)
    other = fit_noise(scale * means + shift, scale**2 * variances, cells.freedom)
    assert found is not None
    assert other is not None
    assert other.gain == pytest.approx(scale * found.gain, rel=1e-4)
    assert other.read_noise == pytest.approx(scale * found.read_noise, rel=1e-4)
    assert other.offset == pytest.approx(scale * found.offset + shift, rel=1e-6, abs=1e-4 * scale)


def test_cells_without_a_value_are_left_out():
    cells = cells_of(exposed(ramp((8, 64, 64), 0, 200), 2.2, 100, 1.6))
    means, variances = cells.mean.ravel(), cells.noise.ravel()
    holes = np.array([np.nan, 5, np.inf, 7]), np.array([1, np.nan, 1, np.inf])
    found = fit_noise(means, variances, cells.freedom)
    holed = fit_noise(
        np.concatenate([means, holes[0]]), np.concatenate([variances, holes[1]]), cells.freedom
    )
    assert holed == found


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_cells_give_no_model(count):
    assert fit_noise(np.ones(count), np.ones(count), 10) is None
    assert fit_noise(np.full(20, np.nan), np.ones(20), 10) is None


def test_below_the_offset_there_is_the_read_noise_alone():
    noise = NoiseModel(gain=2, offset=100, read_noise=3)
    assert noise.variance(np.array([0.0, 100, 101, 200])).tolist() == [9, 9, 11, 209]
    assert noise.read_noise_electrons == 1.5


def test_noise_in_normalised_units_is_that_of_normalised_values():
    noise = NoiseModel(gain=2.0, offset=100.0, read_noise=3.0)
    values = np.array([0.0, 100, 101, 200, 5000])
    normalised = noise.normalised(150.0, 40.0)
    np.testing.assert_allclose(
        normalised.variance((values - 150) / 40), noise.variance(values) / 40**2, rtol=1e-12
    )


def beads(shape, peak, width, share=2e-4, seed=0) -> np.ndarray:
    """Sparse blobs of ``width`` voxels, the brightest ``peak``."""
    points = (np.random.default_rng(seed).random(shape) < share).astype("f4")
    blurred = gaussian_filter(points, width)
    return blurred * (peak / blurred.max())


@pytest.mark.parametrize("power", [2, 3])
def test_variance_that_grows_as_structure_does_is_noticed(power):
    means = np.linspace(0, 1000, 512)
    line = fit_noise(means, 25 + 0.3 * means, 100.0)
    other = fit_noise(means, 25 + 300 * (means / 1000) ** power, 100.0)
    assert line is not None
    assert other is not None
    assert line.misfit < 0.1
    assert line.trusted
    assert other.misfit > 0.2
    assert not other.trusted


@pytest.mark.parametrize("peak", [300, 3_000])
def test_sparse_structure_is_not_taken_for_much_of_a_gain(peak):
    """Noise that does not grow with the signal, under blobs hardly larger than the mask."""
    values = 100 + beads((64, 64, 64), peak, 2)
    values += 5 * np.random.default_rng(1).standard_normal(values.shape)
    found = fitted(values.astype("f4"))
    assert found.gain * peak < 5 * 25


def test_a_camera_is_trusted():
    electrons = 20 + beads((64, 64, 64), 400, 4, share=2e-3)
    assert fitted(exposed(electrons, 2.2, 100, 1.6)).trusted
    assert fitted(simulate_light_sheet((32, 192, 192)).noisy).trusted
    assert fitted(exposed(np.full((32, 64, 64), 20.0), 0.5, 100, 3)).trusted
