"""Durations as people write them: ``90s``, ``5min``, ``1h30m``, ``02:30:00``, ``1-12:00:00``."""

from __future__ import annotations

import re

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_NAMES = "milliseconds?|ms|weeks?|w|days?|d|hours?|h|minutes?|mins?|m|seconds?|secs?|s"
_PART = rf"(\d+(?:\.\d+)?)\s*({_NAMES})"
_PARTS = re.compile(rf"(?:{_PART}\s*)+", re.IGNORECASE)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d)(?::([0-5]\d))?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def parse_duration(text: str) -> float:
    """Seconds; so is a bare number. A clock has hours and minutes at least, and days before a
    hyphen, as in SLURM.

    Raises
    ------
    ValueError
        When it is no duration.

    >>> parse_duration("1h30m"), parse_duration("90 min"), parse_duration("1-12:00")
    (5400.0, 5400.0, 129600.0)
    """
    text = text.strip()
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _PARTS.fullmatch(text):
        raise ValueError(f"{text!r} is no duration, such as 90s, 5min or 02:30:00")
    parts = re.findall(_PART, text, re.IGNORECASE)
    return sum(float(number) * _UNITS[_letter(unit.lower())] for number, unit in parts)


def _letter(unit: str) -> str:
    return "ms" if unit == "ms" or unit.startswith("mil") else unit[0]
