"""Durations, as people write them."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2v_scale.config import TrainSettings, read_settings
from n2v_scale.durations import parse_duration
from n2v_scale.errors import ConfigError
from n2v_scale.options import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20ms", 0.02),
        ("90", 90),
        ("0.5", 0.5),
        ("5min", 300),
        ("5 minutes", 300),
        ("5m", 300),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("2 Days", 172_800),
        ("1w", 604_800),
        ("02:30:00", 9000),
        ("2:30", 9000),
        ("100:00:00", 360_000),
        ("1-12:00:00", 129_600),
        ("  3 secs ", 3),
    ],
)
def test_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "5 months", "min", "-5s", "1h-30m", "2:75", "02:30:60", "1:2", "5s x", "1e3"],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration, such as 90s, 5min or 02:30:00"):
        parse_duration(text)


@given(
    days=st.integers(0, 30),
    hours=st.integers(0, 23),
    minutes=st.integers(0, 59),
    seconds=st.integers(0, 59),
)
def test_clocks_and_words_say_the_same(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert parse_duration(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == total
    assert parse_duration(f"{days * 24 + hours}:{minutes:02}:{seconds:02}") == total
    assert parse_duration(f"{days}d{hours}h{minutes}min{seconds}s") == total


def test_the_command_line_takes_them() -> None:
    assert Duration().convert("5min", None, None) == 300
    for text in ("0s", "often"):
        with pytest.raises(click.BadParameter, match=f"'{text}' is no duration, such as 5min"):
            Duration().convert(text, None, None)


def test_toml_takes_them(tmp_path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('[train]\ncheckpoint-every = "5min"\n')
    assert read_settings(TrainSettings, file).checkpoint_every == 300
    file.write_text('[train]\ncheckpoint-every = "often"\n')
    with pytest.raises(ConfigError, match="checkpoint-every: this is no duration, such as 5min"):
        read_settings(TrainSettings, file)
