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
    assert ended.code == 0
    summary = json.loads(ended.out)
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
    check_interrupted_pyramid(scene, start, path)


def check_interrupted_pyramid(scene: Any, start: Callable[..., Any], path: Path) -> None:
    """Kill it, stop it, and let it end; what is done is not done again."""
    output = scene.output(path)
    full = output.versions()
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130), (0, 0)):
        before, done = output.versions(), {level: output.marked(level) for level in LEVELS}
        command = start("pyramid", str(path))
        if number:
            command.until(lambda: len(output.marked("1")) >= len(done["1"]) + 2, "two blocks")  # noqa: B023
        ended = command.stop(number) if number else command.end()
        assert ended.code == code
        assert scene.check_marks(path) == set(range(BLOCKS))
        assert output.rewritten(full) == set()
        for level in LEVELS:
            assert output.rewritten(before, level).isdisjoint(done[level])
            assert done[level] <= output.marked(level)
        assert bool(output.marked("6")) == (number == 0)
    scene.check_whole(path)


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
    assert ended.code == 3
    assert "lost a part of its ledger" in ended.err
    done = scene.check_marks(path)
    assert done == set(range(10, BLOCKS))
    assert scene.predict(path).computed == 10
    scene.check_whole(path)
