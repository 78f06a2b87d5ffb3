"""Outputs that are made in parts: some blocks first, the pyramid later, a ledger that is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from n2v_scale.api import make_pyramid
from n2v_scale.errors import IncompleteError

BLOCKS = 40
LEVELS = ("1", "2", "3", "4", "5", "6")


def test_some_blocks_then_the_rest_then_a_pyramid_that_is_interrupted(
    scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    output = scene.output(path)
    some = start(*scene.arguments(path, "--only", "0:3", "--json"))
    ended = some.end()
    assert ended.returncode == 0
    summary = json.loads(ended.stdout)
    assert (summary["computed"], summary["missing"]) == (3, BLOCKS - 3)
    assert some.computed() == scene.check_marks(path) == {0, 1, 2}
    before = output.versions()
    assert all(set(files) == {None} for (level, _), files in before.items() if level != "0")
    with pytest.raises(IncompleteError, match="37 of 40 blocks of the full resolution are missing"):
        make_pyramid(path, client=scene.client)
    others = scene.predict(path, only=[2, 30, 17])
    assert (others.computed, others.missing) == (2, BLOCKS - 5)
    rest = scene.predict(path, pyramid=False)
    assert (rest.computed, rest.missing) == (BLOCKS - 5, 0)
    assert output.rewritten(before).isdisjoint({0, 1, 2})
    assert not any(map(output.marked, LEVELS))

    assert pyramid(scene, start, path, stop=signal.SIGKILL) == -signal.SIGKILL
    assert pyramid(scene, start, path, stop=signal.SIGTERM) == 130
    assert not output.marked("6")
    assert pyramid(scene, start, path) == 0
    scene.check_whole(path)


def pyramid(scene: Any, start: Callable[..., Any], path: Path, *, stop: int | None = None) -> int:
    """The exit code of ``pyramid``, whole or stopped; what was done is not done again."""
    output = scene.output(path)
    before, done = output.versions(), {level: output.marked(level) for level in LEVELS}
    command = start("pyramid", str(path))
    if stop is not None:
        command.until(lambda: len(output.marked("1")) >= len(done["1"]) + 2, "two blocks")
    ended = command.end() if stop is None else command.stop(stop)
    assert scene.check_marks(path) == set(range(BLOCKS))
    assert output.rewritten(before) == set()
    for level in LEVELS:
        assert output.rewritten(before, level).isdisjoint(done[level])
        assert output.marked(level) >= done[level]
    return ended.returncode


def test_a_segment_that_is_lost_during_the_run(
    scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    scene.predict(path, only=slice(0, 10))
    command = start(*scene.arguments(path))
    command.until(command.computed, "the first block")
    (segment,) = (path / "0").rglob("segments/000000")
    segment.write_bytes(b"")
    ended = command.end()
    assert ended.returncode == 3
    assert "lost a part of its ledger" in ended.stderr
    done = scene.check_marks(path)
    assert done == set(range(10, BLOCKS))
    assert scene.predict(path).computed == 10
    scene.check_whole(path)
