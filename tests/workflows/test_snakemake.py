"""The Snakemake workflow: run for real, run again, broken and taken up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("snakemake", reason="pip install 'n2v-scale[workflows]'")
pytestmark = pytest.mark.workflows

STEPS = ["import", "diagnose", "train", "predict", "verify", "evaluate"]
CAMERA = "--gain 2.2 --offset 100 --read-noise 3.5"
DEADLINE_S = 120.0
BLOCKS = 36


class Workflow:
    """A folder in which Snakemake is run."""

    def __init__(self, snakefile, folder, stacks, **config):
        self.snakefile, self.folder = snakefile, folder
        self.config = {
            "input": str(stacks / "noisy.tif"),
            "reference": str(stacks / "clean.tif"),
            "output": "out",
            "method": "linear",
            "retries": 0,
            "options": {
                "import": "--chunk 16 --shard 16 --voxel-size 2,0.4,0.4",
                "predict": "--block 16 --tile 16 --chunk 16 --shard 16 --workers 1",
                "evaluate": CAMERA,
            },
            **config,
        }

    @property
    def out(self):
        return self.folder / "out"

    def command(self, *more):
        file = self.folder / "mine.json"
        file.write_text(json.dumps(self.config))
        where = ["--snakefile", self.snakefile, "--directory", self.folder]
        return [sys.executable, "-m", "snakemake", *where, "--configfile", file, *more]

    def start(self, *more):
        first = [str(self.folder / "bin"), str(Path(sys.executable).parent)]
        path = os.pathsep.join([*first, os.environ["PATH"]])
        return subprocess.Popen(
            self.command(*more),
            env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *more):
        """(exit code, what it said)."""
        process = self.start(*(more or ("--cores", "1")))
        said, _ = process.communicate(timeout=600)
        return process.returncode, said

    def summary(self, name):
        return json.loads((self.out / f"{name}.json").read_text())

    def log(self, name):
        return (self.out / "logs" / f"{name}.log").read_text()

    def times(self):
        return {file.name: file.stat().st_mtime_ns for file in self.out.glob("*.json")}

    def taken_back(self, folder, **config):
        """A copy of this run as it was before the prediction."""
        shutil.copytree(self.folder, folder)
        copy = Workflow(self.snakefile, folder, Path(self.config["input"]).parent)
        copy.config = self.config | config
        shutil.rmtree(copy.out / "denoised.zarr")
        for name in ("predict", "verify", "evaluate", "report"):
            (copy.out / f"{name}.json").unlink()
        (copy.out / "report.html").unlink()
        (copy.out / "logs" / "predict.log").unlink()
        return copy


@pytest.fixture(scope="module")
def snakefile(workflows):
    return workflows / "snakemake" / "Snakefile"


@pytest.fixture(scope="module")
def finished(snakefile, stacks, tmp_path_factory):
    """A run of the whole workflow."""
    workflow = Workflow(snakefile, tmp_path_factory.mktemp("whole"), stacks)
    code, said = workflow.run()
    assert code == 0, said
    return workflow


def test_the_report_holds_what_every_step_said(finished):
    report = finished.summary("report")
    assert list(report) == STEPS
    for name in STEPS:
        assert report[name] == finished.summary(name)
    assert report["diagnose"]["recommendation"]["method"]
    assert report["train"]["method"] == "linear"
    assert (report["predict"]["computed"], report["predict"]["missing"]) == (BLOCKS, 0)
    assert report["verify"]["whole"]
    assert report["evaluate"]["psnr"] > 20
    assert report["evaluate"]["estimate"]["noise_known"]


def test_the_page_shows_the_run(finished):
    page = (finished.out / "report.html").read_text()
    assert "Against the reference, the PSNR rose from" in page
    assert str(finished.out / "denoised.zarr") in page


def test_nothing_is_done_twice(finished):
    before = finished.times()
    code, said = finished.run()
    assert code == 0
    assert "Nothing to be done" in said
    assert finished.times() == before
    assert set(before) == {f"{name}.json" for name in [*STEPS, "report"]}


def test_a_prediction_that_fails_goes_on(finished, tmp_path):
    """A chunk that cannot be read: exit code 3, and the other blocks stay."""
    workflow = finished.taken_back(tmp_path / "w", retries=1)
    before = workflow.times()
    chunk = workflow.out / "volume.zarr" / "0" / "c" / "0" / "0" / "0"
    intact, written = chunk.read_bytes(), chunk.stat()

    def replace(content):
        chunk.write_bytes(content)
        os.utime(chunk, ns=(written.st_atime_ns, written.st_mtime_ns))

    replace(bytes(len(intact)))
    code, said = workflow.run()
    assert code == 1
    assert "exit status 3" in said
    assert said.count("Trying to restart job") == 1
    assert "cannot read box" in workflow.log("predict")
    assert not (workflow.out / "predict.json").exists()
    replace(intact)
    code, said = workflow.run()
    assert code == 0, said
    assert 1 <= workflow.summary("predict")["computed"] < BLOCKS / 2
    assert workflow.summary("verify")["whole"]
    assert before.items() <= workflow.times().items()  # what came before was not done again


def test_ctrl_c_and_again(finished, tmp_path):
    workflow = finished.taken_back(tmp_path / "w")
    process = workflow.start("--cores", "1")
    done = workflow.out / "denoised.zarr" / "0" / "n2v_scale.ledger" / "blocks"
    end = time.monotonic() + DEADLINE_S
    while not (done.exists() and any(done.iterdir())):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode != 0, said
    assert "interrupted" in workflow.log("predict")
    assert not (workflow.out / "predict.json").exists()
    code, said = workflow.run()
    assert code == 0, said
    assert 0 < workflow.summary("predict")["computed"] < BLOCKS
    assert workflow.summary("verify")["whole"]


def test_the_configuration_becomes_the_command_lines(snakefile, stacks, tmp_path):
    workflow = Workflow(
        snakefile,
        tmp_path,
        stacks,
        input="s3://bucket/volume.zarr",
        reference="",
        **{"import": False, "method": "auto", "minutes": 7},
        cluster="slurm",
        jobs=3,
        cluster_config="our cluster.toml",
        options={"train": "--filters 16", "predict": "--memory 16GB"},
    )
    code, said = workflow.run("--dry-run", "--printshellcmds", "--cores", "1")
    assert code == 0, said
    lines = re.findall(r"n2v-scale .*(?= --json > )", said)
    on_slurm = "--cluster slurm --jobs 3 --cluster-config 'our cluster.toml'"
    expected = {
        "diagnose": "s3://bucket/volume.zarr",
        "train": "s3://bucket/volume.zarr --output out/model.n2v --method auto "
        f"--minutes 7 {on_slurm} --filters 16",
        "predict": "s3://bucket/volume.zarr out/model.n2v out/denoised.zarr "
        f"{on_slurm} --memory 16GB",
        "verify": "out/denoised.zarr",
        "evaluate": "out/denoised.zarr --noisy s3://bucket/volume.zarr",
    }
    begun = [" ".join(line.split()) for line in lines]
    assert sorted(begun) == sorted(f"n2v-scale {name} {rest}" for name, rest in expected.items())


def test_what_is_missing_is_named(snakefile, stacks, tmp_path):
    workflow = Workflow(snakefile, tmp_path, stacks, output="")
    code, said = workflow.run("--dry-run", "--cores", "1")
    assert code == 1
    assert "output is not set" in said


def find_slurm_again(folder):
    """Snakemake's jobs forget all SLURM_*, and a SLURM that is not in /etc is found by one."""
    folder.mkdir()
    script, real = folder / "srun", shutil.which("srun")
    script.write_text(f'#!/bin/sh\nSLURM_CONF={os.environ["SLURM_CONF"]} exec {real} "$@"\n')
    script.chmod(0o755)


@pytest.mark.slurm
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    not os.environ.get("SLURM_CONF") or shutil.which("sbatch") is None,
    reason="no SLURM: SLURM_CONF is not set, or there is no sbatch",
)
def test_every_rule_is_a_job_of_slurm(snakefile, stacks, tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    workflow = Workflow(snakefile, tmp_path, stacks)
    profile = snakefile.parent / "profiles" / "slurm"
    find_slurm_again(tmp_path / "bin")
    quick = ["--seconds-between-status-checks", "1", "--latency-wait", "20"]
    quick += ["--slurm-init-seconds-before-status-checks", "1"]
    here = ["--slurm-status-command", "squeue"]  # there is no database
    resources = ["train:gres=gpu:1", "train:slurm_partition=urgent"]
    few = [f"{rule}:mem_mb=1000" for rule in ("import_volume", *STEPS[1:])]
    few += ["--set-threads", "train=8", "predict=6"]
    code, said = workflow.run(
        "--profile", profile, *quick, *here, "--set-resources", *resources, *few
    )
    assert code == 0, said
    assert list(workflow.summary("report")) == STEPS
    jobs = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--format=%k|%T|%P|%m|%C|%b"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    rows = [line.split("|") for line in jobs if line.startswith("rule_")]  # others are not ours
    found = {rule: states for rule, *states in rows}
    assert set(found) == {f"rule_{name}" for name in ("import_volume", *STEPS[1:], "report")}
    assert {states[0] for states in found.values()} == {"COMPLETED"}
    assert found["rule_train"][1] == "urgent"
    assert found["rule_train"][2] == "1000M"
    assert (found["rule_train"][3], found["rule_predict"][3]) == ("8", "6")
    assert "gpu" in found["rule_train"][4]
