"""Workers that are killed while they write: the run goes on, and no half of a file counts."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

KILLS = 4
BLOCKS = 24
LARGE: dict[str, Any] = {
    "block": (64, 128, 128),
    "shard": (64, 128, 128),
    "chunk": (32, 32, 32),
    "tile": (16, 16, 16),
    "dtype": "float32",
    "codec": "none",
}
"""Files of 4 MB, and hardly anything to compute: much of the time is writing."""


@pytest.fixture
def large_scene(make_scene: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
    """The same value everywhere but for some voxels, so that few tiles are computed."""
    image = np.full((64, 128, 128 * BLOCKS), 90, np.uint16)
    image[16, 16, 16::512] = 200
    yield make_scene(tmp_path / "large", image, (64, 128, 128), **LARGE)
    for folder in tmp_path.rglob("*.zarr"):
        shutil.rmtree(folder, ignore_errors=True)


def caught_in_the_act(worker: psutil.Process) -> bool:
    """Whether a worker holds a file open that it is writing; it is stopped, to see for sure."""
    worker.suspend()
    while worker.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
        time.sleep(0.001)
    if any(file.path.endswith(".partial") for file in worker.open_files()):
        return True
    worker.resume()
    return False


def test_workers_that_are_killed_in_the_middle_of_a_write(
    large_scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    t0=time.monotonic()
    large_scene.expected
    print(time.monotonic()-t0)
    command = start(*large_scene.arguments(path, "--json"))
    chance = random.Random(0)
    killed=[]
    tries=0
    while command.process.poll() is None:
        for worker in command.workers() if len(killed)<4 else []:
            try:
                tries+=1
                if caught_in_the_act(worker):
                    worker.kill()
                    killed.append((worker.pid, time.monotonic()-t0, len(command.computed())))
            except psutil.NoSuchProcess: pass
        time.sleep(0.01)
    print(tries, killed, command.end(), time.monotonic()-t0)
    large_scene.check_whole(path)
