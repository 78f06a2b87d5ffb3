"""The blind filter: least squares, blind, exact for constants up to the faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from n2v_scale.errors import TrainingError
from n2v_scale.geometry import Box, as_shape
from n2v_scale.nets import linear
from n2v_scale.nets.linear import RIDGE, BlindFilter

KERNELS = [(3, 3, 3), (5, 3, 1), (1, 5, 5), (3, 1, 5)]


def random_filter(kernel, seed: int = 0) -> BlindFilter:
    """Every weight is drawn, the centre's too."""
    blind = BlindFilter(kernel).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        blind.weight.normal_(0, 1, generator=generator)
    return blind


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def correlated(*shape: int, seed: int = 0, rho: float = 0.8) -> np.ndarray:
    """An AR(1) field along each axis, of unit variance."""
    field = np.random.default_rng(seed).normal(size=shape)
    for axis in range(3):
        lines = np.moveaxis(field, axis, 0)
        for k in range(1, len(lines)):
            lines[k] = rho * lines[k - 1] + (1 - rho**2) ** 0.5 * lines[k]
    return field


def as_patch(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)[None, None]


@pytest.mark.parametrize("inside", [None, Box((0, 0, 0), (3, 3, 4)), Box((1, 1, 0), (3, 4, 3))])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_voxel_never_enters_its_own_prediction(kernel, inside):
    blind, shape = random_filter(kernel), (3, 4, 4)

    def flat(x: torch.Tensor) -> torch.Tensor:
        return blind(x.reshape(1, 1, *shape), inside).reshape(-1)

    jacobian = torch.autograd.functional.jacobian(flat, noise(*shape).reshape(-1))
    assert (jacobian.diagonal() == 0).all()
    # The test can fail: the voxels in the window around the middle do enter.
    middle = np.ravel_multi_index((1, 1, 1), shape)
    assert (jacobian[middle] != 0).sum() > 4


@pytest.mark.parametrize("kernel", KERNELS)
@given(st.tuples(*[st.integers(1, 6)] * 3), st.floats(-3, 3), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_a_constant_gets_one_answer_at_faces_and_corners_too(kernel, shape, value, seed):
    if all(n == 1 or k == 1 for n, k in zip(shape, kernel, strict=True)):
        return  # there is no neighbour at all
    blind = random_filter(kernel, seed)
    with torch.no_grad():
        weight = (blind.weight * blind.neighbours).sum()
        out = blind(torch.full((1, 1, *shape), value, dtype=torch.float64))
    torch.testing.assert_close(out, torch.full_like(out, float(value * weight)))


@given(
    st.sampled_from(KERNELS),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 3),
)
@settings(deadline=None, max_examples=40)
def test_inside_makes_a_padded_tile_answer_like_the_volume(kernel, shape, padding):
    blind, volume = random_filter(kernel), noise(1, 1, *shape)
    start = as_shape([low for low, _ in padding])
    inside = Box(start, as_shape([a + n for a, n in zip(start, shape, strict=True)]))
    padded = torch.zeros(
        1, 1, *(a + n + b for (a, b), n in zip(padding, shape, strict=True)), dtype=torch.float64
    )
    padded[(..., *inside.slices)] = volume
    with torch.no_grad():
        torch.testing.assert_close(blind(padded, inside)[(..., *inside.slices)], blind(volume))


def test_a_missing_neighbour_is_replaced_by_the_mean_of_the_others():
    blind = BlindFilter((1, 1, 3)).double()
    with torch.no_grad():
        blind.weight.copy_(torch.tensor([0.25, 9.0, 0.5]).reshape(1, 1, 1, 1, 3))
        out = blind(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).reshape(1, 1, 1, 1, 3))
    assert out.flatten().tolist() == [0.75 * 2, 0.25 * 1 + 0.5 * 4, 0.75 * 2]


def test_channels_and_samples_are_filtered_alone():
    blind, x = random_filter((3, 3, 3)), noise(2, 3, 4, 5, 6)
    with torch.no_grad():
        together = blind(x)
        for b in range(2):
            for c in range(3):
                alone = blind(x[b : b + 1, c : c + 1])
                torch.testing.assert_close(together[b, c], alone[0, 0])


def windows_of(values: np.ndarray, kernel) -> tuple[np.ndarray, np.ndarray]:
    rows = sliding_window_view(values, kernel).reshape(-1, int(np.prod(kernel)))
    centre = rows.shape[1] // 2
    return np.delete(rows, centre, axis=1), rows[:, centre]


def weights_of(blind: BlindFilter) -> tuple[np.ndarray, float]:
    flat = blind.weight.detach().numpy().ravel()
    return np.delete(flat, flat.size // 2), float(flat[flat.size // 2])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_fit_is_numpys_least_squares(kernel, monkeypatch):
    monkeypatch.setattr(linear, "RIDGE", 0.0)
    patches = [correlated(8, 9, 10, seed=s) + 0.5 for s in range(2)]
    blind = BlindFilter(kernel).double()
    blind.fit(as_patch(p) for p in patches)
    pairs = [windows_of(p, kernel) for p in patches]
    a, b = (np.concatenate(part) for part in zip(*pairs, strict=True))
    expected = np.linalg.lstsq(a, b, rcond=None)[0]
    found, centre = weights_of(blind)
    assert centre == 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_the_ridge_is_relative_to_the_signal():
    kernel, values = (3, 3, 3), correlated(8, 8, 8)
    a, b = windows_of(values, kernel)
    gram = a.T @ a
    damped = gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    for scale in (1.0, 1e-3):
        blind = BlindFilter(kernel).double()
        blind.fit([as_patch(scale * values)])
        np.testing.assert_allclose(weights_of(blind)[0], np.linalg.solve(damped, a.T @ b))


def test_the_ridge_keeps_windows_that_repeat_solvable():
    repeated = np.repeat(np.random.default_rng(0).normal(size=(6, 6, 1)), 8, axis=2)
    blind = BlindFilter((3, 3, 3)).double()
    blind.fit([as_patch(repeated)])
    assert np.abs(weights_of(blind)[0]).max() < 1
    with torch.no_grad():
        predicted = blind(as_patch(repeated))[0, 0].numpy()
    np.testing.assert_allclose(predicted[1:-1, 1:-1, 1:-1], repeated[1:-1, 1:-1, 1:-1], atol=0.01)


def test_windows_with_missing_voxels_are_left_out():
    kernel, values = (3, 3, 3), correlated(8, 8, 8)
    holed = values.copy()
    holed[2, 3, 4], holed[6, 1, 7] = np.nan, np.inf
    a, b = windows_of(holed, kernel)
    keep = np.isfinite(a).all(axis=1) & np.isfinite(b)
    assert 0 < keep.sum() < len(keep)
    gram = a[keep].T @ a[keep]
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    blind = BlindFilter(kernel).double()
    blind.fit([as_patch(holed)])
    np.testing.assert_allclose(weights_of(blind)[0], np.linalg.solve(gram, a[keep].T @ b[keep]))


def test_where_hardly_a_window_is_whole_the_torn_ones_count():
    """A tenth of the voxels is missing, so that one window in 500,000 of 5 x 5 x 5 is whole."""
    clean = correlated(24, 24, 24, rho=0.9)
    values = clean + np.random.default_rng(1).normal(size=clean.shape)
    holed = np.where(np.random.default_rng(2).random(clean.shape) < 0.1, np.nan, values)
    blind = BlindFilter((5, 5, 5)).double()
    blind.fit([as_patch(holed)])
    with torch.no_grad():
        estimate = blind(as_patch(values))[0, 0].numpy()
    assert np.mean((estimate - clean) ** 2) < 0.4 * np.mean((values - clean) ** 2)


def test_a_fitted_filter_denoises_a_correlated_signal():
    clean = correlated(24, 24, 24, rho=0.9)
    noisy = clean + np.random.default_rng(1).normal(size=clean.shape)
    blind = BlindFilter((3, 3, 3)).double()
    blind.fit([as_patch(noisy[:12])])
    with torch.no_grad():
        estimate = blind(as_patch(noisy[12:]))[0, 0].numpy()
    error, before = np.mean((estimate - clean[12:]) ** 2), np.mean((noisy - clean) ** 2)
    assert error < 0.4 * before
    edge = np.mean((estimate[0] - clean[12]) ** 2)
    assert edge < 0.7 * before


def test_white_noise_is_predicted_as_nothing():
    blind = BlindFilter((3, 3, 3)).double()
    rng = np.random.default_rng(2)
    blind.fit([as_patch(rng.normal(size=(12, 12, 12))) for _ in range(24)])
    assert np.abs(weights_of(blind)[0]).max() < 0.03


@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_patches_that_hold_nothing_are_refused(fill):
    with pytest.raises(TrainingError, match="no signal"):
        BlindFilter((3, 3, 3)).fit([torch.full((1, 1, 5, 5, 5), fill)])


def test_no_patches_are_refused():
    with pytest.raises(TrainingError, match="no signal"):
        BlindFilter((3, 3, 3)).fit([])


def test_what_is_hidden_beside_the_centre_is_not_seen_either():
    hidden = ((0, 0, -1), (0, 0, 1), (0, 0, 7), (-1, 0, 0))
    blind = BlindFilter((3, 3, 5), hidden)
    blind.fit([as_patch(correlated(12, 24, 24, seed=k)) for k in range(2)])
    blind.double()
    assert blind.weight.abs().max() > 0
    x = noise(1, 1, 7, 9, 11)
    before = blind(x)[0, 0, 3, 4, 5].item()
    for offset in ((0, 0, 0), (0, 0, -1), (0, 0, 1), (-1, 0, 0)):
        changed = x.clone()
        changed[(0, 0, *(n + o for n, o in zip((3, 4, 5), offset, strict=True)))] += 10
        assert blind(changed)[0, 0, 3, 4, 5].item() == before
    x[0, 0, 3, 4, 7] += 10
    assert blind(x)[0, 0, 3, 4, 5].item() != before
