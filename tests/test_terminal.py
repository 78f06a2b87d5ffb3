"""What a terminal shows, and what a log file gets."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
import zarr

from n2v_scale import __version__, cli
from n2v_scale.command_group import Commands
from n2v_scale.errors import system_error_text
from n2v_scale.shell import say_written
from n2v_scale.terminal import (
    columns_of,
    fitted,
    is_terminal,
    paint,
    prepare_streams,
    table_text,
    wants_colour,
    wrapped,
)


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


def test_values_go_on_under_themselves():
    text = "axes   z 16, y 96 and x 96 micrometer wide\n  mean error  5.026 of something long here"
    assert fitted(text, None) == text
    assert fitted(text, 40).splitlines() == [
        "axes   z 16, y 96 and x 96 micrometer",
        "       wide",
        "  mean error  5.026 of something long",
        "              here",
    ]
    assert fitted("a\n\nb", 40) == "a\n\nb"


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


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_pipe_that_is_closed_ends_it_quietly(closed):
    """As after ``| head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "n2v_scale", *(["--help"] if closed == "stdout" else ["x"])]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, closed: writing}
    done = subprocess.run(command, check=False, **options)
    os.close(writing)
    assert done.returncode in (1, 2)
    assert not done.stderr
    assert not done.stdout


def test_streams_that_are_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    prepare_streams()
    sys.stdout.write("nobody reads this")
    sys.stderr.write("nor this")
    sys.stdout.close()
    sys.stderr.close()


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "2 × 0.4 µm …".encode()),
        ("latin-1", "2 × 0.4 µm ...".encode("latin-1")),
        ("cp437", b"2 x 0.4 \xe6m ..."),
        ("ascii", "2 × 0.4 µm …".encode()),
    ],
)
def test_no_letter_stops_a_run(monkeypatch, encoding, written):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    prepare_streams()
    click.echo("2 × 0.4 µm …", nl=False)
    assert raw.getvalue() == written


def test_names_of_files_are_written_as_they_are(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    prepare_streams()
    click.echo(os.fsdecode(b"bad\xff\xfename"), nl=False)
    assert raw.getvalue() == b"bad\xff\xfename"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    prepare_streams()
    sys.stdout.write("雪")
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"\\u96ea"


def test_the_versions_load_nothing(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["n2v-scale", "--version"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    first, second = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0
    assert first == f"n2v-scale {__version__}"
    assert "torch 2" in second
    code = (
        "import sys\n"
        "from n2v_scale.cli import cli\n"
        "for words in (['--version'], ['train', '--help'], ['completion', 'fish']):\n"
        "    cli.main(words, standalone_mode=False)\n"
        "heavy = ('torch', 'zarr', 'dask', 'numpy', 'scipy', 'pydantic', 'rich')\n"
        "assert not [name for name in heavy if name in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_errors_are_coloured_where_colours_are_wanted(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "argv", ["n2v-scale", "info", str(tmp_path)])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"\x1b[31;1merror:\x1b[0m {tmp_path} is an empty folder\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/o"), "/o: Permission denied; name a"),
        (OSError(errno.ENOSPC, "No space left"), "No space left; free some space"),
        (OSError("what a library says"), "what a library says"),
    ],
)
def test_what_the_system_refuses_has_a_remedy(error, text):
    assert system_error_text(error).startswith(text)


def summary(**changes):
    values = {
        "output": "o.zarr", "blocks": 4, "computed": 0, "missing": 0, "lower_missing": 0,
        "voxels": 0, "skipped": 0, "already_finished": False, "no_posterior": None, "seconds": 0.2,
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["o.zarr: all blocks were there; lower resolutions and metadata in 0 s"]),
        (
            {"lower_missing": 3},
            [
                "o.zarr: all blocks were there, nothing was computed",
                "  lower resolutions still to do: n2v-scale pyramid o.zarr",
            ],
        ),
        (
            {"missing": 2, "lower_missing": 3},
            ["o.zarr: no block was computed", "  2 blocks still to do"],
        ),
    ],
)
def test_what_a_run_without_anything_to_compute_says(capsys, changes, lines):
    say_written(summary(**changes))
    assert capsys.readouterr().out.splitlines() == lines


def test_swapped_arguments_are_recognised(capsys, monkeypatch, tmp_path):
    model, volume = tmp_path / "m", tmp_path / "v.zarr"
    model.mkdir()
    (model / "model.json").write_text("{}")
    zarr.create_array(volume, shape=(4, 8, 8), dtype="uint16")
    for arguments in ((model, volume, tmp_path / "o"), (volume, volume, tmp_path / "o")):
        monkeypatch.setattr(sys, "argv", ["n2v-scale", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        assert "the volume comes first, then the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("plan", "v", "m", "--memory", "1e400GB"), 2, "is no amount of memory"),
        (("diagnose", "v", "--plot", "x.nonsense"), 2, "has to end in .png, .svg, .pdf"),
        (("simulate", "OUT", "--shape", "99999999"), 1, "choose a smaller --shape"),
        (("demo", "OUT", "--minutes", "-1"), 2, "--minutes"),
        (("cluster", "check", "--cluster", "tls://127.0.0.1:1"), 1, "needs --tls-ca, --tls-cert"),
    ],
)
def test_wrong_numbers(capsys, monkeypatch, tmp_path, arguments, code, words):
    given = [str(tmp_path / "o") if word == "OUT" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["n2v-scale", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())
