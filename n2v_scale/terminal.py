"""What a terminal can show: colours, columns and characters.

Everything is decided from the stream and the environment, so that a log file gets plain lines.
"""

from __future__ import annotations

import codecs
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Literal

Colour = Literal["red", "yellow", "green", "bold"]

_CODES = {"red": "31;1", "yellow": "33", "green": "32", "bold": "1"}
_PLAIN = str.maketrans(
    {"×": "x", "µ": "u", "μ": "u", "–": "-", "—": "-", "…": "...", "→": "->", "±": "+-"}
)
_ERRORS = "n2v_scale.plain"
_NAMED = re.compile(r"\s*\S+(?: \S+)* {2,}")
NARROWEST = 40
"""Text is not wrapped to fewer columns."""


def prepare_streams() -> None:
    """Let nothing that we print fail.

    What the encoding lacks is written in plain letters. ASCII, which is what the C locale says,
    hardly ever means a terminal without UTF-8, so it counts as that. A stream that was closed
    before we started takes everything and keeps nothing.
    """
    codecs.register_error(_ERRORS, _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 (until the end)
        elif hasattr(stream, "reconfigure"):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors=_ERRORS)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """The letters that a code page lacks: bytes of file names as they are, else plain ones."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= letter <= "\udcff" for letter in text):  # a file's name that is no UTF-8
        return bytes(ord(letter) - 0xDC00 for letter in text), error.end
    plain = text.translate(_PLAIN)
    return plain.encode("ascii", "backslashreplace").decode(), error.end


def wants_colour(stream: IO[str], environment: Mapping[str, str] | None = None) -> bool:
    """Whether to colour what is written to ``stream``: on terminals that can, unless ``NO_COLOR``
    is set; ``FORCE_COLOR`` colours files and pipes too (no-color.org, force-color.org).
    """
    told = os.environ if environment is None else environment
    if told.get("NO_COLOR"):
        return False
    if told.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal(stream, told)


def is_terminal(stream: IO[str], environment: Mapping[str, str] | None = None) -> bool:
    """Whether ``stream`` is a terminal on which a cursor can be moved."""
    told = os.environ if environment is None else environment
    named = os.name != "posix" or told.get("TERM", "") not in ("", "dumb", "unknown")
    return named and stream.isatty()


def paint(text: str, colour: Colour, stream: IO[str]) -> str:
    """``text`` in a colour, where ``stream`` takes colours."""
    return f"\033[{_CODES[colour]}m{text}\033[0m" if wants_colour(stream) else text


def columns_of(stream: IO[str]) -> int | None:
    """The columns of a terminal; None for a file or a pipe, whose lines are as long as they are."""
    if not stream.isatty():
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def wrapped(text: str, columns: int | None, *, hang: int = 0) -> str:
    """``text`` broken between words to so many columns; each line of it goes on under itself.

    What has no spaces, such as a path, is never broken. ``hang`` is the indent of what follows
    the first line.
    """
    if columns is None:
        return text
    return "\n".join(
        textwrap.fill(
            line,
            columns,
            subsequent_indent=" " * (hang + len(line) - len(line.lstrip())),
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        )
        for line in text.splitlines()
    )


def fitted(text: str, columns: int | None) -> str:
    """Lines of ``name  value`` wrapped so that a value goes on under itself.

    >>> print(fitted("axes   z 16, y 96 and x 96 micrometer wide", columns=40))
    axes   z 16, y 96 and x 96 micrometer
           wide
    """
    if columns is None:
        return text
    return "\n".join(wrapped(line, columns, hang=_hang(line, columns)) for line in text.split("\n"))


def _hang(line: str, columns: int) -> int:
    """How far the value stands behind the line's own indent; 2 where there is none."""
    named = _NAMED.match(line)
    hang = len(named[0]) - (len(line) - len(line.lstrip())) if named else 2
    return hang if hang <= columns // 2 else 2


def table_text(rows: Iterable[Sequence[str]], columns: int | None = None) -> str:
    """Rows of cells, aligned two spaces apart; the last cell is wrapped under itself.

    >>> print(table_text([("read", "2 GB"), ("memory", "at most 3 GB a worker")], columns=24))
    read    2 GB
    memory  at most 3 GB a
            worker
    """
    rows = [tuple(row) for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*(row[:-1] for row in rows), strict=True)]
    indent = sum(width + 2 for width in widths)
    lines = []
    for *cells, last in rows:
        head = "".join(f"{cell:<{w}}  " for cell, w in zip(cells, widths, strict=True))
        room = None if columns is None else max(NARROWEST // 2, columns - indent)
        body = wrapped(last, room).splitlines() or [""]
        lines += [f"{head}{body[0]}".rstrip(), *(f"{'':{indent}}{line}" for line in body[1:])]
    return "\n".join(lines)
