from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2v_scale.viewing.byte_ranges import UnsatisfiableError, byte_range

SIZES = st.integers(0, 50)


@pytest.mark.parametrize(
    "header", [None, "", "bytes", "bytes=", "bytes=-", "items=0-1", "bytes=5-2", "bytes=0-1,4-5"]
)
def test_what_is_no_single_range_means_the_whole(header):
    assert byte_range(header, 10) is None


@given(SIZES, SIZES, SIZES)
def test_it_is_what_python_slices(first, length, size):
    whole = bytes(range(size))
    cases = {
        f"bytes={first}-{first + length}": whole[first : first + length + 1],
        f"bytes={first}-": whole[first:],
        f"bytes=-{length}": whole[max(0, size - length) :],
    }
    for header, expected in cases.items():
        if not expected:
            with pytest.raises(UnsatisfiableError):
                byte_range(header, size)
        else:
            start, stop = byte_range(header, size)
            assert whole[start:stop] == expected
            assert 0 <= start < stop <= size
