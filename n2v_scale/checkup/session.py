"""The terminal and the clock."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from n2v_scale.checkup.check import Check, note, ok, problem
from n2v_scale.terminal import columns_of, wants_colour

RELEASED = datetime(2025, 1, 1, tzinfo=UTC)
"""No clock of a run can be before it."""


@dataclass(frozen=True)
class SessionSeen:
    """What stdout is, and the time."""

    encoding: str
    columns: int | None
    """None where stdout is a file or a pipe."""
    colour: bool
    now: float
    """Seconds since 1970."""


def look_at_session() -> list[Check]:
    """Terminal and clock."""
    seen = SessionSeen(
        encoding=sys.stdout.encoding or "ascii",
        columns=columns_of(sys.stdout),
        colour=wants_colour(sys.stdout, os.environ),
        now=time.time(),
    )
    return [judge_terminal(seen), judge_clock(seen)]


def judge_terminal(seen: SessionSeen) -> Check:
    """Whether everything can be shown."""
    shown = "a file or a pipe" if seen.columns is None else f"{seen.columns} columns"
    text = f"{seen.encoding}, {shown}, {'colours' if seen.colour else 'no colours'}"
    if seen.encoding.lower().replace("-", "") != "utf8":
        return note(
            "terminal",
            f"{text}: letters that it lacks are written otherwise, µ as u",
            "export LC_ALL=C.UTF-8, or PYTHONUTF8=1",
        )
    return ok("terminal", text)


def judge_clock(seen: SessionSeen) -> Check:
    """Certificates of a run are valid from its clock on: a wrong one keeps workers out."""
    now = datetime.fromtimestamp(seen.now, UTC)
    text = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now < RELEASED:
        return problem("clock", f"{text}, which is long ago", "set the clock of this machine (NTP)")
    return ok("clock", text)
