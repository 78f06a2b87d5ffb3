"""The examination as a whole."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from n2v_scale import cli, doctor
from n2v_scale.checkup.check import Check, guarded, note, ok, problem

FINDINGS = [ok("gpu", "none"), note("memory", "little", "--workers 1"), ok("clock", "right")]
BROKEN = [*FINDINGS, problem("folder", "/data cannot be written to", "name another")]


def test_the_text() -> None:
    text = doctor.examination_text(FINDINGS, io.StringIO(), None)
    assert text.splitlines()[1:] == [
        "ok    gpu     none",
        "note  memory  little",
        "              remedy: --workers 1",
        "ok    clock   right",
        "nothing stops a run; 1 note",
    ]
    assert doctor.examination_text(BROKEN, io.StringIO(), None).splitlines()[-3:] == [
        "problem  folder  /data cannot be written to",
        "                 remedy: name another",
        "1 problem would stop a run; 1 note",
    ]


def test_colours_mean_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = doctor.examination_text(BROKEN, io.StringIO(), 80)
    for level, code in (("ok", "32"), ("note", "33"), ("problem", "31;1")):
        assert f"\x1b[{code}m{level}\x1b[0m" in text


def test_what_cannot_be_looked_at_is_a_problem() -> None:
    def fail() -> list[Check]:
        raise ImportError("numpy.core failed\nmore")

    (check,) = guarded("codecs", fail)
    assert (check.level, check.seen) == (
        "problem",
        "cannot be looked at: ImportError: numpy.core failed",
    )


@pytest.mark.parametrize(("findings", "code"), [(FINDINGS, 0), (BROKEN, 1)])
def test_the_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[Check],
    code: int,
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda _: findings)
    monkeypatch.setattr(sys, "argv", ["n2v-scale", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    told = json.loads(capsys.readouterr().out)
    assert [check["level"] for check in told] == [check.level for check in findings]


def test_this_machine_can_be_examined(tmp_path: Path) -> None:
    found = doctor.examine(str(tmp_path))
    assert {check.what for check in found} >= {
        "python", "torch", "gpu", "codecs", "tiff", "cluster", "cores", "memory", "open files",
        "workers", "folder", "temporary", "home", "terminal", "clock",
    }  # fmt: skip
    assert not [check for check in found if "cannot be looked at" in check.seen]
    assert all(check.remedy for check in found if check.level != "ok")
    assert not list(tmp_path.iterdir())
