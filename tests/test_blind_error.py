"""The estimate of an error that nobody sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import convolve

from n2v_scale.blind_error import BlindError, box_error, estimate_of
from n2v_scale.noise import NoiseModel

CAMERA = NoiseModel(2.0, 100.0, 3.0)
SHAPE = (24, 48, 48)


def scene(seed=0, integer=False):
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    clean = 100 + 40 * (1 + np.sin(z / 6) * np.sin(y / 5) * np.sin(x / 7))
    noisy = 100 + 2 * rng.poisson((clean - 100) / 2) + 3 * rng.standard_normal(SHAPE)
    return clean, noisy.round().astype("u2") if integer else noisy


def blurred(values, own):
    kernel = np.ones((3, 3, 3)) / 26
    kernel[1, 1, 1] = 0
    return (1 - own) * convolve(values.astype("f8"), kernel, mode="wrap") + own * values


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("own", [0.0, 0.1, 0.4])
def test_it_is_the_true_error(seed, own):
    """A linear filter with its centre answers to a voxel's noise with the centre's weight."""
    clean, noisy = scene(seed)
    predicted = blurred(noisy, own)
    found = box_error(noisy, predicted, CAMERA, own * CAMERA.variance(clean))
    true = ((predicted - clean) ** 2).mean()
    assert found.mse == pytest.approx(true, abs=4 * math.sqrt(found.scatter / found.voxels))
    assert found.mse == pytest.approx(true, rel=0.25)
    assert found.noise == pytest.approx(CAMERA.variance(clean).mean(), rel=0.01)


def test_a_prediction_that_saw_the_voxel_seems_too_good_when_that_is_not_said():
    clean, noisy = scene()
    predicted = blurred(noisy, 0.4)
    found = box_error(noisy, predicted, CAMERA)
    assert found.mse < 0.5 * ((predicted - clean) ** 2).mean()


def test_rounding_adds_a_twelfth():
    _, noisy = scene(integer=True)
    plain = box_error(noisy, blurred(noisy, 0), CAMERA)
    rounded = box_error(noisy, blurred(noisy, 0), CAMERA, rounding=1 / 12)
    assert plain.mse - rounded.mse == pytest.approx(1 / 12)


def test_voxels_are_chosen_and_nan_left_out():
    _, noisy = scene()
    predicted = blurred(noisy, 0)
    where = np.zeros(SHAPE, bool)
    where[:12] = True
    expected = box_error(noisy[:12], predicted[:12], CAMERA)
    noisy[14:] = np.nan
    assert box_error(noisy, predicted, CAMERA, where=where) == expected
    noisy[:] = np.nan
    assert box_error(noisy, predicted, CAMERA) is None


@pytest.mark.parametrize("change", [0.01, -0.02])
def test_the_response_to_the_noise_model(change):
    clean, noisy = scene()
    predicted = blurred(noisy, 0.2)
    seen = 0.2 * CAMERA.variance(clean)
    found = box_error(noisy, predicted, CAMERA, seen)
    more = NoiseModel(2 * (1 + change), 100.0, 3 * math.sqrt(1 + change))
    changed = box_error(noisy, predicted, more, seen * (1 + change))
    assert changed.mse - found.mse == pytest.approx(change * found.response, rel=1e-6)


def boxes(*mse, scatter=0.0, response=-10.0):
    return [BlindError(1000, 20.0, 10.0, value, response, scatter) for value in mse]


def test_boxes_are_averaged_by_their_voxels():
    some = [
        BlindError(1000, 2.0, 1.0, 1.0, -1.0, 0.0),
        BlindError(3000, 6.0, 5.0, 2.0, -5.0, 0.0),
    ]
    found = estimate_of(some, unseen=0.0, noise_error=0.0)
    assert (found.mse, found.loss, found.noise, found.response) == (1.75, 5.0, 4.0, -4.0)
    assert (found.voxels, found.error) == (4000, 0.0)
    assert estimate_of([], unseen=0.0, noise_error=0.0) is None


def test_what_widens_the_interval():
    sure = estimate_of(boxes(1.0, 3.0), unseen=0.0, noise_error=0.0)
    assert sure.error == 0
    assert estimate_of(boxes(1.0, 3.0), unseen=0.5, noise_error=0).error > 1
    noise = estimate_of(boxes(1.0, 3.0), unseen=0.0, noise_error=0.02)
    assert noise.error == pytest.approx(0.2)
    chance = estimate_of(boxes(1.0, 3.0, scatter=100.0), unseen=0.0, noise_error=0.0)
    assert chance.error == pytest.approx(1.96 * math.sqrt(100 / 2000))
    assert estimate_of(boxes(2.0), unseen=1.0, noise_error=0.0).error > 2


def test_decibels():
    found = estimate_of(boxes(2.0), unseen=0.0, noise_error=0.1)
    best, low, high = found.psnr(100.0)
    assert best == pytest.approx(10 * math.log10(1e4 / 2))
    assert low == pytest.approx(10 * math.log10(1e4 / 3))
    assert high == pytest.approx(10 * math.log10(1e4 / 1))
    assert found.percent_of_noise == pytest.approx(10 * math.log10(1.05))
    unknown = estimate_of(boxes(0.5), unseen=0.0, noise_error=0.1)
    assert unknown.psnr(100.0)[2] == math.inf
    none = estimate_of(boxes(-0.5), unseen=0.0, noise_error=0.0)
    assert none.psnr(100.0)[0] == math.inf
    assert none.percent_of_noise == math.inf
