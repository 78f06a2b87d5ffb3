"""What a terminal shows, and what a log file gets."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import click
import pytest

from n2v_scale import cli
from n2v_scale.command_group import Commands
from n2v_scale.terminal import columns_of, is_terminal, paint, table_text, wants_colour, wrapped


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


TTY, FILE = Terminal(), io.StringIO()


def commands(group=cli.cli, above=()):
    for name, command in group.commands.items():
        yield (*above, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))


def help_of(names, command, columns):
    context = click.Context(cli.cli, info_name="n2v-scale", terminal_width=columns - 2)
    for name in names:
        context = click.Context(command, parent=context, info_name=name)
    return command.get_help(context)


@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(columns):
    listing = help_of((), cli.cli, columns)
    assert "..." not in listing.split("Commands:")[1], "a command's first sentence is cut off"
    texts = [listing, *(help_of(names, command, columns) for names, command in commands())]
    long = [line for text in texts for line in text.splitlines() if len(line) > columns]
    assert not long


@pytest.mark.parametrize(
    ("environment", "on_a_terminal", "in_a_file"),
    [
        ({"TERM": "xterm"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
        ({"TERM": "xterm", "FORCE_COLOR": "0"}, True, False),
        ({"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_who_gets_colours(environment, on_a_terminal, in_a_file):
    assert wants_colour(TTY, environment) is on_a_terminal
    assert wants_colour(FILE, environment) is in_a_file


@pytest.mark.parametrize("name", ["", "dumb", "unknown"])
def test_a_terminal_without_a_cursor_gets_lines(name):
    assert not is_terminal(TTY, {"TERM": name})
    assert not is_terminal(FILE, {"TERM": "xterm"})
    assert is_terminal(TTY, {"TERM": "xterm"})


def test_paint(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert paint("error:", "red", TTY) == "\x1b[31;1merror:\x1b[0m"
    assert paint("error:", "red", FILE) == "error:"


def test_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert columns_of(TTY) == 80
    assert columns_of(FILE) is None
    monkeypatch.setenv("COLUMNS", "7")
    assert columns_of(TTY) == 40


def test_text_is_wrapped_between_words_and_paths_are_left_whole():
    path = "/" + "x" * 60
    text = f"error: {path}: there is no such folder\n  block 1: it cannot be read at all"
    assert wrapped(text, None) == text
    assert wrapped(text, 40, hang=2).splitlines() == [
        "error:",
        f"  {path}:",
        "  there is no such folder",
        "  block 1: it cannot be read at all",
    ]
    assert wrapped("  one two three", 10, hang=2).splitlines() == ["  one two", "    three"]


def test_tables_are_aligned_and_wrapped_under_themselves():
    rows = [("a", "long name", "one"), ("bcd", "x", "two three four five six seven")]
    assert table_text(rows) == (
        "a    long name  one\nbcd  x          two three four five six seven"
    )
    assert table_text(rows, 40).splitlines()[1:] == [
        "bcd  x          two three four five six",
        "                seven",
    ]


def test_a_mistyped_command_is_guessed():
    context = click.Context(cli.cli)
    with pytest.raises(click.UsageError) as refused:
        cli.cli.resolve_command(context, ["predcit"])
    assert refused.value.format_message().count("Did you mean 'predict'?") == 1
    with pytest.raises(click.UsageError) as refused:
        cli.cli.resolve_command(context, ["qqq"])
    assert "Did you mean" not in refused.value.format_message()
    groups = [command for _, command in commands() if isinstance(command, click.Group)]
    assert groups
    assert all(isinstance(group, Commands) for group in groups)


def call(*arguments, environment=None, **options):
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "n2v_scale", *map(str, arguments)]
    told = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, check=False, env=told, **options)
