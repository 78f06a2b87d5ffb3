"""One line of an examination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]
REINSTALL = "install again, into an empty environment: pip install n2v-scale"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do about it."""

    what: str
    level: Level
    """``note``: runs go on, but not as well as they could. ``problem``: a run would stop."""
    seen: str
    remedy: str = ""
    """Nothing where all is well."""


def ok(what: str, seen: str) -> Check:
    """All is well."""
    return Check(what, "ok", seen)


def note(what: str, seen: str, remedy: str) -> Check:
    """It works, and could be better."""
    return Check(what, "note", seen, remedy)


def problem(what: str, seen: str, remedy: str) -> Check:
    """A run would stop."""
    return Check(what, "problem", seen, remedy)


def guarded(what: str, look: Callable[[], Sequence[Check]]) -> list[Check]:
    """The checks that ``look`` makes. Whatever it raises is a finding too: a library that cannot be
    loaded, say.
    """
    try:
        return list(look())
    except Exception as error:  # whatever it is, it is what was to be found out
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return [problem(what, f"cannot be looked at: {text}", REINSTALL)]
