"""Command lines of ours: what one left behind, and others that run on their own and are watched."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any, NamedTuple

import psutil
import pytest

DEADLINE_S = 240.0
"""For what takes seconds on an idle machine."""
PAUSE_S = 0.01


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


def until(
    condition: Callable[[], Any],
    what: str,
    seconds: float = DEADLINE_S,
    *,
    seen: Callable[[], Any] = str,
) -> Any:
    """Wait until something is so; ``seen`` is told where it never is.

    What takes long to look at, as it asks another program, is looked at less often.
    """
    end = time.monotonic() + seconds
    while True:
        looked = time.monotonic()
        if value := condition():
            return value
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s {seen()}"
        time.sleep(max(PAUSE_S, 3 * (time.monotonic() - looked)))


class Command:
    """A command line in a session of its own, as in a terminal."""

    def __init__(self, arguments: list[str], name: Path) -> None:
        self.files, self.events = [Path(f"{name}.{n}") for n in (1, 2)], Path(f"{name}.log")
        command = [sys.executable, "-m", "n2v_scale", *arguments]
        command += [f"--events={self.events}"] if arguments[0] == "predict" else []
        with self.files[0].open("w") as out, self.files[1].open("w") as err:
            self.process = Popen(command, stdout=out, stderr=err, start_new_session=True)

    @property
    def said(self) -> str:
        """On both of its streams, so far."""
        return "".join(file.read_text() for file in self.files)

    def computed_in_order(self) -> list[int]:
        """The blocks of the full resolution that it has computed so far, one after the other."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        events = [json.loads(line) for line in lines]
        return [e["number"] for e in events if e["event"] == "BlockDone" and e["level"] == "0"]

    def computed(self) -> set[int]:
        """The same as a set."""
        return set(self.computed_in_order())

    def workers(self) -> list[psutil.Process]:
        """Its worker processes as they are now; none when it has ended."""
        with suppress(psutil.NoSuchProcess):
            return [c for c in psutil.Process(self.process.pid).children() if is_worker(c)]
        return []

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something to happen while the command runs; its end is a failure."""

        def seen() -> Any:
            ended = self.process.poll() is not None
            return condition() or (ended and pytest.fail(f"{what}: never. {self.end()}"))

        return until(seen, what, seen=lambda: self.said)

    def reach(self, blocks: int) -> None:
        """Wait until it has computed so many."""
        self.until(lambda: len(self.computed()) >= blocks, f"{blocks} blocks")

    def stop(self, number: int, *, group: bool = False) -> CompletedProcess[str]:
        """Send the driver a signal, or all processes as Ctrl-C does; all of them end."""
        self.process.send_signal(signal.SIGSTOP)  # or it is done before its workers are counted
        workers = self.workers()
        os.killpg(self.process.pid, number) if group else self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)
        ended = self.end()
        until(lambda: not any(map(is_worker, workers)), "the end of the workers")
        return ended

    def end(self) -> CompletedProcess[str]:
        """Wait for its end."""
        code = self.process.wait(DEADLINE_S)
        return CompletedProcess(self.process.args, code, *(f.read_text() for f in self.files))

    def ends(self, code: int = 0) -> str:
        """Wait for its end, with this exit code; what it said."""
        found = self.end().returncode
        assert found == code, f"exit {found}: {self.said}"
        return self.said

    def kill(self) -> None:
        """It and all that it started, if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


Start = Callable[..., Command]


@contextmanager
def commands_in(folder: Path) -> Iterator[Start]:
    """A function that starts command lines; what is left of them in the end is killed."""
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        started.append(Command(list(arguments), folder / f"command-{len(started)}"))
        return started[-1]

    try:
        yield start
    finally:
        for command in started:
            command.kill()


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one and lives; a zombie, which nobody may be left to wait for, does not."""
    with suppress(psutil.NoSuchProcess):
        return "spawn_main" in " ".join(process.cmdline())
    return False
