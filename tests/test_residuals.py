"""Noise is white, and structure is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import convolve1d, gaussian_filter

from n2v_scale.residuals import LAGS, ResidualSums

SHAPE = (24, 64, 64)


def white(seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE)


def signal():
    rough = gaussian_filter(white(9), 3)
    return 100 + 20 * rough / rough.std()


def test_noise_that_was_taken_away_is_white():
    found = ResidualSums.of(signal() + white(), signal())
    assert set(found.correlation) == {"z", "y", "x"}
    for lags in found.correlation.values():
        assert len(lags) == LAGS
        assert max(map(abs, lags)) < 0.02
    assert abs(found.with_signal) < 0.02


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_correlated_noise_shows_along_its_axis(axis):
    noise = convolve1d(white(), [0.5, 1, 0.5], axis=axis)
    found = ResidualSums.of(signal() + noise, signal()).correlation
    assert found["zyx"[axis]][:2] == pytest.approx([2 / 3, 1 / 6], abs=0.05)
    assert abs(found["zyx"[axis - 1]][0]) < 0.05


def test_structure_that_was_taken_away_shows():
    smoothed = gaussian_filter(signal(), 4)
    found = ResidualSums.of(signal() + white(), smoothed)
    assert min(lags[0] for lags in found.correlation.values()) > 0.2
    assert found.with_signal > 0.05
    shrunk = ResidualSums.of(signal() + white(), 0.9 * signal())
    assert shrunk.with_signal > 0.5


def test_boxes_add_up_but_for_pairs_across_them():
    noisy, denoised = signal() + white(), signal()
    whole = ResidualSums.of(noisy, denoised)
    halves = [
        ResidualSums.of(a, b)
        for a, b in zip(np.split(noisy, 2, 1), np.split(denoised, 2, 1), strict=True)
    ]
    both = sum(halves, ResidualSums())
    assert both.with_signal == pytest.approx(whole.with_signal)
    assert both.correlation["x"] == pytest.approx(whole.correlation["x"])
    assert both.correlation["y"] == pytest.approx(whole.correlation["y"], abs=0.01)


def test_units_and_offset_of_the_residual():
    found = ResidualSums.of(7 * (signal() + white()) + 50, 7 * signal())
    assert max(map(abs, found.correlation["x"])) < 0.02


def test_empty_short_and_not_finite():
    assert ResidualSums().correlation == {"z": (), "y": (), "x": ()}
    assert ResidualSums().with_signal == 0
    plane = ResidualSums.of(white()[:1], np.zeros((1, *SHAPE[1:])))
    assert plane.correlation["z"] == ()
    assert len(plane.correlation["x"]) == LAGS
    assert plane.with_signal == 0
    noisy = white()
    noisy[3] = np.nan
    assert max(map(abs, ResidualSums.of(noisy, np.zeros(SHAPE)).correlation["x"])) < 0.1
