"""A driver that is killed, told to stop, or not alone: the next run goes on."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from n2v_scale.progress import NoProgress

BLOCKS = 40
A_PART = 5


class Listener(NoProgress):
    """Remembers what a run says, such as that it waits for a lock."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_driver_that_is_killed_again_and_again(
    scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    output = scene.output(path)
    early = start(*scene.arguments(path))
    early.until((path / "0/n2v_scale.lock/holder.json").exists, "the lock")
    early.stop(signal.SIGKILL)
    done = scene.check_marks(path)
    for _ in range(2):
        before = output.versions()
        command = start(*scene.arguments(path))
        command.reach(A_PART)
        ended = command.stop(signal.SIGKILL)
        assert ended.returncode == -signal.SIGKILL
        assert "locked" not in ended.stderr  # nobody waited for the dead
        assert command.computed().isdisjoint(done)
        assert output.rewritten(before).isdisjoint(done)
        assert scene.check_marks(path) >= done | command.computed()
        done = scene.check_marks(path)
    assert 2 * A_PART <= len(done) < BLOCKS
    before = output.versions()
    assert scene.predict(path).computed == BLOCKS - len(done)
    assert output.rewritten(before).isdisjoint(done)
    scene.check_whole(path)


def test_a_driver_that_is_told_to_stop(
    scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    output, done = scene.output(path), set()
    for number, group in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        command = start(*scene.arguments(path))
        command.reach(A_PART)
        ended = command.stop(number, group=group)
        assert ended.returncode == 130
        assert ended.stderr.splitlines()[-1].startswith("interrupted: what is finished is kept")
        assert "Traceback" not in ended.stderr
        assert not (path / "0/n2v_scale.lock").exists()
        assert command.computed().isdisjoint(done)
        last_event = json.loads(command.events.read_text().splitlines()[-1])
        assert (last_event["event"], last_event["outcome"]) == ("RunEnded", "interrupted")
        assert scene.check_marks(path) >= done | command.computed()
        done = scene.check_marks(path)
    before = output.versions()
    assert scene.predict(path).computed == BLOCKS - len(done) > 0
    assert output.rewritten(before).isdisjoint(done)
    scene.check_whole(path)


def test_a_second_driver_is_refused_as_long_as_the_first_lives(
    scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    first = start(*scene.arguments(path))
    first.until(first.computed, "the first block")
    first.process.send_signal(signal.SIGSTOP)  # it lives, and cannot end before the second comes
    second = start(*scene.arguments(path)).end()
    assert second.returncode == 1
    assert second.stderr.startswith(
        f"error: {path} is being written by process {first.process.pid} "
    )
    assert f" on {socket.gethostname()} " in second.stderr
    assert second.stderr.endswith("then the same command goes on\n")
    first.stop(signal.SIGKILL)
    done = scene.check_marks(path)
    assert first.computed() <= done
    listener = Listener()
    summary = scene.predict(path, progress=listener)
    assert summary.computed == BLOCKS - len(done) > 0
    assert listener.said == []  # such as: the lock is watched
    scene.check_whole(path)
