from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import numpy as np
import pytest

from n2v_scale.viewing.chunk_cache import ChunkCache


def chunk(value=0):
    return np.full(100, value, np.uint8)


def test_the_least_recently_used_goes_first():
    cache, loaded = ChunkCache(250), []

    def get(key):
        return cache.get(key, lambda: loaded.append(key) or chunk(key))

    for key in (1, 2, 1, 3, 1, 2):
        assert (get(key) == key).all()
    assert loaded == [1, 2, 3, 2]
    assert cache.bytes == 200


def test_one_that_is_larger_than_the_limit_is_kept_alone():
    cache = ChunkCache(10)
    cache.get(1, chunk)
    assert cache.get(2, lambda: chunk(2))[0] == 2
    assert cache.bytes == 100


def test_threads_wait_for_one_load():
    cache, loads, begun, end = ChunkCache(), [], Barrier(4), Event()

    def load():
        loads.append(1)
        end.wait()
        return chunk(7)

    def get():
        begun.wait()
        return cache.get("key", load)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(get) for _ in range(4)]
        while not loads:
            pass
        end.set()
        assert all(future.result()[0] == 7 for future in waiting)
    assert len(loads) == 1


def test_a_failure_is_told_and_not_kept():
    cache = ChunkCache()
    with pytest.raises(OSError, match="torn"):
        cache.get(1, lambda: (_ for _ in ()).throw(OSError("torn")))
    assert cache.get(1, lambda: chunk(5))[0] == 5


def test_what_it_gives_cannot_be_written_to():
    values = ChunkCache().get(1, chunk)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1
