"""HTTP's ``Range`` header (RFC 9110, section 14): which bytes of a value are asked for."""

from __future__ import annotations

import re

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)


class UnsatisfiableError(ValueError):
    """The range begins behind the end of the value."""


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range of a value of ``size`` bytes; None where the whole is to be sent.

    Several ranges, and what is no range of bytes, mean the whole, as the RFC allows.

    Raises
    ------
    UnsatisfiableError
        When no byte of the value is asked for.

    >>> byte_range("bytes=0-99", 1000), byte_range("bytes=990-", 1000), byte_range("bytes=-4", 1000)
    ((0, 100), (990, 1000), (996, 1000))
    """
    found = _ONE_RANGE.fullmatch(header or "")
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        stop = min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= stop:
        raise UnsatisfiableError(header)
    return start, stop
