"""The posterior: Bayes' mean, no voxel twice, and the true error as its standard deviation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.stats import truncnorm

from n2v_scale.line_sums import line_sum
from n2v_scale.methods.base import TensorEstimate
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.model import HIDING_COPIES, POSTERIOR_COPIES, STD_COPIES
from n2v_scale.nets.memory import LiveBytes
from n2v_scale.noise import NoiseModel
from n2v_scale.posterior import (
    error_of,
    excess_variance,
    likely_variance,
    scaled_by_residuals,
    signal_noise,
    weight_of,
    with_own_value,
)

CAMERA = NoiseModel(gain=0.5, offset=-1.0, read_noise=0.2)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed)).double()


@given(y=st.floats(-5, 5), m=st.floats(-5, 5), s=st.floats(0.51, 5), read=st.floats(0.01, 5))
def test_the_mean_and_the_spread_are_those_of_bayes(y, m, s, read):
    """Against the product of the two densities, on a grid."""
    prior, noise = (torch.tensor(v, dtype=torch.float64) for v in (s**2, read**2))
    weight = weight_of(prior, noise)
    width = 8 * min(s, read)
    middle = (m / s**2 + y / read**2) / (1 / s**2 + 1 / read**2)
    x = np.linspace(middle - width, middle + width, 4001)
    logs = -((x - m) ** 2) / (2 * s**2) - (x - y) ** 2 / (2 * read**2)
    density = np.exp(logs - logs.max())
    mean = (density * x).sum() / density.sum()
    spread = np.sqrt((density * (x - mean) ** 2).sum() / density.sum())
    assert m + weight.item() * (y - m) == pytest.approx(mean, rel=1e-4, abs=1e-4)
    assert error_of(weight, prior, noise).item() == pytest.approx(spread, rel=1e-3)


def test_the_noise_is_that_of_the_predicted_signal():
    mean = torch.tensor([-3.0, -1.0, 0.0, 4.0]).reshape(1, 1, 1, 1, 4)
    expected = [0.04, 0.04, 0.54, 2.54]
    assert signal_noise(mean, CAMERA).flatten().tolist() == pytest.approx(expected)


def test_what_residuals_vary_by_beyond_the_noise_is_the_error_of_the_prediction():
    """In the middle of a volume whose prediction errs by 0.7 everywhere."""
    predicted = torch.zeros(1, 1, 40, 40, 40).double()
    noisy = random(40, 40, 40, seed=1) * (0.7**2 + 0.3**2) ** 0.5
    found = excess_variance(noisy, predicted, torch.full_like(noisy, 0.3**2))
    assert found.mean().item() == pytest.approx(0.7**2, rel=0.03)


def test_residuals_that_vary_less_than_the_noise_by_chance_still_allow_an_error():
    """Against the error of a weighted mean of squares, and a normal distribution cut off at 0."""
    noise = torch.ones(1, 1, 36, 36, 36).double()
    seen = excess_variance(random(36, 36, 36), torch.zeros_like(noise), noise)[0, 0].numpy()
    line = np.exp(-0.5 * (np.arange(-5, 6) / 2) ** 2)
    weights = np.delete(np.einsum("i,j,k->ijk", line, line, line).ravel(), 665)
    error = np.sqrt(2 * np.square(weights).sum()) / weights.sum()
    inner = (slice(6, -6),) * 3
    assert seen[inner].std() == pytest.approx(error, rel=0.1)
    middle = (0, 0, 18, 18, 18)
    for value in (-2.0 * error, 0.0, 0.5 * error, 40.0 * error):
        likely = likely_variance(torch.full_like(noise, value), noise)[middle].item()
        spread = error * (1 + max(0.0, value))
        expected = truncnorm.mean(-value / spread, np.inf, loc=value, scale=spread)
        assert likely == pytest.approx(expected, rel=1e-3)


def test_without_its_spread_the_mean_is_the_same():
    noisy, blind = random(9, 10, 11), TensorEstimate(random(9, 10, 11, seed=1))
    found = with_own_value(noisy, blind, CAMERA, std=False)
    assert found.std is None
    assert torch.equal(found.mean, with_own_value(noisy, blind, CAMERA).mean)


def test_a_voxel_is_not_its_own_evidence():
    noisy, predicted = random(12, 12, 12), random(12, 12, 12, seed=1) * 0.1
    variance = torch.full_like(noisy, 0.25)
    before = excess_variance(noisy, predicted, variance)
    noisy[0, 0, 6, 6, 6] = 50.0
    after = excess_variance(noisy, predicted, variance)
    torch.testing.assert_close(after[0, 0, 6, 6, 6], before[0, 0, 6, 6, 6], rtol=0, atol=1e-9)
    assert after[0, 0, 6, 6, 7] > before[0, 0, 6, 6, 7] + 1


def test_what_lies_past_the_end_says_nothing():
    noisy, predicted = random(9, 10, 11), random(9, 10, 11, seed=1)
    alone = with_own_value(noisy, TensorEstimate(predicted), CAMERA)
    there = torch.zeros(1, 1, 14, 16, 15).double()
    wide, wide_predicted = random(14, 16, 15, seed=2) * 100, random(14, 16, 15, seed=3)
    here = (..., slice(2, 11), slice(0, 10), slice(4, 15))
    there[here], wide[here], wide_predicted[here] = 1, noisy, predicted
    padded = with_own_value(wide, TensorEstimate(wide_predicted), CAMERA, there)
    torch.testing.assert_close(padded.mean[here], alone.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.std[here], alone.std, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 7), (2, 1, 30)])
def test_volumes_that_are_thin_have_a_posterior_too(shape):
    found = with_own_value(random(*shape), TensorEstimate(random(*shape, seed=1)), CAMERA)
    assert torch.isfinite(found.mean).all()
    assert torch.isfinite(found.std).all()


def test_between_the_prediction_and_the_voxel_and_nearer_to_what_is_sure():
    rng = np.random.default_rng(0)
    truth = gaussian_filter(rng.normal(size=(24, 48, 48)), 1.5) * 12
    noisy = torch.from_numpy(truth + rng.normal(0, 0.5, truth.shape))[None, None]
    smooth = torch.from_numpy(gaussian_filter(noisy[0, 0].numpy(), 1.2))[None, None]
    found = with_own_value(noisy, TensorEstimate(smooth), NoiseModel(0.0, 0.0, 0.5))
    low, high = torch.minimum(noisy, smooth), torch.maximum(noisy, smooth)
    assert ((found.mean >= low - 1e-9) & (found.mean <= high + 1e-9)).all()


def test_where_residuals_show_nothing_the_spread_is_that_of_a_mean_of_many():
    """Residuals that happen to be small do not make a prediction certain."""
    predicted = torch.zeros(1, 1, 12, 12, 12).double()
    found = with_own_value(predicted + 0.01, TensorEstimate(predicted), NoiseModel(0.0, 0.0, 1.0))
    assert found.std.min().item() == pytest.approx(0.145, rel=0.02)
    assert found.mean.max().item() < 2e-4


def test_a_network_says_where_it_errs_and_the_residuals_how_much():
    """It claims a tenth of the error, and half of the voxels to be ten times as sure."""
    rng = torch.Generator().manual_seed(0)
    sure = torch.rand(1, 1, 32, 32, 32, generator=rng).double() < 0.5
    spread = torch.where(sure, 0.3, 0.3 * 10**0.5).double()
    predicted = torch.zeros_like(spread)
    noisy = random(32, 32, 32, seed=1) * spread + random(32, 32, 32, seed=2) * 0.5
    found = with_own_value(
        noisy, TensorEstimate(predicted, spread * 0.1**0.5), NoiseModel(0.0, 0.0, 0.5)
    )
    noise = torch.full_like(noisy, 0.25)
    expected = error_of(weight_of(spread**2, noise), spread**2, noise)
    inner = (..., *(slice(6, -6),) * 3)
    torch.testing.assert_close(found.std[inner], expected[inner], rtol=0.35, atol=0)


def test_residuals_that_are_mostly_noise_hardly_change_what_a_network_says():
    """A prediction that errs by a seventh of the noise: alone, they would often show no error."""
    said = torch.full((1, 1, 32, 32, 32), 0.02).double()
    noise = torch.ones_like(said)
    predicted = torch.zeros_like(said)
    noisy = random(32, 32, 32, seed=1) * 0.02**0.5 + random(32, 32, 32, seed=2)
    found = scaled_by_residuals(said, noisy, predicted, noise)
    alone = excess_variance(noisy, predicted, noise).clamp_min(0)
    inner = (..., *(slice(6, -6),) * 3)  # at the faces there are fewer neighbours to tell
    assert (alone[inner] == 0).double().mean() > 0.3
    assert (found[inner] == 0).double().mean() < 0.02
    assert (found - said)[inner].std() < 0.3 * (alone - said)[inner].std()


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("says", [False, True])
def test_it_takes_no_more_copies_than_the_forecast_counts(says, wanted):
    shape = (1, 1, 32, 32, 32)
    with LiveBytes() as live:
        noisy, mean, std = torch.randn(shape), torch.randn(shape), torch.rand(shape)
        blind = TensorEstimate(mean, std if says else None)
        with_own_value(noisy, blind, CAMERA, torch.ones_like(noisy), std=wanted)
    copies = POSTERIOR_COPIES + (STD_COPIES if wanted else 0)
    assert live.peak <= copies * 4 * 32**3


def test_hidden_subsets_take_no_more_copies_than_the_forecast_counts():
    with LiveBytes() as live:
        x = torch.randn(1, 1, 32, 32, 32)

        def network(tile, crop, inside):
            return tile[..., 8:-8, 8:-8, 8:-8].clone()

        Noise2Self((2, 2, 2)).infer(network, x, ((8, 8),) * 3, None)
    assert live.peak <= (HIDING_COPIES + 1) * 4 * 32**3 + 2 * 4 * 16**3


@given(
    length=st.integers(1, 9),
    reach=st.integers(0, 5),
    seed=st.integers(0, 99),
    axis=st.sampled_from([2, 3, 4]),
)
def test_a_sum_along_a_line_is_scipys(length, reach, seed, axis):
    rng = np.random.default_rng(seed)
    shape = [1, 1, 2, 3, 4]
    shape[axis] = length
    values, weights = rng.normal(size=shape), rng.normal(size=2 * reach + 1)
    found = line_sum(torch.from_numpy(values), axis, weights.tolist()).numpy()
    expected = correlate1d(values, weights, axis, mode="constant")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
