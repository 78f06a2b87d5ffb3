"""Runs that are disturbed: real processes, real signals, and an account of what they left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client

from n2v_scale.api import plan_prediction, predict
from n2v_scale.cluster import local_client
from n2v_scale.execution import Summary
from n2v_scale.io.volume import Volume
from n2v_scale.ledger import LEDGER_FOLDER, Ledger
from n2v_scale.nets.filter_unet import FilterUNetConfig
from n2v_scale.nets.unet import UNetConfig
from n2v_scale.recovery import Level, levels_of

CHUNK = (16, 16, 32)
OPTIONS: dict[str, Any] = {
    "block": (16, 16, 16),
    "tile": (8, 8, 8),
    "chunk": (8, 8, 8),
    "shard": (16, 16, 8),  # two a block: it can be written in part
    "device": "cpu",
    "threads": 1,
    "workers": 2,
    "nodata": 0,
}
DEADLINE_S = 120.0
"""For what takes seconds on a machine that does nothing else."""

Versions = dict[tuple[str, int], list[tuple[int, int] | None]]
"""Inode and time of every file of every block, by level and number; None of one that is absent."""


def image() -> np.ndarray:
    """40 blocks of noise; six of them hold no data, and no shard of them is stored."""
    values = np.random.default_rng(0).normal(100, 10, (16, 32, 320)).astype(np.uint16)
    values[:, :, 96:144] = 0
    return values


@dataclass
class Output:
    """What lies on the disk of an output, read from outside."""

    path: Path
    levels: dict[str, Level]

    def marked(self, level: str = "0") -> set[int]:
        """Blocks that count as done: folded into a segment, or marked by a worker."""
        ledger = Ledger(str(self.path), "0.5")
        folded = ledger.done(level, len(self.levels[level].grid)).nonzero()[0].tolist()
        loose = self.path.glob(f"{level}/{LEDGER_FOLDER}/blocks/*.json")
        return {*folded, *(int(file.stem) for file in loose)}

    def shards(self, number: int, level: str = "0") -> list[Path]:
        """The files of a block; one that is all zero is not there."""
        spec, block = self.levels[level].spec, self.levels[level].grid.at(number)
        boxes = spec.shards_in(block.write)
        return [self.path / spec.key(block.t, block.c, box) for box in boxes]

    def stored(self) -> dict[str, bytes]:
        """Every file in the folders of the levels but for the ledger."""
        files = [file for level in self.levels for file in (self.path / level).rglob("*")]
        files = [file for file in files if file.is_file() and LEDGER_FOLDER not in file.parts]
        return {str(file.relative_to(self.path)): file.read_bytes() for file in files}

    def versions(self) -> Versions:
        return {
            (path, number): [_version(file) for file in self.shards(number, path)]
            for path, level in self.levels.items()
            for number in range(len(level.grid))
        }

    def rewritten(self, before: Versions, level: str = "0") -> set[int]:
        """Blocks with files that were written since ``versions()`` was ``before``."""
        now = self.versions()
        return {n for (path, n), files in now.items() if path == level and files != before[path, n]}


def _version(file: Path) -> tuple[int, int] | None:
    try:
        state = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_ino, state.st_mtime_ns


@dataclass
class Scene:
    """A volume, a model, and every byte that an undisturbed run makes of them."""

    volume: Volume
    model: Path
    client: Client
    options: dict[str, Any]

    def predict(self, path: Path, **more: Any) -> Summary:
        """The run, in this process, on workers that nobody disturbs."""
        chosen = {"client": self.client, **self.options, **more}
        return predict(self.volume, self.model, path, **chosen)

    def arguments(self, path: Path, *more: str) -> list[str]:
        """The run as a command line."""
        options = [f"--{name}={_text(value)}" for name, value in self.options.items()]
        return ["predict", self.volume.address, str(self.model), str(path), *options, *more]

    def output(self, path: Path) -> Output:
        plan = plan_prediction(self.volume, self.model, path, **self.options)
        return Output(path, {level.spec.path: level for level in levels_of(plan)})

    @cached_property
    def undisturbed(self) -> Path:
        """A finished output."""
        path = self.model.parent / "undisturbed.zarr"
        summary = self.predict(path)
        assert summary.computed == summary.blocks
        return path

    @cached_property
    def expected(self) -> dict[str, bytes]:
        """What an undisturbed run stores."""
        return self.output(self.undisturbed).stored()

    def check_marks(self, path: Path) -> set[int]:
        """The blocks that count as done, after each one was found whole, at every level."""
        output = self.output(path)
        for level in output.levels:
            for number in output.marked(level):
                for file in output.shards(number, level):
                    found = file.read_bytes() if file.exists() else None
                    assert found == self.expected.get(str(file.relative_to(path))), file
        return output.marked()

    def check_whole(self, path: Path) -> None:
        """Every byte is there, every block is in the ledger, and nothing else is left."""
        output = self.output(path)
        found = output.stored()
        assert found.keys() == self.expected.keys()
        assert [key for key in found if found[key] != self.expected[key]] == []
        assert list(path.rglob("*.partial")) == []
        for level, described in output.levels.items():
            assert output.marked(level) == set(range(len(described.grid)))
        assert (Ledger(str(path), "0.5").record() or {})["complete"]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """A command line in a session of its own, as in a terminal."""

    def __init__(self, arguments: list[str], files: Path) -> None:
        self.out, self.err, self.events = (files.with_suffix(s) for s in (".out", ".err", ".log"))
        command = [sys.executable, "-m", "n2v_scale", *arguments]
        command += [f"--events={self.events}"] if arguments[0] == "predict" else []
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)

    def computed(self, level: str = "0") -> set[int]:
        """The blocks that it has computed so far."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        done = [e for e in map(json.loads, lines) if e["event"] == "BlockDone"]
        return {event["number"] for event in done if event["level"] == level}

    def workers(self) -> list[psutil.Process]:
        """Its worker processes as they are now."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
        return found

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for something to happen while the command runs; its end is a failure."""

        def seen() -> Any:
            ended = self.process.poll() is not None
            return condition() or (ended and pytest.fail(f"{what}: never. {self.end()}"))

        return _wait_until(seen, what)

    def stop(self, number: int, *, group: bool = False) -> Ended:
        """Send the driver a signal, or all processes as Ctrl-C does; all of them end."""
        workers = self.workers()
        os.killpg(self.process.pid, number) if group else self.process.send_signal(number)
        ended = self.end()
        _wait_until(lambda: not any(map(_lives, workers)), "the end of the workers")
        return ended

    def end(self) -> Ended:
        code = self.process.wait(DEADLINE_S)
        return Ended(code, self.out.read_text(), self.err.read_text())


def _lives(process: psutil.Process) -> bool:
    """A zombie does not: who should have waited for it may be dead itself."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _wait_until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"{what}: not within {DEADLINE_S:g} s"
        time.sleep(0.005)
    return value


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """Waits for what a condition returns to become true."""
    return _wait_until


@pytest.fixture(scope="session")
def processes() -> Iterator[Client]:
    """Two worker processes that nobody disturbs."""
    with local_client(2) as client:
        yield client


@pytest.fixture(scope="session")
def make_scene(
    processes: Client, write_volume: Callable[..., Volume], write_model: Callable[..., Path]
) -> Callable[..., Scene]:
    """A function that writes a volume and a model; the same image gives the same output."""

    def make(folder: Path, values: np.ndarray, stored: Sequence[int], **options: Any) -> Scene:
        volume = write_volume(folder / "v.zarr", values, chunk=stored)
        unet = UNetConfig(in_channels=2, depth=1, filters=2, pooled=(1, 1, 1))
        config = FilterUNetConfig((3, 3, 3), unet)
        model = write_model(folder / "model", config, volume=volume, offset=[90.0], scale=[12.0])
        return Scene(volume, model, processes, {**OPTIONS, **options})

    return make


@pytest.fixture(scope="session")
def scene(make_scene: Callable[..., Scene], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """40 blocks for two workers: a few seconds."""
    return make_scene(tmp_path_factory.mktemp("scene"), image(), CHUNK)


@pytest.fixture
def own_scene(make_scene: Callable[..., Scene], scene: Scene, tmp_path: Path) -> Scene:
    """The same with a volume and a model that a test may damage."""
    own = make_scene(tmp_path / "own", image(), CHUNK)
    own.undisturbed = scene.undisturbed
    return own


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts command lines; what is left of them is ended after the test."""
    started: list[Command] = []

    def run(*arguments: str) -> Command:
        started.append(Command(list(arguments), tmp_path / f"command-{len(started)}"))
        return started[-1]

    yield run
    for command in started:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)
            command.process.wait()
