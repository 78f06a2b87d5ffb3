"""Progress of long steps: a bar with rate and time left on a terminal, plain lines elsewhere.

Everything goes to stderr; results go to stdout.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol

from n2v_scale.terminal import is_terminal

LINE_EVERY_S = 5.0
"""At first; later each line waits for a tenth of what has passed, so that a day has 150 lines."""
LINE_AT_LEAST_EVERY_S = 600.0


class Step(Protocol):
    """A long step that is under way."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """So much more is done; ``note`` is shown beside the rate."""


class Progress(Protocol):
    """Where steps are shown."""

    def step(self, name: str, total: float, unit: str) -> Any:
        """A context manager that gives a :class:`Step`; ``total`` is in ``unit``."""

    def say(self, text: str) -> None:
        """One line that stays."""


class _Silent:
    def advance(self, amount: float = 1, note: str = "") -> None:
        """Nothing is shown."""


class NoProgress:
    """Shows nothing: the default in Python."""

    @contextmanager
    def step(self, name: str, total: float, unit: str) -> Iterator[Step]:
        """See :class:`Progress`."""
        del name, total, unit
        yield _Silent()

    def say(self, text: str) -> None:
        """See :class:`Progress`."""


class _Lines:
    def __init__(self, name: str, total: float, unit: str, say: Callable[[str], None]) -> None:
        self.name, self.total, self.unit, self.say = name, total, unit, say
        self.done = 0.0
        self.started = self.spoken = time.monotonic()

    def advance(self, amount: float = 1, note: str = "") -> None:
        """See :class:`Step`."""
        self.done += amount
        now = time.monotonic()
        if now - self.spoken >= _pause(now - self.started) and self.done < self.total:
            self.spoken = now
            self.say(self.line(now - self.started, note))

    def line(self, elapsed: float, note: str) -> str:
        """Share, rate and time left, in one line."""
        rate = self.done / elapsed if elapsed > 0 else 0.0
        left = f", {clock((self.total - self.done) / rate)} left" if rate > 0 else ""
        rated = f", {rate_text(rate, self.unit)}" if self.unit != "s" else ""
        extra = f", {note}" if note else ""
        return (
            f"{self.name}: {amount_text(self.done, self.unit)} of "
            f"{amount_text(self.total, self.unit)} ({self.done / self.total:.0%})"
            f"{rated}{left}{extra}"
        )


def _pause(elapsed: float) -> float:
    return min(LINE_AT_LEAST_EVERY_S, max(LINE_EVERY_S, 0.1 * elapsed))


class LineProgress:
    """A line now and then: for log files and pipes."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr

    @contextmanager
    def step(self, name: str, total: float, unit: str) -> Iterator[Step]:
        """See :class:`Progress`."""
        started = time.monotonic()
        lines = _Lines(name, total, unit, self.say)
        yield lines
        took = clock(time.monotonic() - started)
        self.say(f"{name}: {amount_text(lines.done, unit)} in {took}")

    def say(self, text: str) -> None:
        """See :class:`Progress`."""
        self.stream.write(text + "\n")
        self.stream.flush()


class BarProgress:
    """Bars with rate and time left: for terminals."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        from rich.console import Console

        self.console = Console(file=stream or sys.stderr)

    @contextmanager
    def step(self, name: str, total: float, unit: str) -> Iterator[Step]:
        """See :class:`Progress`."""
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=self.console, expand=True) as bars:
            bar = bars.add_task(name, total=total, rate="", note="")
            started = time.monotonic()

            class _Bar:
                done = 0.0

                def advance(self, amount: float = 1, note: str = "") -> None:
                    self.done += amount
                    rate = self.done / max(1e-9, time.monotonic() - started)
                    shown: dict[str, Any] = {"note": note} if note else {}
                    bars.update(bar, advance=amount, rate=rate_text(rate, unit), **shown)

            yield _Bar()

    def say(self, text: str) -> None:
        """See :class:`Progress`."""
        self.console.print(text, highlight=False, markup=False)


def progress_for(stream: IO[str]) -> Progress:
    """Bars on a terminal whose cursor can be moved, lines elsewhere."""
    return BarProgress(stream) if is_terminal(stream) else LineProgress(stream)


def rate_text(rate: float, unit: str) -> str:
    """Units a second; nothing for seconds, which always pass at one a second."""
    return "" if unit == "s" else f"{amount_text(rate, unit)}/s"


def amount_text(amount: float, unit: str) -> str:
    """A number with its unit; voxels and bytes with a prefix, seconds as a clock."""
    if unit == "s":
        return clock(amount)
    if unit in {"voxel", "B"}:
        for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if amount >= size:
                return f"{_digits(amount / size, 3)} {prefix}{unit}"
    digits = f"{amount:.0f}" if amount == int(amount) else _digits(amount, 2)
    plural = (
        "s"
        if unit in {"step", "block", "voxel", "plane", "file", "worker", "job"} and digits != "1"
        else ""
    )
    return f"{digits} {unit}{plural}"


def _digits(amount: float, significant: int) -> str:
    """``amount`` with so many digits, or all of those before the point; never an exponent."""
    return f"{amount:.0f}" if amount >= 99.5 else f"{amount:.{significant}g}"


def clock(seconds: float) -> str:
    """``1:02:03``, ``2:03``, or ``8 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
