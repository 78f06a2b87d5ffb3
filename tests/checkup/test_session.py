"""Terminal and clock."""

from __future__ import annotations

from n2v_scale.checkup.session import SessionSeen, judge_clock, judge_terminal, look_at_session

SEEN = SessionSeen("utf-8", 80, colour=True, now=1_800_000_000)


def test_a_terminal() -> None:
    assert judge_terminal(SEEN).seen == "utf-8, 80 columns, colours"
    file = SessionSeen("UTF-8", None, colour=False, now=0)
    assert (judge_terminal(file).level, judge_terminal(file).seen) == (
        "ok",
        "UTF-8, a file or a pipe, no colours",
    )
    latin = judge_terminal(SessionSeen("iso8859-1", 80, colour=False, now=0))
    assert latin.level == "note"
    assert "PYTHONUTF8=1" in latin.remedy


def test_the_clock() -> None:
    assert (judge_clock(SEEN).level, judge_clock(SEEN).seen) == ("ok", "2027-01-15 08:00:00 UTC")
    assert judge_clock(SessionSeen("utf-8", None, colour=False, now=0)).level == "problem"
    assert [check.what for check in look_at_session()] == ["terminal", "clock"]
