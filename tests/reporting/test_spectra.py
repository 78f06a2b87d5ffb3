"""White noise has a flat spectrum at its variance; a wave has its power at its frequency."""

from __future__ import annotations

import numpy as np
import pytest

from n2v_scale.reporting.spectra import noise_power, plane_power


@pytest.mark.parametrize("shape", [(256, 256), (200, 90)])
def test_white_noise_is_flat_at_its_variance(shape):
    rng = np.random.default_rng(0)
    found = plane_power([rng.normal(50, 3, shape) for _ in range(8)])
    assert np.nanmean(found.power) == pytest.approx(9, rel=0.03)
    coarse = np.nanmean(found.power.reshape(6, 8), axis=1)[1:]
    assert coarse == pytest.approx(np.full(5, 9), rel=0.1)


@pytest.mark.parametrize("frequency", [0.1, 0.3, 0.45])
def test_a_wave_is_found_where_it_is(frequency):
    x = np.arange(256)
    found = plane_power([np.tile(np.cos(2 * np.pi * frequency * x), (256, 1))])
    assert found.frequency[np.nanargmax(found.power)] == pytest.approx(frequency, abs=1 / 96)


def test_holes_take_the_mean_and_planes_of_holes_are_left_out():
    values = np.random.default_rng(0).normal(50, 3, (256, 256))
    values[:8, :8] = np.nan
    assert np.nanmean(plane_power([values]).power) == pytest.approx(9, rel=0.05)
    values[:64] = np.nan
    assert plane_power([values]) is None
    assert plane_power([np.ones((8, 200))]) is None


def test_noise_that_varies_over_a_plane_is_expected_as_it_is_seen():
    rng = np.random.default_rng(0)
    variance = np.tile(np.linspace(1, 30, 256) ** 1.5, (256, 1))
    variance[:, 128:] = variance[:, 127::-1]
    seen = plane_power([np.sqrt(variance) * rng.standard_normal(variance.shape) for _ in range(8)])
    assert noise_power([variance]) == pytest.approx(np.nanmean(seen.power), rel=0.03)
    assert noise_power([variance]) > 1.2 * variance.mean()
    assert noise_power([np.full((64, 64), np.nan)]) is None
