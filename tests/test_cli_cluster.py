"""What the command line says of clusters, where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .commands import Run

CONFIG = '[cluster]\nsystem = "slurm"\npartition = "gpu"\ngpus = 1\nmemory = "8GB"\n'


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "c.toml").write_text(CONFIG + f'shared = "{tmp_path}"\n')
    return f"--cluster-config={tmp_path / 'c.toml'}"


def test_the_script_of_a_job(run: Run, config: str) -> None:
    code, out, err = run("cluster", "script", config)
    assert (code, err) == (0, "")
    assert "#SBATCH -p gpu\n" in out
    assert "#SBATCH --gres=gpu:1\n" in out
    assert "-m n2v_scale.worker tls://SCHEDULER:PORT" in out


def test_printing_a_script_writes_nothing(tmp_path: Path, config: str) -> None:
    """In a process of its own: dask-jobqueue writes when it is imported."""
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "DASK_CONFIG": str(home / "dask")}
    (tmp_path / "c.toml").write_text(f'{CONFIG}shared = "{shared}"\n')
    command = [sys.executable, "-m", "n2v_scale", "cluster", "script", config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"#SBATCH -o {shared}/logs/n2v-scale-%J.out" in done.stdout
    assert not shared.exists()
    assert not list(home.iterdir())


def test_a_script_is_for_a_batch_system(run: Run) -> None:
    code, _, err = run("cluster", "script")
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
    run: Run, config: str, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    options = [config if option == "CONFIG" else option for option in more]
    paths = [str(tmp_path / name) for name in ("v.zarr", "m.n2v", "o.zarr")]
    code, _, err = run("predict", *paths, "--submit-only", *options)
    assert code == 2
    assert message in " ".join(err.split())
    assert "hush" not in err
