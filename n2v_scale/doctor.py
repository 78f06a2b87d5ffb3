"""An examination of the installation and of this machine; nothing here needs a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import IO

from n2v_scale._version import __version__
from n2v_scale.checkup.check import Check, guarded
from n2v_scale.terminal import Colour, paint, table_text

COLOURS: dict[str, Colour] = {"ok": "green", "note": "yellow", "problem": "red"}
_LOOKS = (
    ("packages", "packages", "look_at_packages"),
    ("torch", "gpu", "look_at_gpus"),
    ("codecs", "codecs", "look_at_codecs"),
    ("extras", "packages", "look_at_extras"),
    ("cluster", "batch", "look_at_batch"),
    ("machine", "machine", "look_at_machine"),
)
"""What to call each look, and where it is; modules are loaded one by one, as any may fail to."""


def examine(folder: str) -> list[Check]:
    """Everything that a run needs, and what of it is there; ``folder`` is for outputs.

    Files are written into ``folder`` and the temporary folder, and are gone again at the end.
    """
    looks: list[tuple[str, Callable[[], Sequence[Check]]]] = [
        (what, partial(_look, module, name)) for what, module, name in _LOOKS
    ]
    looks.append(("folder", partial(_look, "places", "look_at_places", folder)))
    looks.append(("terminal", partial(_look, "session", "look_at_session")))
    return [check for what, look in looks for check in guarded(what, look)]


def _look(module: str, name: str, *arguments: str) -> list[Check]:
    found: list[Check] = getattr(import_module(f"n2v_scale.checkup.{module}"), name)(*arguments)
    return found


def stops_a_run(checks: Sequence[Check]) -> bool:
    """Whether any of it has to be mended first."""
    return any(check.level == "problem" for check in checks)


def examination_text(checks: Sequence[Check], stream: IO[str], columns: int | None) -> str:
    """A line a check, and one that sums up; coloured and wrapped as ``stream`` can show it."""
    rows: list[tuple[str, str, str]] = []
    for check in checks:
        rows.append((check.level, check.what, check.seen))
        if check.remedy:
            rows.append(("", "", f"remedy: {check.remedy}"))
    lines = [f"n2v-scale {__version__}"]
    for line in table_text(rows, columns).splitlines():
        level = line.split(" ", 1)[0]
        colour = COLOURS.get(level)
        lines.append(line if colour is None else paint(level, colour, stream) + line[len(level) :])
    return "\n".join([*lines, _summed_up(checks)])


def _summed_up(checks: Sequence[Check]) -> str:
    problems = sum(check.level == "problem" for check in checks)
    notes = sum(check.level == "note" for check in checks)
    noted = f"; {_number(notes, 'note')}" if notes else ""
    if problems:
        return f"{_number(problems, 'problem')} would stop a run{noted}"
    return f"nothing stops a run{noted}"


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"
