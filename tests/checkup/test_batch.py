"""Batch systems by their programs, and presets by what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2v_scale.checkup.batch import PROGRAMS, judge_programs, look_at_batch, systems_of
from n2v_scale.cluster_settings import BATCH_SYSTEMS


def test_every_batch_system_has_programs() -> None:
    assert set(PROGRAMS) == set(BATCH_SYSTEMS)


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_a_batch_system_is_known_by_its_programs(system: str) -> None:
    assert systems_of(PROGRAMS[system]) == [system]
    assert judge_programs(PROGRAMS[system], jobqueue=True).level == "ok"


def test_none_is_well_too() -> None:
    check = judge_programs((), jobqueue=False)
    assert (check.level, check.seen) == ("ok", "no batch system here: computes on this machine")


def test_what_a_batch_system_lacks() -> None:
    without = judge_programs(PROGRAMS["slurm"], jobqueue=False)
    assert (without.level, without.remedy) == ("note", "pip install 'n2v-scale[slurm]'")
    half = judge_programs(("sbatch", "squeue"), jobqueue=True)
    assert (half.level, half.seen) == ("note", "slurm lacks scancel, scontrol")


def test_presets_that_do_not_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "n2v-scale" / "clusters"
    folder.mkdir(parents=True)
    (folder / "good.toml").write_text('system = "slurm"\n')
    (folder / "odd.toml").write_text('system = "slurm"\npartion = "gpu"\n')
    (folder / "torn.toml").write_text("system = \n")
    _, good, odd, torn = look_at_batch()
    assert (good.level, good.seen) == ("ok", "--cluster good")
    assert odd.level == torn.level == "problem"
    assert "partion: there is no such setting (did you mean partition?)" in odd.seen
    assert odd.remedy == f"correct {folder / 'odd.toml'}"
    assert "not a readable TOML file" in torn.seen
