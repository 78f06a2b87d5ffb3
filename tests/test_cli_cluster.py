"""What the command line says of clusters, where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from n2v_scale.cli import main

CONFIG = '[cluster]\nsystem = "slurm"\npartition = "gpu"\ngpus = 1\nmemory = "8GB"\n'


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "c.toml").write_text(CONFIG + f'shared = "{tmp_path}"\n')
    return f"--cluster-config={tmp_path / 'c.toml'}"


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["n2v-scale", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(ended.value.code or 0), out, err


def test_the_script_of_a_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: str
) -> None:
    code, out, err = said(monkeypatch, capsys, "cluster", "script", config)
    assert (code, err) == (0, "")
    assert "#SBATCH -p gpu\n" in out
    assert "#SBATCH --gres=gpu:1\n" in out
    assert "-m n2v_scale.worker tls://SCHEDULER:PORT" in out


def test_a_script_is_for_a_batch_system(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(monkeypatch, capsys, "cluster", "script")
    assert code == 1
    assert "--cluster slurm, for example" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "--submit-only needs a batch system"),
        (("CONFIG", "--storage-option", "secret=hush"), "into the job's script"),
    ],
)
def test_what_cannot_be_submitted(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    config: str,
    tmp_path: Path,
    more: tuple[str, ...],
    message: str,
) -> None:
    options = [config if option == "CONFIG" else option for option in more]
    paths = [str(tmp_path / name) for name in ("v.zarr", "m.n2v", "o.zarr")]
    code, _, err = said(monkeypatch, capsys, "predict", *paths, "--submit-only", *options)
    assert code == 2
    assert message in " ".join(err.split())
    assert "hush" not in err
