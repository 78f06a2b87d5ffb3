"""Outputs that are made in parts: some blocks first, the pyramid later, a ledger that is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from n2v_scale.api import make_pyramid
from n2v_scale.errors import IncompleteError
from n2v_scale.progress import NoProgress

BLOCKS = 40
LEVELS = ("1", "2", "3", "4", "5", "6")


def test_some_blocks_then_the_rest_then_a_pyramid_that_is_killed(
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

    full = output.versions()
    command = start("pyramid", str(path))
    command.until(lambda: len(output.marked("1")) >= 3, "some blocks")
    command.stop(signal.SIGKILL)
    assert scene.check_marks(path) == set(range(BLOCKS))
    done = {level: output.marked(level) for level in LEVELS}
    assert not done["6"]
    before = output.versions()
    assert start("pyramid", str(path)).end().returncode == 0
    for level in LEVELS:
        assert output.rewritten(before, level).isdisjoint(done[level])
    assert output.rewritten(full) == set()
    scene.check_whole(path)


class Saboteur(NoProgress):
    """Does something to an output as soon as the run has done a block."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self.action, self.done = action, False

    @contextmanager
    def step(self, *_: Any) -> Iterator[Saboteur]:
        yield self

    def advance(self, *_: Any) -> None:
        if not self.done:
            self.action()
        self.done = True


def test_a_segment_that_is_lost_during_the_run(scene: Any, tmp_path: Path) -> None:
    path = tmp_path / "o.zarr"
    scene.predict(path, only=slice(0, 5))
    (segment,) = (path / "0").rglob("segments/000000")
    with pytest.raises(IncompleteError, match="lost a part of its ledger"):
        scene.predict(path, progress=Saboteur(lambda: segment.write_bytes(b"")))
    assert scene.check_marks(path) == set(range(5, BLOCKS))
    assert scene.predict(path).computed == 5
    scene.check_whole(path)
