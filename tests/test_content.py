"""Cells: the same as numpy on every cell, and a content between noise and structure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve

from n2v_scale.content import CELL, cells_of
from n2v_scale.noise import NoiseModel

MASK = np.outer([1, -2, 1], [1, -2, 1])


def noise(shape, std=5.0, level=100.0, seed=0) -> np.ndarray:
    return level + std * np.random.default_rng(seed).standard_normal(shape)


def pieces(values, size):
    """Every whole cell, by index, cut by hand."""
    counts = [n // s for n, s in zip(values.shape, size, strict=True)]
    for index in np.ndindex(*counts):
        yield (
            index,
            values[tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, size, strict=True))],
        )


@given(st.tuples(*[st.integers(1, 21)] * 3), st.integers(0, 9))
@settings(deadline=None, max_examples=40)
def test_cells_equal_numpy_cell_by_cell(shape, seed):
    values = noise(shape, seed=seed)
    cells = cells_of(values)
    assert cells.size == tuple(min(CELL, n) for n in shape)
    counts = tuple(n // s for n, s in zip(shape, cells.size, strict=True))
    assert cells.mean.shape == cells.variance.shape == cells.noise.shape == counts
    for index, piece in pieces(values, cells.size):
        assert cells.mean[index] == pytest.approx(piece.mean(), rel=1e-5)
        assert cells.variance[index] == pytest.approx(piece.var(), rel=1e-3, abs=1e-3)
        inner = [convolve(plane, MASK)[1:-1, 1:-1] for plane in piece]
        if min(cells.size[1:]) >= 3:
            expected = np.mean(np.square(inner)) / np.sum(MASK**2)
            assert cells.noise[index] == pytest.approx(expected, rel=1e-3)
        else:
            assert np.isnan(cells.noise[index])


@pytest.mark.parametrize("shape", [(64, 64, 64), (1, 256, 256), (2, 128, 256), (256, 4, 64)])
def test_the_noise_of_white_noise_is_its_variance_and_scatters_as_announced(shape):
    cells = cells_of(noise(shape, 5.0))
    assert cells.noise.mean() == pytest.approx(25, rel=0.03)
    # Of a variance with so many degrees of freedom.
    assert cells.noise.std() == pytest.approx(25 * np.sqrt(2 / cells.freedom), rel=0.2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_gradient_is_no_noise(axis):
    values = np.moveaxis(np.broadcast_to(np.arange(32.0) * 50, (32, 32, 32)), 2, axis)
    cells = cells_of(values)
    assert np.abs(cells.noise).max() < 1e-3
    assert cells.variance.min() > 1000


def test_variances_keep_their_digits_on_a_large_offset():
    values = noise((16, 32, 32), 5.0, level=1e6)
    cells = cells_of(values)
    assert cells.variance.mean() == pytest.approx(25, rel=0.05)
    assert cells.mean.mean() == pytest.approx(1e6, rel=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "f4", "f8"])
def test_every_type_of_voxel_is_understood(dtype):
    values = noise((16, 16, 16), 5.0, 60).round().astype(dtype)
    expected = cells_of(values.astype("f8"))
    found = cells_of(values)
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.noise, expected.noise)


@pytest.mark.parametrize("shape", [(32, 64, 64), (1, 128, 128), (2, 128, 128)])
def test_noise_alone_has_hardly_any_content(shape):
    content = cells_of(noise(shape)).content(NoiseModel(0, 0, 5))
    assert content.mean() < 0.1
    assert content.min() == 0


@pytest.mark.parametrize("shape", [(32, 64, 64), (1, 128, 128), (2, 128, 128)])
def test_strong_structure_is_nearly_all_content(shape):
    structure = 200 * np.sin(np.indices(shape).sum(axis=0) / 2)
    content = cells_of(structure + noise(shape)).content(NoiseModel(0, 0, 5))
    assert content.min() > 0.98
    assert content.max() <= 1


def test_content_is_the_share_of_the_variance_that_is_signal():
    # Half of the variance: 5² from the noise, 5² from blocks of two voxels.
    rng = np.random.default_rng(1)
    signal = rng.choice([-5.0, 5.0], (16, 32, 32)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    content = cells_of(signal + noise(signal.shape)).content(NoiseModel(0, 0, 5))
    assert content.mean() == pytest.approx(0.5, abs=0.05)


def test_brighter_cells_are_allowed_more_noise():
    rng = np.random.default_rng(0)
    electrons = np.broadcast_to(np.linspace(1, 400, 128), (16, 64, 128))
    steps = electrons.reshape(16, 64, 16, 8).mean(axis=3).repeat(8, axis=2)
    values = 100 + 2.0 * rng.poisson(steps)
    assert cells_of(values).content(NoiseModel(2.0, 100, 0)).mean() < 0.1
    assert cells_of(values).content(NoiseModel(0, 100, 2)).mean() > 0.8


def test_without_a_noise_model_all_that_varies_is_content():
    assert cells_of(noise((8, 8, 24))).content(None).tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize("level", [0, 7, 1000])
@pytest.mark.parametrize("bright", [300, 5000, 60000])
def test_a_constant_cell_beside_bright_ones_has_no_variance_and_no_content(level, bright):
    values = np.random.default_rng(0).poisson(bright, (32, 32, 64)).astype("u2")
    values[:, :, :32] = level
    cells = cells_of(values)
    assert (cells.variance[:, :, :4] == 0).all()
    for model in (None, NoiseModel(1, 0, 0), NoiseModel(0, 0, 5)):
        assert (cells.content(model)[:, :, :4] == 0).all()


def test_scattered_nan_leave_the_cells_what_the_rest_of_them_says():
    values = noise((32, 64, 64), 5.0, level=100.0)
    holed = values.copy()
    holed[np.random.default_rng(1).random(values.shape) < 0.02] = np.nan
    whole, cells = cells_of(values), cells_of(holed)
    np.testing.assert_allclose(cells.mean, whole.mean, atol=1)
    np.testing.assert_allclose(cells.variance, whole.variance, rtol=0.3)
    assert cells.noise.mean() == pytest.approx(25, rel=0.05)


def test_a_cell_that_is_mostly_nan_is_unknown_and_has_no_content():
    values = noise((8, 16, 24))
    values[3:, 8:16, 16:] = np.nan
    cells = cells_of(values)
    unknown = np.isnan(cells.mean)
    assert np.argwhere(unknown).tolist() == [[0, 1, 2]]
    np.testing.assert_array_equal(np.isnan(cells.variance), unknown)
    np.testing.assert_array_equal(np.isnan(cells.noise), unknown)
    assert cells.content(None)[0, 1, 2] == 0
    whole = cells_of(np.nan_to_num(values, nan=100.0))
    np.testing.assert_allclose(cells.mean[~unknown], whole.mean[~unknown], rtol=1e-6)
    np.testing.assert_allclose(cells.variance[~unknown], whole.variance[~unknown], rtol=1e-3)


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_a_missing_voxel_costs_the_other_cells_no_digits(missing):
    values = noise((16, 32, 32), 5.0, level=1e5).astype("f4")
    whole = cells_of(values)
    values[3, 9, 17] = missing
    found = cells_of(values).variance
    there = np.isfinite(found)
    np.testing.assert_allclose(found[there], whole.variance[there], rtol=0.01)


def test_a_cell_with_infinity_has_no_content():
    values = noise((8, 8, 16))
    values[0, 0, 0] = np.inf
    content = cells_of(values).content(NoiseModel(0, 0, 5))
    assert content[0, 0, 0] == 0
    assert np.isfinite(content).all()


def test_a_box_full_of_nan_has_no_content():
    cells = cells_of(np.full((8, 8, 8), np.nan, "f4"))
    assert cells.content(None).tolist() == [[[0]]]


def test_the_values_are_left_alone():
    values = noise((8, 8, 8)).astype("f4")
    before = values.copy()
    cells_of(values)
    np.testing.assert_array_equal(values, before)
