"""The cores of this machine, and how they are shared out."""

from __future__ import annotations

from dask.system import CPU_COUNT

MOST_WORKERS = 8
"""More cores than this become torch threads of the workers."""


def available_cores() -> int:
    """The cores that this process may use, by its affinity and its container's quota."""
    return int(CPU_COUNT)


def split_cores(cores: int) -> tuple[int, int]:
    """(workers, torch threads a worker): single-threaded workers first, they waste the least.

    >>> split_cores(2), split_cores(8), split_cores(64)
    ((2, 1), (8, 1), (8, 8))
    """
    workers = min(cores, MOST_WORKERS)
    return workers, max(1, cores // workers)
