"""Workers that are killed while they write: the run goes on, and no half of a file counts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

KILLS = 3
BLOCKS = 24
LARGE: dict[str, Any] = {
    "block": (32, 128, 128),
    "shard": (32, 128, 128),
    "chunk": (32, 32, 32),
    "tile": (16, 16, 16),
    "dtype": "float32",
    "codec": "none",
    "nodata": 90,
}
"""Files of 2 MB, and hardly anything to compute: much of the time is writing."""


@pytest.fixture
def large_scene(make_scene: Callable[..., Any], tmp_path: Path) -> Iterator[Any]:
    """No data but at some voxels: the rest is kept."""
    image = np.full((32, 128, 128 * BLOCKS), 90, np.uint16)
    image[16, 16, 16::512] = 200
    yield make_scene(tmp_path / "large", image, (32, 128, 512), **LARGE)
    for folder in tmp_path.rglob("*.zarr"):
        shutil.rmtree(folder, ignore_errors=True)


def is_writing(worker: psutil.Process) -> bool:
    """Whether a worker holds a file open that it is writing; it is stopped, to see for sure."""
    with suppress(psutil.NoSuchProcess):
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
    assert len(large_scene.expected) > BLOCKS
    command = start(*large_scene.arguments(path, "--json"))
    victims = set()
    command.reach(1)  # a run none of whose blocks has ever succeeded gives up, and rightly
    for _ in range(KILLS):
        victim = command.until(lambda: next(filter(is_writing, command.workers()), None), "a write")
        victim.kill()
        victims.add(victim.pid)
        assert list(path.rglob("*.partial"))
        large_scene.check_marks(path)
    ended = command.end()
    assert ended.returncode == 0
    assert len(victims) == KILLS
    summary = json.loads(ended.stdout)
    assert (summary["computed"], summary["missing"]) == (BLOCKS, 0)
    assert command.computed() == set(range(BLOCKS))
    large_scene.check_whole(path)
