"""The Fourier shell correlation: a cut-off that is known, noise alone, and one and the same."""

from __future__ import annotations

from functools import reduce
from itertools import product
from operator import add

import numpy as np
import pytest

from n2v_scale.shells import (
    FEWEST_MODES,
    THRESHOLD,
    ShellCurve,
    ShellSums,
    nyquist,
    shell_curves,
    shell_grids,
)

CUBE = (1.0, 1.0, 1.0)


def white(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def band_limited(shape, spacing, cutoffs, power=5.0):
    """White up to an ellipsoid in frequency, of so much power beside noise of variance 1."""
    lines = np.meshgrid(
        *(np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)), indexing="ij"
    )
    inside = sum((f / c) ** 2 for f, c in zip(lines, cutoffs, strict=True)) <= 1
    return np.sqrt(power) * np.fft.ifftn(np.fft.fftn(white(shape, 0)) * inside).real


def curves_of(a, b, spacing=CUBE, side=None):
    """Of two arrays cut into boxes so wide along X, at half that distance."""
    side = side or a.shape[2]
    starts = range(0, a.shape[2] - side + 1, side // 2)
    sums = [ShellSums.of(a[..., k : k + side], b[..., k : k + side], spacing) for k in starts]
    total = reduce(add, sums)
    return shell_curves(total, (*a.shape[:2], side), spacing, boxes=len(sums), voxels=a.size)


@pytest.mark.parametrize("cutoff", [0.15, 0.3])
def test_a_cut_off_that_is_known(cutoff):
    signal = band_limited((48, 48, 480), CUBE, (cutoff,) * 3)
    a, b = (signal + white(signal.shape, seed) for seed in (1, 2))
    for curve in curves_of(a, b, side=48).values():
        assert curve.outcome == "resolved"
        assert curve.crossing == pytest.approx(cutoff, abs=1.6 / 48)
        assert curve.resolution == pytest.approx(1 / curve.crossing)
        assert curve.rises_at is None


def test_voxels_that_are_long_along_z():
    """Cut off at 0.9 in the plane and 0.2 along Z, in cycles per micrometer."""
    spacing = (2.0, 0.4, 0.4)
    signal = band_limited((64, 64, 384), spacing, (0.2, 0.9, 0.9))
    a, b = (signal + white(signal.shape, seed) for seed in (1, 2))
    found = curves_of(a, b, spacing, side=64)
    assert found["xy"].crossing == pytest.approx(0.9, abs=1.5 / 25.6)
    assert found["z"].crossing == pytest.approx(0.2, abs=3 / 128)
    assert found["z"].nyquist == 0.25
    assert found["xy"].nyquist == found["all"].nyquist == 1.25


def test_noise_alone_has_no_resolution():
    for curve in curves_of(white((32, 64, 128), 1), white((32, 64, 128), 2), side=64).values():
        assert curve.outcome == "nothing"
        assert curve.resolution is None
        assert max(map(abs, curve.correlation)) < THRESHOLD


def test_one_and_the_same_reaches_the_voxels_limit():
    a = white((48, 48, 192), 1)
    for direction, curve in curves_of(a, a, (1.0, 0.5, 0.5), side=48).items():
        assert curve.outcome == "beyond"
        assert curve.correlation == pytest.approx([1.0] * len(curve.correlation))
        assert curve.resolution == {"all": 1.0, "xy": 1.0, "z": 2.0}[direction]


def test_gain_and_offset_change_nothing():
    signal = band_limited((16, 64, 64), CUBE, (0.3,) * 3)
    a, b = (signal + white(signal.shape, seed) for seed in (1, 2))
    one, other = curves_of(a, b)["all"], curves_of(a, 100 + 3 * b)["all"]
    assert other.correlation == pytest.approx(one.correlation, abs=1e-4)


def test_the_correlation_is_what_theory_says():
    """With signal and noise white alike it is their ratio, s² / (s² + n²)."""
    signal = white((32, 64, 128), 0)
    a, b = (signal + 2 * white(signal.shape, seed) for seed in (1, 2))
    for curve in curves_of(a, b, side=64).values():
        chance = 4 / np.sqrt(curve.modes)
        assert np.all(np.abs(np.array(curve.correlation) - 0.2) < chance)


def test_chance_is_as_large_as_said():
    scores = []
    for seed in range(8):
        a, b = white((32, 32, 32), 2 * seed), white((32, 32, 32), 2 * seed + 1)
        for curve in curves_of(a, b).values():
            scores += list(np.array(curve.correlation) * np.sqrt(curve.modes))
    assert 0.7 < np.std(scores) < 1.3


def test_shells_hold_the_frequencies_that_they_should():
    """Against every frequency of a small box, one by one."""
    shape, spacing = (8, 12, 16), (2.1, 1.03, 1.0)
    grids = shell_grids(shape, spacing)
    found = {n: g.summed(np.ones(g.index.shape, np.float32)) for n, g in grids.items()}
    expected = {name: np.zeros(grid.shells) for name, grid in grids.items()}
    lines = [np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True)]
    for z, y, x in product(*lines):
        lateral, whole = np.hypot(y, x), np.sqrt(z**2 + y**2 + x**2)
        kinds = {"all": (whole, 1 / 12.36)}
        if whole and np.degrees(np.arctan2(abs(z), lateral)) <= 20:
            kinds["xy"] = (lateral, 1 / 12.36)
        if lateral <= max(abs(z) * np.tan(np.radians(30)), 1.5 / 12.36):
            kinds["z"] = (abs(z), 1 / 16.8)
        for name, (frequency, width) in kinds.items():
            number = round(frequency / width) - 1
            if 0 <= number < len(expected[name]):
                expected[name][number] += 1
    for name in grids:
        np.testing.assert_array_equal(found[name], expected[name])
    assert [len(expected[n]) for n in ("all", "xy", "z")] == [6, 6, 4]


def test_too_few_voxels_say_nothing():
    a = white((4, 8, 8), 0)
    for curve in curves_of(a, a).values():
        assert curve.outcome == "unknown"
        assert curve.resolution is None


def test_shells_of_few_frequencies_are_joined():
    a = white((48, 64, 128), 0)
    for curve in curves_of(a, a, side=64).values():
        assert min(curve.modes) >= FEWEST_MODES
        assert list(curve.frequency) == sorted(curve.frequency)


def test_boxes_that_overlap_say_no_more_than_the_voxels_there_are():
    a = white((32, 32, 32), 0)
    one = ShellSums.of(a, a, CUBE)
    total = sum(curves_of(a, a)["all"].modes)
    many = shell_curves(one, a.shape, CUBE, boxes=100, voxels=a.size)["all"]
    assert total < sum(many.modes) <= a.size


def test_a_plane_has_one_direction():
    signal = band_limited((1, 256, 256), CUBE, (1.0, 0.2, 0.2))
    a, b = (signal + white(signal.shape, seed) for seed in (1, 2))
    (curve,) = curves_of(a, b).values()
    assert curve.crossing == pytest.approx(0.2, abs=0.02)


def test_the_crossing_lies_between_shells():
    curve = ShellCurve((0.1, 0.2, 0.3, 0.4), (0.9, 0.5, 0.1, 0.4), (999.0,) * 4, 0.5)
    assert curve.crossing == pytest.approx(0.2 + 0.1 * (0.5 - THRESHOLD) / 0.4)
    assert curve.rises_at == 0.4


def test_the_limit_of_the_voxels():
    assert nyquist("xy", (8, 8, 8), (2.0, 0.4, 0.5)) == 1.0
    assert nyquist("all", (1, 8, 8), (0.1, 0.4, 0.5)) == 1.25
