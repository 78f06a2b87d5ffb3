"""Decoded chunks, the least recently used of which go first; each is decoded once at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[Any]

LIMIT = 512 << 20
"""Bytes that are kept."""


class ChunkCache:
    """Arrays by key, shared by threads. What it gives is read-only."""

    def __init__(self, limit_bytes: int = LIMIT) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._kept: OrderedDict[Hashable, Voxels] = OrderedDict()
        self._coming: dict[Hashable, Future[Voxels]] = {}
        self._lock = Lock()

    def get(self, key: Hashable, load: Callable[[], Voxels]) -> Voxels:
        """The array of ``key``; ``load`` makes it where it is neither kept nor on its way.

        What ``load`` raises is raised to all who wait for it, and nothing is kept of it.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            waiting = self._coming.get(key)
            if waiting is None:
                own: Future[Voxels] = Future()
                self._coming[key] = own
        if waiting is not None:
            return waiting.result()
        try:
            values = load()
        except BaseException as error:
            self._forget(key)
            own.set_exception(error)
            raise
        values.flags.writeable = False
        self._keep(key, values)
        own.set_result(values)
        return values

    def _forget(self, key: Hashable) -> None:
        with self._lock:
            self._coming.pop(key, None)

    def _keep(self, key: Hashable, values: np.ndarray) -> None:
        with self._lock:
            self._coming.pop(key, None)
            self._kept[key] = values
            self.bytes += values.nbytes
            while self.bytes > self.limit_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self.bytes -= dropped.nbytes
