"""Memory that a process keeps for the next slab of a tile, instead of giving it back.

The system clears every page that it hands out. Dask starts its workers with
``MALLOC_TRIM_THRESHOLD_=65536``, with which glibc returns each slab at once: a third of the time of
a forward pass went into clearing pages. Elsewhere than on Linux with glibc, nothing is changed.
"""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""As in malloc.h."""
SLAB_BYTES = 32 * 2**20
"""More than a slab. What is larger lives longer, would leave holes, and is returned at once."""
SLABS_BYTES = 2**26


ENVIRONMENT = {
    "MALLOC_ARENA_MAX": 1,
    "MALLOC_MMAP_THRESHOLD_": SLAB_BYTES,
    "MALLOC_TRIM_THRESHOLD_": SLABS_BYTES,
}
"""For a process that is yet to start: one heap for all threads, as theirs are returned sooner."""


def keep_slabs() -> None:
    """In a process that runs already, for the threads that are yet to begin."""
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(ARENA_MAX, 1)
    mallopt(MMAP_THRESHOLD, SLAB_BYTES)
    mallopt(TRIM_THRESHOLD, SLABS_BYTES)
