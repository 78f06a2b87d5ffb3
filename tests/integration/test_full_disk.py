"""A disk that is full: the run says so and stops, and goes on once there is space."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

BLOCKS = 40


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, which is room for some of the blocks."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes root, and a kernel that lets it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def check_that_it_goes_on(scene: Any, path: Path, heard_of: set[int]) -> None:
    """What was marked is whole and stays; the rest is computed."""
    done, output = scene.check_marks(path), scene.output(path)
    assert heard_of <= done
    before = output.versions()
    assert scene.predict(path).computed == BLOCKS - len(done) > 0
    assert output.rewritten(before).isdisjoint(done)
    scene.check_whole(path)


def test_a_full_disk(scene: Any, start: Callable[..., Any], small_disk: Path) -> None:
    path = small_disk / "o.zarr"
    command = start(*scene.arguments(path))
    ended = command.end()
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    told = ended.stderr.splitlines()[-1]
    assert told.startswith(f"error: {path}")
    assert os.strerror(errno.ENOSPC) in told
    assert command.computed()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    check_that_it_goes_on(scene, path, command.computed())


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_FSIZE"), reason="needs limits of other processes")
def test_workers_that_may_not_write(scene: Any, start: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "o.zarr"
    command = start(*scene.arguments(path))
    command.reach(3)
    for worker in command.workers():
        worker.rlimit(psutil.RLIMIT_FSIZE, (0, psutil.RLIM_INFINITY))
    ended = command.end()
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    told = ended.stderr.splitlines()[-1]
    assert told.startswith(f"error: {path}: block ")
    assert f" cannot be written: [Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}: " in told
    check_that_it_goes_on(scene, path, command.computed())
