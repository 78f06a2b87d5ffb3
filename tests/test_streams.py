"""Random numbers of a patch: its own, wherever it is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from n2v_scale.streams import Streams

keys = st.lists(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=3).map(tuple), min_size=1, max_size=5
)


def draws(of: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Two draws one after the other, two rows a patch in the first."""
    streams = Streams(of)
    return [streams.rand(2 * len(of), 3), streams.rand(len(of), 4, 2)]


@given(keys)
@settings(deadline=None)
def test_a_patch_draws_the_same_numbers_in_whatever_batch(batch):
    first, second = draws(batch)
    for k, key in enumerate(batch):
        one, other = draws([key])
        assert torch.equal(first[2 * k : 2 * k + 2], one)
        assert torch.equal(second[k : k + 1], other)


def test_different_keys_draw_different_numbers():
    many = [(a, b) for a in range(30) for b in range(30)]
    drawn = Streams(many).rand(len(many), 4)
    assert len({tuple(row) for row in drawn.tolist()}) == len(many)


def test_the_order_of_a_key_counts():
    one, other = Streams([(1, 2)]).rand(1, 4), Streams([(2, 1)]).rand(1, 4)
    assert not torch.equal(one, other)


def test_draws_follow_each_other():
    streams = Streams([(3,)])
    assert not torch.equal(streams.rand(1, 8), streams.rand(1, 8))


def test_numbers_of_neighbouring_keys_are_uniform_and_unrelated():
    drawn = Streams([(0, step) for step in range(4000)]).rand(4000, 2).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert kstest(drawn[:, 0], "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.06
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.06


def test_rows_have_the_shape_and_type_asked_for():
    drawn = Streams([(1,), (2,)]).rand(6, 5, 4)
    assert drawn.shape == (6, 5, 4)
    assert drawn.dtype == torch.float32


def test_rows_that_do_not_go_round_are_refused():
    with pytest.raises(ValueError, match="5 rows for 2 patches"):
        Streams([(1,), (2,)]).rand(5, 3)
