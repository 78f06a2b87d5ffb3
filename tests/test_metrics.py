import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from n2v_scale.errors import ConfigError, InputError
from n2v_scale.metrics import (
    ErrorSums,
    SsimSums,
    _GaussianErrors,
    best_gaussian,
    error_sums,
    psnr,
    si_psnr,
    ssim,
)
from n2v_scale.simulate import simulate_light_sheet


def pair(shape, seed=0, offset=100.0):
    rng = np.random.default_rng(seed)
    reference = offset + 50 * rng.random(shape)
    return reference + rng.normal(0, 5, shape), reference


def assert_same_sums(a, b):
    assert a.n == b.n
    np.testing.assert_allclose(astuple(a), astuple(b), rtol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 500), max_size=8),
    seed=st.integers(0, 2**32 - 1),
    offset=st.sampled_from([0.0, 100.0, 3e4]),
)
def test_any_partition_gives_the_sums_of_the_whole(cuts, seed, offset):
    estimate, reference = pair(500, seed, offset)
    parts = zip(np.split(estimate, sorted(cuts)), np.split(reference, sorted(cuts)), strict=True)
    merged = sum((ErrorSums.of(e, r) for e, r in parts), ErrorSums())
    whole = ErrorSums.of(estimate, reference)
    assert_same_sums(merged, whole)
    assert merged.psnr(50) == pytest.approx(whole.psnr(50), rel=1e-10)
    assert merged.si_psnr(50) == pytest.approx(whole.si_psnr(50), rel=1e-10)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(5)))
def test_the_order_of_blocks_does_not_matter(order):
    parts = [ErrorSums.of(*pair(40 + 7 * i, i)) for i in range(5)]
    assert_same_sums(sum(parts, ErrorSums()), sum((parts[i] for i in order), ErrorSums()))


def test_sums_keep_their_digits_on_a_large_offset():
    estimate, reference = pair((8, 64, 64))
    near, far = (ErrorSums.of(estimate + o, reference + o) for o in (0.0, 1e6))
    assert far.si_psnr(50) == pytest.approx(near.si_psnr(50), rel=1e-7)


def test_empty_sums_change_nothing():
    sums = ErrorSums.of(*pair(30))
    assert ErrorSums() + sums == sums
    assert sums + ErrorSums() == sums
    assert ErrorSums.of(np.empty((0, 4)), np.empty((0, 4))) == ErrorSums()
    with pytest.raises(InputError, match="no voxels"):
        _ = ErrorSums().mse


@pytest.mark.parametrize("shape", [(64,), (16, 20), (4, 16, 20), (2, 3, 8, 9)])
def test_psnr_is_that_of_skimage(shape):
    estimate, reference = pair(shape)
    expected = peak_signal_noise_ratio(reference, estimate, data_range=50)
    assert psnr(estimate, reference, 50) == pytest.approx(expected, rel=1e-12)


def test_integers_do_not_wrap_around():
    estimate, reference = np.array([[1, 5]], np.uint16), np.array([[3, 2]], np.uint16)
    assert error_sums(estimate, reference).mse == pytest.approx((4 + 9) / 2)


@settings(max_examples=60, deadline=None)
@given(
    gain=st.floats(0.01, 100).flatmap(lambda g: st.sampled_from([g, -g])),
    shift=st.floats(-1e4, 1e4),
)
def test_si_psnr_ignores_gain_and_offset(gain, shift):
    estimate, reference = pair((4, 12, 12))
    expected = si_psnr(estimate, reference, 50)
    assert si_psnr(gain * estimate + shift, reference, 50) == pytest.approx(expected, abs=1e-6)


def test_si_psnr_is_the_psnr_of_the_least_squares_fit():
    estimate, reference = pair((4, 12, 12))
    a, b = np.polyfit(estimate.ravel(), reference.ravel(), 1)
    fitted = psnr(a * estimate + b, reference, 50)
    assert si_psnr(estimate, reference, 50) == pytest.approx(fitted, rel=1e-9)
    assert fitted >= psnr(estimate, reference, 50)


def test_si_psnr_of_a_constant_is_that_of_the_mean():
    _, reference = pair((4, 12, 12))
    mean = np.full_like(reference, reference.mean())
    expected = psnr(mean, reference, 50)
    assert si_psnr(np.zeros_like(reference), reference, 50) == pytest.approx(expected)


def test_equal_images_are_perfect():
    _, reference = pair((3, 16, 16))
    assert psnr(reference, reference, 50) == math.inf
    assert si_psnr(reference, reference, 50) == math.inf
    assert si_psnr(3 * reference - 7, reference, 50) == math.inf
    assert ssim(reference, reference, 50) == pytest.approx(1)


def test_ssim_is_that_of_skimage_plane_by_plane():
    estimate, reference = pair((2, 3, 20, 24))
    planes = [
        structural_similarity(
            r, e, data_range=50, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for e, r in zip(estimate.reshape(-1, 20, 24), reference.reshape(-1, 20, 24), strict=True)
    ]
    assert ssim(estimate, reference, 50) == pytest.approx(np.mean(planes), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 6), max_size=3))
def test_ssim_of_any_sets_of_planes_is_that_of_the_whole(cuts):
    estimate, reference = pair((6, 12, 13))
    parts = zip(np.split(estimate, sorted(cuts)), np.split(reference, sorted(cuts)), strict=True)
    merged = sum((SsimSums.of(e, r, 50) for e, r in parts), SsimSums())
    assert merged.planes == 6
    assert merged.ssim == pytest.approx(ssim(estimate, reference, 50), rel=1e-10)


def test_ssim_takes_planes_of_its_window_and_refuses_smaller_ones():
    assert ssim(*pair((11, 11)), 50) < 1
    with pytest.raises(InputError, match="at least 11"):
        ssim(*pair((4, 10, 30)), 50)
    with pytest.raises(InputError, match="no planes"):
        _ = SsimSums().ssim


@pytest.mark.parametrize("measure", [psnr, si_psnr, ssim, best_gaussian])
def test_shapes_that_differ_are_refused(measure):
    with pytest.raises(InputError, match=r"\(2, 12, 12\).*\(2, 12, 13\)"):
        measure(np.zeros((2, 12, 12)), np.zeros((2, 12, 13)), 1)


@pytest.mark.parametrize("data_range", [0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("measure", [psnr, si_psnr, ssim, best_gaussian])
def test_a_range_that_is_none_is_refused(measure, data_range):
    with pytest.raises(ConfigError, match="data_range"):
        measure(*pair((2, 12, 12)), data_range)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("measure", [psnr, si_psnr, ssim, best_gaussian])
def test_nan_and_infinity_are_refused(measure, value):
    estimate, reference = pair((2, 12, 12))
    estimate[1, 5, 5] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        measure(estimate, reference, 50)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 14), st.integers(1, 14)),
    lateral=st.floats(0, 4),
    axial=st.floats(0, 3),
)
def test_the_error_of_a_gaussian_is_known_without_filtering(shape, lateral, axial):
    noisy, clean = pair(shape)
    smooth = ndimage.gaussian_filter(noisy, (axial, lateral, lateral))
    expected = ((smooth - clean) ** 2).sum()
    found = _GaussianErrors(noisy, clean).along_z(lateral, np.array([axial]))[0]
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.fixture(scope="module")
def volume():
    return simulate_light_sheet((16, 64, 64))


def test_no_gaussian_of_a_fine_grid_beats_the_best_one(volume):
    noisy, clean, data_range = volume.noisy, volume.clean, volume.data_range
    sigma, best = best_gaussian(noisy, clean, data_range)
    smooth = ndimage.gaussian_filter(noisy, sigma, output=np.float32)
    assert best == pytest.approx(psnr(smooth, clean, data_range), rel=1e-6)
    assert best > 5 + psnr(noisy, clean, data_range)
    for lateral in np.arange(0.4, 2, 0.2):
        for axial in np.arange(0, 1.2, 0.2):
            other = ndimage.gaussian_filter(noisy, (axial, lateral, lateral), output=np.float32)
            assert psnr(other, clean, data_range) < best + 1e-3


def test_without_noise_the_best_gaussian_does_nothing(volume):
    sigma, best = best_gaussian(volume.clean, volume.clean, volume.data_range)
    assert max(sigma) < 0.2  # a kernel that still rounds to a single voxel
    assert best > 100


def test_best_gaussian_takes_one_sigma_and_odd_volumes(volume):
    sigma, _ = best_gaussian(volume.noisy[:1, :7], volume.clean[:1, :7], 50, sigmas=[1.0])
    assert len(sigma) == 3
    assert sigma[1] == sigma[2] > 0


def test_best_gaussian_searches_the_middle_of_a_large_volume():
    noisy, clean = pair((1, 20, 300))
    clean[:] = 100
    sigma, best = best_gaussian(noisy, clean, 50)
    assert sigma[1] > 3
    assert best > psnr(noisy, clean, 50)


@pytest.mark.parametrize("sigmas", [(), (-1.0,), (math.nan,)])
def test_sigmas_that_are_none_are_refused(sigmas):
    with pytest.raises(ConfigError, match="sigmas"):
        best_gaussian(*pair((2, 12, 12)), 50, sigmas=sigmas)


def test_best_gaussian_refuses_a_plane():
    with pytest.raises(InputError, match=r"\(12, 12\)"):
        best_gaussian(*pair((12, 12)), 50)
