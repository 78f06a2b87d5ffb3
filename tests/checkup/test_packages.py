"""Versions against ranges, with packages that nobody has."""

from __future__ import annotations

import pytest

from n2v_scale.checkup import packages
from n2v_scale.checkup.packages import (
    Wanted,
    judge_extras,
    judge_packages,
    judge_python,
    look_at_packages,
    read_requirements,
)

LINES = [
    "numpy>=1.26",
    "torch>=2.4",
    "tomli; python_version < '3'",
    "matplotlib>=3.8; extra == 'report'",
    "dask-jobqueue>=0.9; extra == 'slurm'",
    "pytest>=8; extra == 'test'",
    "n2v-scale[report,slurm]; extra == 'all'",
]
INSTALLED = {"numpy": "2.4.6", "torch": "2.13.0+cpu", "matplotlib": "3.10.0"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed; a test may change it."""
    there = dict(INSTALLED)
    monkeypatch.setattr(packages, "installed", there.get)
    return there


def test_the_metadata_is_read(installed: dict[str, str]) -> None:
    assert read_requirements(LINES) == [
        Wanted("numpy", ">=1.26", "2.4.6"),
        Wanted("torch", ">=2.4", "2.13.0+cpu"),
        Wanted("matplotlib", ">=3.8", "3.10.0", "report"),
        Wanted("dask-jobqueue", ">=0.9", None, "slurm"),
        Wanted("pytest", ">=8", None, "test"),
    ]


def test_all_that_a_run_needs(installed: dict[str, str]) -> None:
    (check,) = judge_packages(read_requirements(LINES))
    assert (check.level, check.seen) == (
        "ok",
        "all 2 in their ranges: numpy 2.4.6, torch 2.13.0+cpu",
    )


def test_what_is_missing_or_too_old(installed: dict[str, str]) -> None:
    installed["torch"] = "2.3.1"
    del installed["numpy"]
    lacking, old = judge_packages(read_requirements(LINES))
    assert lacking.level == old.level == "problem"
    assert lacking.seen == "numpy is not installed, and numpy>=1.26 is wanted"
    assert lacking.remedy == "pip install 'numpy>=1.26'"
    assert old.seen == "torch 2.3.1, and torch>=2.4 is wanted"


def test_extras_are_no_problem(installed: dict[str, str]) -> None:
    there, missing = judge_extras(read_requirements(LINES))
    assert (there.level, there.seen) == ("ok", "installed: report")
    assert (missing.level, missing.remedy) == (
        "note",
        "where wanted: pip install 'n2v-scale[slurm]'",
    )
    assert "slurm (jobs of a batch system): dask-jobqueue>=0.9" in missing.seen
    assert "test" not in missing.seen
    installed["dask-jobqueue"] = "0.9.0"
    (all_there,) = judge_extras(read_requirements(LINES))
    assert all_there.seen == "installed: report, slurm"


@pytest.mark.parametrize(
    ("version", "level"), [("3.11.2", "ok"), ("3.15.0b1", "ok"), ("3.10.9", "problem")]
)
def test_python(version: str, level: str) -> None:
    assert judge_python(version, ">=3.11").level == level


def test_from_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise packages.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "requires", fail)
    python, source = look_at_packages()
    assert (python.level, source.level) == ("ok", "note")
    assert "is run from its source" in source.seen
