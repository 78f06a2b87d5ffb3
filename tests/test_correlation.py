"""The correlation of noise, told apart from the signal's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d, gaussian_filter

from n2v_scale.correlation import (
    LAGS,
    AxisCorrelation,
    axis_correlation,
    corrected,
    line_cells,
)
from n2v_scale.noise import NoiseModel

SHAPE = (40, 96, 96)
OTHERS = {0: (1, 2), 1: (0, 2), 2: (0, 1)}


def white(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def structure(shape=SHAPE, seed=1):
    """Blobs everywhere, of very different brightness, as sharp as optics let them be."""
    rough = gaussian_filter(white(shape, seed), 2.0)
    sharp = 200 * (rough > 0) * (1 + np.tanh(rough / rough.std())) + 50
    return gaussian_filter(sharp, 1.2)


def along(values, axis, across=None):
    cells = line_cells(values, axis, OTHERS[axis] if across is None else across)
    return axis_correlation("zyx"[axis], [cells])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_white_noise_has_none(axis):
    found = along(white(), axis)
    assert len(found.lags) == LAGS
    assert max(map(abs, found.lags)) < 0.03
    assert not found.strong
    assert found.reach == 0
    assert sum(abs(r) <= e for r, e in zip(found.lags, found.errors, strict=True)) >= LAGS - 2


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("level", [1.0, 20.0])
def test_white_noise_on_strong_structure_raises_no_alarm(axis, level):
    shot = np.random.default_rng(0).poisson(structure() / level) * level
    found = along(shot, axis)
    assert not found.strong
    assert abs(found.strongest) < 0.06


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kernel", [(0.5, 1.0, 0.5), (1.0, 1.0), (1.0, 0.0, -0.6)])
def test_known_correlation_is_found_along_its_axis_alone(axis, kernel):
    power = np.correlate(kernel, kernel, "full")[len(kernel) - 1 :]
    expected = [*(power[1:] / power[0]), *[0.0] * LAGS][:LAGS]
    values = convolve1d(white(), kernel, axis=axis)
    assert along(values, axis).lags == pytest.approx(expected, abs=0.06)
    for other in OTHERS[axis]:
        assert abs(along(values, other).strongest) < 0.05


def test_it_is_found_under_structure_too():
    noise = convolve1d(white(), (0.5, 1.0, 0.5), axis=2) * 12
    found = along(structure() + noise, 2)
    assert found.lags[:2] == pytest.approx([2 / 3, 1 / 6], abs=0.07)
    assert found.strong
    assert found.reach == 2
    assert not along(structure() + noise, 1).strong


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_lines_are_a_pattern(share):
    rows = white((*SHAPE[:2], 1), 3)
    values = np.sqrt(1 - share) * white() + np.sqrt(share) * rows
    found = along(values, 2)
    assert found.lags == pytest.approx([share] * LAGS, abs=0.08)
    assert found.pattern == pytest.approx(share, abs=0.08)
    assert found.strong
    assert found.reach == LAGS
    assert along(values, 1).pattern < 0.05


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 1e4), st.floats(-1e4, 1e4))
def test_units_do_not_matter(scale, offset):
    values = convolve1d(white((16, 32, 32)), (1.0, 1.0), axis=2)
    expected = along(values, 2).lags
    assert along(values * scale + offset * scale, 2).lags == pytest.approx(expected, abs=0.02)


def test_nan_and_constant_cells_are_left_out():
    values = convolve1d(white(), (1.0, 1.0), axis=2)
    expected = along(values, 2).lags
    values[:12, :40, :40] = np.nan
    values[20:, 60:, :30] = 7.0
    values[3, 90, 90] = np.inf
    assert along(values, 2).lags == pytest.approx(expected, abs=0.04)
    assert along(np.full(SHAPE, 5.0), 2).lags == ()
    assert along(np.full(SHAPE, np.nan), 2).lags == ()


@pytest.mark.parametrize(("size", "lags"), [(2, 1), (6, 3), (13, 6), (16, 8), (60, 8)])
def test_a_short_axis_shows_fewer_lags(size, lags):
    found = along(white((size, 96, 96)), 0)
    assert len(found.lags) == len(found.errors) == lags


def test_a_single_plane_is_seen_in_the_plane():
    plane = convolve1d(white((1, 256, 256)), (1.0, 1.0), axis=2)
    assert along(plane, 2, (1,)).lags[0] == pytest.approx(0.5, abs=0.05)
    assert abs(along(plane, 1, (2,)).lags[0]) < 0.05


def test_too_few_cells_say_nothing():
    found = along(white((6, 10, 10)), 2)
    assert found == AxisCorrelation("x", (), ())
    assert (found.strongest, found.pattern, found.reach) == (0.0, 0.0, 0)
    assert not found.strong
    assert not found.sure
    assert found.mask_power == 1


def test_thin_boxes_at_a_face_do_not_shorten_the_others():
    whole, thin = line_cells(white(), 2, (0, 1)), line_cells(white((40, 96, 3)), 2, (0, 1))
    assert len(axis_correlation("x", [whole, thin]).lags) == LAGS
    assert axis_correlation("x", [whole, thin]) == axis_correlation("x", [whole])


def test_boxes_add_up():
    values = convolve1d(white(), (1.0, 1.0), axis=2)
    halves = [line_cells(part, 2, (0, 1)) for part in np.split(values, 2, axis=1)]
    together = axis_correlation("x", halves)
    assert together.lags == pytest.approx(along(values, 2).lags, abs=0.03)


@pytest.mark.parametrize(
    ("lags", "errors", "strong", "reach"),
    [
        ((0.3, 0.1, 0.0), (0.02, 0.02, 0.02), True, 2),
        ((0.3, 0.1, 0.0), (0.4, 0.2, 0.02), False, 0),
        ((0.1, 0.02, -0.07), (0.01, 0.01, 0.01), False, 3),
        ((-0.4, 0.0, 0.0), (0.01, 0.01, 0.01), True, 1),
    ],
)
def test_what_is_strong_and_how_far_it_reaches(lags, errors, strong, reach):
    found = AxisCorrelation("x", lags, errors)
    assert (found.strong, found.reach) == (strong, reach)


@pytest.mark.parametrize("kernels", [((1, 1), (1,)), ((0.5, 1, 0.5), (1, 1)), ((1,), (1,))])
def test_the_noise_model_is_corrected_for_it(kernels):
    """The variance of [1 -2 1] x [1 -2 1], over 36, is too small by a known factor."""
    noise = white()
    for axis, kernel in zip((2, 1), kernels, strict=True):
        noise = convolve1d(noise, np.asarray(kernel, float), axis=axis)
    rows = np.diff(noise, 2, axis=1)
    measured = float(np.square(np.diff(rows, 2, axis=2)).mean()) / 36
    axes = [along(noise, axis) for axis in range(3)]
    found = corrected(NoiseModel(2 * measured, 10.0, measured**0.5, 0.01), axes)
    assert found.read_noise == pytest.approx(noise.std(), rel=0.08)
    assert found.gain == pytest.approx(2 * noise.var(), rel=0.15)
    assert (found.offset, found.misfit) == (10.0, 0.01)


def test_a_weak_doubtful_correlation_corrects_nothing():
    doubtful = AxisCorrelation("x", (0.1, 0.0), (0.08, 0.01))
    along_z = AxisCorrelation("z", (0.5, 0.3), (0.01, 0.01))
    noise = NoiseModel(2.0, 100.0, 3.0)
    assert corrected(noise, [doubtful, along_z]) == noise
