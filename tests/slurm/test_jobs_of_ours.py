"""Commands that look at a cluster, drivers that are jobs themselves, and the sbatch workflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..commands import Start
from .conftest import Scene, cancel_all, queue, slurm, until

WORKFLOW = Path(__file__).parents[2] / "workflows" / "slurm" / "denoise.sbatch"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    cancel_all()


def test_script_submits_nothing(scene: Scene, start: Start) -> None:
    before = len(queue())
    more = 'account = "lab"\ngpus = 1\ndirectives = ["--constraint=a100"]\nprologue = ["module x"]'
    run = start(
        "cluster", "script", "--cluster=slurm", f"--cluster-config={scene.config(more=more)}"
    )
    said = run.ends()
    for line in ("-A lab", "-p main", "--gres=gpu:1", "--constraint=a100", "-t 00:10:00"):
        assert f"#SBATCH {line}" in said
    assert "\nmodule x\n" in said
    assert len(queue()) == before


def test_check_tells_what_a_worker_lacks(scene: Scene, start: Start) -> None:
    config = f"--cluster-config={scene.config()}"
    good = start("cluster", "check", "--cluster=slurm", config, "--volume", scene.volume, "--json")
    found = json.loads(good.ends().splitlines()[0])
    assert {finding["what"] for finding in found} >= {"package", "torch", "volume", "gpu"}
    assert all(finding["good"] for finding in found)
    bad = start("cluster", "check", "--cluster=slurm", config, "--model", "/absent.n2v").ends(1)
    assert "BAD  model" in bad
    assert "error: a worker there lacks: model" in bad


def test_training_reads_its_patches_on_the_cluster(
    scene: Scene, start: Start, tmp_path: Path
) -> None:
    """The same weights as with readers here; jobs that are lost do not matter."""
    options = ["--steps=30", "--batch=2", "--patch=8,16,16", "--depth=1", "--threads=1"]
    where = ["--cluster=slurm", "--jobs=2", f"--cluster-config={scene.config()}"]
    there = start("train", scene.volume, "-o", str(tmp_path / "there.n2v"), *options, *where)
    there.until(lambda: queue("RUNNING"), "a job")
    slurm("scancel", queue("RUNNING")[0].number)
    there.ends()
    start("train", scene.volume, "-o", str(tmp_path / "here.n2v"), *options).ends()
    weights = [tmp_path / name / "weights.safetensors" for name in ("there.n2v", "here.n2v")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_driver_itself_is_a_job(scene: Scene, start: Start, tmp_path: Path) -> None:
    output = tmp_path / "o.zarr"
    said = start(*scene.arguments(output, scene.config(), 2, "--submit-only")).ends()
    number = said.split()[1].rstrip(";")
    until(lambda: state_of(number) == "COMPLETED", "the driver's end")
    scene.check(output)


def test_a_driver_whose_walltime_ends_comes_back(
    scene: Scene, start: Start, tmp_path: Path
) -> None:
    """It is warned, stops, is queued again, and goes on."""
    output = tmp_path / "o.zarr"
    said = start(*scene.arguments(output, scene.config(), 1, "--submit-only")).ends()
    number = said.split()[1].rstrip(";")
    until(lambda: list(output.glob("0/n2v_scale.ledger/blocks/*")), "a first block")
    slurm("scancel", "--batch", "--signal=USR1", number)  # as SLURM does before the end
    until(lambda: restarts_of(number) == 1, "its return")
    until(lambda: state_of(number) == "COMPLETED", "the driver's end")
    scene.check(output)


def test_the_workflow_comes_back_until_it_is_done(
    scene: Scene, start: Start, tmp_path: Path
) -> None:
    """Across a walltime that is too short for it."""
    del start
    options = ["--time=1", "--signal=B:USR1@15", "--cpus-per-task=2", "--mem=2G"]
    environment = {
        **os.environ,
        "N2V_SCALE": f"{sys.executable} -m n2v_scale",
        "TRAIN_OPTIONS": "--minutes 1 --batch 2 --patch 8,16,16 --depth 1 --threads 1",
        "PREDICT_OPTIONS": "--workers 1",
    }
    output = tmp_path / "o.zarr"
    done = subprocess.run(
        ["sbatch", "--parsable", *options, str(WORKFLOW), scene.volume, str(output)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    number = done.stdout.strip()
    until(lambda: restarts_of(number) == 1, "its return")
    # SLURM may warn a minute early: with one minute each run has 20 to 45 seconds, and the report,
    # which begins anew each time, takes as many on a busy machine.
    slurm("scontrol", "update", f"JobId={number}", "TimeLimit=5")
    until(lambda: state_of(number) in ("COMPLETED", "FAILED"), "the workflow's end", 400)
    log = (tmp_path / f"n2v-scale-denoise-{number}.log").read_text()
    assert state_of(number) == "COMPLETED", log
    assert restarts_of(number) >= 1
    assert "back into the queue" in log
    found = json.loads(Path(f"{output}.evaluation.json").read_text())
    assert "psnr" in json.dumps(found)


def test_the_workflow_stops_at_a_mistake(tmp_path: Path) -> None:
    environment = {**os.environ, "N2V_SCALE": f"{sys.executable} -m n2v_scale"}
    command = ["sbatch", "--parsable", "--time=5", "--cpus-per-task=1", "--mem=1G", str(WORKFLOW)]
    done = subprocess.run(
        [*command, "absent.zarr", "o.zarr"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    number = done.stdout.strip()
    until(lambda: state_of(number) == "FAILED", "its end", 60)
    assert (
        "absent.zarr does not exist" in (tmp_path / f"n2v-scale-denoise-{number}.log").read_text()
    )


def state_of(number: str) -> str:
    return next((job.state for job in queue() if job.number == number), "")


def restarts_of(number: str) -> int:
    said = slurm("scontrol", "show", "job", number)
    return int(said.partition("Restarts=")[2].split()[0])
