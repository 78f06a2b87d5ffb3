"""What the command line says of clusters, where there is none."""

from __future__ import annotations

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
