"""What happened, for machines: one JSON object a line, appended as it happens."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

from n2v_scale.errors import OutputError


@dataclass(frozen=True)
class RunStarted:
    """A run takes up an output; ``blocks`` of it, ``missing`` still to do."""

    output: str
    key: str
    blocks: int
    missing: int


@dataclass(frozen=True)
class BlockDone:
    """A block is written. ``level`` is the array's path; times are in seconds."""

    level: str
    number: int
    voxels: int
    skipped: int
    attempts: int
    read_s: float
    wait_s: float
    compute_s: float
    write_s: float
    worker: str


@dataclass(frozen=True)
class BlockFailed:
    """A block is set aside: it failed ``attempts`` times."""

    level: str
    number: int
    attempts: int
    reason: str


@dataclass(frozen=True)
class WorkersChanged:
    """So many workers there are now."""

    workers: int


@dataclass(frozen=True)
class RunEnded:
    """How a run ended: ``finished``, ``incomplete``, ``interrupted`` or ``failed``."""

    outcome: str
    seconds: float
    computed: int
    failed: int
    message: str = ""


Event = RunStarted | BlockDone | BlockFailed | WorkersChanged | RunEnded


class Events:
    """A log of events; one without a file forgets them."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self.file = file

    def write(self, event: Event) -> None:
        """Append ``event`` with its name and the time of day, in seconds since 1970.

        Raises
        ------
        OutputError
            When the file cannot be written any more.
        """
        if self.file is None:
            return
        line: dict[str, Any] = {"event": type(event).__name__, "time": round(time.time(), 3)}
        _append(self.file, json.dumps(line | asdict(event)) + "\n")


@contextmanager
def events_to(path: str | PathLike[str] | None) -> Iterator[Events]:
    """Events that are appended to ``path``, or forgotten when it is None.

    A line that a killed run left torn stays, and the next event begins a new one.

    Raises
    ------
    OutputError
        When the file cannot be opened.
    """
    if path is None:
        yield Events()
        return
    try:
        torn = Path(path).is_file() and not _ends_a_line(Path(path))
        # unbuffered: each line is there at once, and closing has nothing left to write
        file = Path(path).open("ab", buffering=0)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise _unwritable(path, error) from error
    with file:
        if torn:
            _append(file, "\n")
        yield Events(file)


def _ends_a_line(path: Path) -> bool:
    """Whether the last line of a file is whole; an empty file has none that is torn."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def _append(file: IO[bytes], text: str) -> None:
    rest = text.encode()
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _unwritable(file.name, error) from error


def _unwritable(path: str | PathLike[str], error: OSError) -> OutputError:
    return OutputError(
        f"--events: {os.fspath(path)} cannot be written ({error.strerror or error}): choose "
        "another place; finished blocks are kept"
    )
