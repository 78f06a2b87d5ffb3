"""What a user sees of a long step."""

from __future__ import annotations

import io

import pytest

from n2v_scale import progress as progress_module
from n2v_scale.progress import (
    BarProgress,
    LineProgress,
    NoProgress,
    amount_text,
    clock,
    progress_for,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def tick(monkeypatch):
    """A clock that a test turns."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (8.4, "8 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (123, "2:03"),
        (3599.7, "1:00:00"),
        (3723, "1:02:03"),
        (100 * 3600, "100:00:00"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (0, "step", "0 steps"),
        (1, "step", "1 step"),
        (1500, "step", "1500 steps"),
        (0.25, "step", "0.25 steps"),
        (2.04, "block", "2 blocks"),
        (12.3, "block", "12 blocks"),
        (99.7, "step", "100 steps"),
        (999, "voxel", "999 voxels"),
        (1000, "voxel", "1 kvoxel"),
        (3.21e6, "voxel", "3.21 Mvoxel"),
        (999.7e6, "voxel", "1000 Mvoxel"),
        (2.5e9, "B", "2.5 GB"),
        (1.2e12, "B", "1.2 TB"),
        (1.5e15, "B", "1500 TB"),
        (75, "s", "1:15"),
    ],
)
def test_amounts_have_units_and_no_exponent(amount, unit, text):
    assert amount_text(amount, unit) == text


def test_lines_tell_share_rate_and_time_left(tick):
    stream = io.StringIO()
    with LineProgress(stream).step("training", 1000, "step") as step:
        tick(2)
        step.advance(50)
        assert stream.getvalue() == ""
        tick(8)
        step.advance(50, "loss 0.5")
        assert stream.getvalue() == (
            "training: 100 steps of 1000 steps (10%), 10 steps/s, 1:30 left, loss 0.5\n"
        )
        tick(4)
        step.advance(200)
        assert stream.getvalue().count("\n") == 1
        tick(2)
        step.advance(700)
    assert stream.getvalue().splitlines()[1:] == ["training: 1000 steps in 16 s"]


def test_a_log_of_a_day_is_not_flooded(tick):
    stream = io.StringIO()
    with LineProgress(stream).step("training", 24 * 3600 + 1, "step") as step:
        for _ in range(24 * 3600):
            tick(1)
            step.advance(1)
    lines = stream.getvalue().splitlines()
    assert 100 < len(lines) < 250
    assert len([line for line in lines if "training: " in line]) == len(lines)
    assert lines[0].startswith("training: 5 steps of")


def test_lines_tell_voxels_and_clocks(tick):
    stream = io.StringIO()
    with LineProgress(stream).step("predicting", 4e9, "voxel") as step:
        tick(10)
        step.advance(1e9)
    assert stream.getvalue().splitlines() == [
        "predicting: 1 Gvoxel of 4 Gvoxel (25%), 100 Mvoxel/s, 30 s left",
        "predicting: 1 Gvoxel in 10 s",
    ]


def test_a_step_measured_in_seconds(tick):
    stream = io.StringIO()
    with LineProgress(stream).step("training", 120, "s") as step:
        tick(30)
        step.advance(30)
    assert stream.getvalue().splitlines()[0] == "training: 30 s of 2:00 (25%), 1:30 left"


def test_a_step_without_anything_to_do_says_so():
    stream = io.StringIO()
    with LineProgress(stream).step("writing", 0, "block") as step:
        step.advance(0)
    assert stream.getvalue() == "writing: 0 blocks in 0 s\n"


def test_a_step_that_fails_is_not_called_done():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), LineProgress(stream).step("writing", 3, "block"):
        raise RuntimeError
    assert stream.getvalue() == ""


def test_said_lines_stay():
    stream = io.StringIO()
    LineProgress(stream).say("fitting [the] filter")
    assert stream.getvalue() == "fitting [the] filter\n"


def test_no_progress_shows_nothing(capsys):
    quiet = NoProgress()
    with quiet.step("training", 10, "step") as step:
        step.advance(3, "note")
    quiet.say("text")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_bars_and_a_pipe_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(Terminal()), LineProgress)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(Terminal()), BarProgress)
    assert isinstance(progress_for(io.StringIO()), LineProgress)


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
@pytest.mark.parametrize(("total", "unit"), [(4, "block"), (0, "block"), (60.0, "s")])
def test_a_bar_works_on_a_terminal_and_off_it(stream, total, unit):
    bars = BarProgress(stream)
    with bars.step("predicting", total, unit) as step:
        for _ in range(4):
            step.advance(total / 4, "loss [0.5]")
        bars.say("[bold]a line[/bold]")
    text = stream.getvalue()
    assert "predicting" in text
    assert "[bold]a line[/bold]" in text
    assert "100%" in text or not total
