"""A page holds the voxels: exactly where they fit into 12 bits, to a step elsewhere."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

from n2v_scale.reporting.slices import LEVELS, NO_VALUE, coded_text, scale_of


def test_whole_numbers_that_fit_are_exact():
    rng = np.random.default_rng(0)
    values = rng.integers(-1000, 3000, (50, 60)).astype("f4")
    scale = scale_of([values], [values], True)
    assert scale.exact
    assert np.array_equal(scale.low + scale.step * scale.coded(values), values)


def test_others_are_exact_to_half_a_step_but_for_the_ends():
    values = np.random.default_rng(0).gamma(2, 10, (200, 200)).astype("f4")
    values[0, 0] = 1e9
    for whole in (False, True):
        scale = scale_of([values], [values], whole)
        assert not scale.exact
        inner = (values > scale.low) & (values < scale.low + scale.step * (LEVELS - 1))
        assert inner.mean() > 0.999
        back = scale.low + scale.step * scale.coded(values)
        assert np.abs(back - values)[inner].max() <= 0.501 * scale.step
        assert scale.coded(values)[0, 0] == LEVELS - 1


def test_what_has_no_value_has_a_code_of_its_own():
    values = np.array([[1, np.nan], [3, 2]], "f4")
    codes = scale_of([values], [values], True).coded(values)
    assert codes[0, 1] == NO_VALUE > LEVELS - 1
    assert codes[1, 0] == 2


@pytest.mark.parametrize("values", [np.full((4, 4), 7, "f4"), np.full((4, 4), np.nan, "f4")])
def test_a_constant_or_empty_plane_has_a_scale(values):
    scale = scale_of([values], [values], False)
    assert scale.step > 0
    assert scale.window[1] > scale.window[0]


def test_the_contrast_is_that_of_the_denoised_values():
    dim, bright = np.arange(1000, dtype="f4"), np.arange(9000, dtype="f4")
    low, high = scale_of([dim, bright], [dim], False).window
    assert (low, high) == pytest.approx((5, 997), abs=2)


def test_the_text_is_what_the_viewer_unpacks():
    codes = np.array([[0, 1, 255], [256, 4094, 4095]], np.uint16)
    raw = zlib.decompress(base64.b64decode(coded_text(codes)))
    low, high = np.frombuffer(raw, "u1").reshape(2, 6).astype(int)
    assert np.array_equal(low + 256 * high, codes.ravel())
