"""Predictions as jobs, disturbed in every way that a cluster knows, byte for byte as here."""

from __future__ import annotations

import os
import random
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ..commands import Start
from .conftest import Queued, Scene, cancel_all, queue, slurm, until


@pytest.mark.parametrize("jobs", [2, 3])
def test_it_stores_the_bytes_of_a_local_run(
    scene: Scene, start: Start, tmp_path: Path, jobs: int
) -> None:
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config(), jobs))
    run.until(lambda: len(queue("RUNNING")) == jobs, f"{jobs} jobs")
    run.ends()
    scene.check(tmp_path / "o.zarr")
    assert sorted(run.computed_in_order()) == list(range(scene.blocks))
    until(lambda: not queue("PENDING", "RUNNING", "COMPLETING"), "no job left", 30)


def test_lost_jobs_are_replaced(scene: Scene, start: Start, tmp_path: Path) -> None:
    """Cancelled in the midst of it, and requeued; no block is given up."""
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config()))
    run.reach(3)
    first, second = queue("RUNNING")[:2]
    slurm("scancel", first.number)
    run.until(lambda: {j.number for j in queue("RUNNING")} - {first.number, second.number}, "a new")
    slurm("scontrol", "requeue", second.number)
    said = run.ends()
    scene.check(tmp_path / "o.zarr")
    assert f"job {first.number} is gone (CANCELLED" in said
    assert "0 blocks still to do" not in said


def test_jobs_cancelled_while_they_wait_are_replaced(
    scene: Scene, start: Start, tmp_path: Path
) -> None:
    # Three nodes of eight cores: two jobs of ten cannot start beside others that hold them.
    slurm("sbatch", "--output=/dev/null", "--array=1-3", "-c8", "--wrap=sleep 300")
    until(lambda: len(queue("RUNNING")) == 3, "nodes that are taken")
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config()))
    run.until(lambda: len([j for j in queue("PENDING") if j.name == "n2v-scale"]) == 2, "waiting")
    before = {j.number for j in queue("PENDING")}
    slurm("scancel", *before)
    run.until(
        lambda: len({j.number for j in queue("PENDING") if j.name == "n2v-scale"} - before) == 2,
        "others in their place",
    )
    run.until(lambda: "no worker for" in run.said, "a word on what is awaited")
    assert "PENDING (" in run.said
    slurm("scancel", "--name=wrap")
    run.ends()
    scene.check(tmp_path / "o.zarr")


def test_preempted_jobs_come_back(scene: Scene, start: Start, tmp_path: Path) -> None:
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config()))
    run.reach(3)
    slurm("sbatch", "--output=/dev/null", "-p", "urgent", "--array=1-3", "-c8", "--wrap=sleep 5")
    run.until(lambda: any(j.name == "n2v-scale" for j in queue("PENDING")), "a job that is put off")
    run.ends()
    scene.check(tmp_path / "o.zarr")


def test_jobs_disturbed_at_random(scene: Scene, start: Start, tmp_path: Path) -> None:
    """Cancelled, requeued, and their processes killed, as long as there are any."""
    chance = random.Random(0)
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config(), 3))
    done = []
    while run.process.poll() is None and len(done) < 12:
        run.reach(min(scene.blocks, 2 * len(done) + 1))
        running = [job for job in queue("RUNNING") if job.name == "n2v-scale"]
        if running:
            done.append(disturb(chance.choice(running), chance))
    run.ends()
    scene.check(tmp_path / "o.zarr")
    assert len(done) > 5


def disturb(job: Queued, chance: random.Random) -> str:
    """One thing that clusters do to a job; it may have ended meanwhile."""
    what = chance.choice(["cancel", "requeue", "kill"])
    if what == "kill":
        for process in processes_of(job.number)[-1:]:
            with suppress(psutil.Error):
                process.kill()
    else:
        command = {"cancel": ["scancel"], "requeue": ["scontrol", "requeue"]}[what]
        subprocess.run([*command, job.number], check=False, capture_output=True)
    return what


def processes_of(number: str) -> list[psutil.Process]:
    """What runs in a job, its workers last."""
    steps = [p for p in psutil.process_iter() if f"[{number}." in " ".join(_command_line(p))]
    return [*steps, *(child for step in steps for child in step.children(recursive=True))]


def test_the_walltime_ends_jobs_and_not_the_run(scene: Scene, start: Start, tmp_path: Path) -> None:
    """Workers leave in time, so that no block is begun in vain."""
    more = '\nprologue = ["export N2V_SCALE_ENDS_AT=$(( $(date +%s) + 34 ))"]'
    before = {job.number for job in queue()}
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config(walltime="1min", more=more), 1))
    run.ends()
    scene.check(tmp_path / "o.zarr")
    assert sorted(run.computed_in_order()) == list(range(scene.blocks))
    ours = [job for job in queue() if job.number not in before]
    assert len(ours) > 1
    assert {job.state for job in ours[1:]} == {"COMPLETED"}  # the newest comes first


def test_a_job_that_slurm_ends_at_its_walltime_is_replaced(
    scene: Scene, start: Start, tmp_path: Path
) -> None:
    """Its worker hangs in a block, so that it cannot leave in time."""
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config(walltime="1min"), 1))
    run.reach(3)
    (hung,) = queue("RUNNING")
    for process in processes_of(hung.number):
        if "slurmstepd" not in " ".join(_command_line(process)):
            process.send_signal(signal.SIGSTOP)
    run.until(lambda: f"job {hung.number} is gone (TIMEOUT" in run.said, "the end of its walltime")
    run.ends()
    scene.check(tmp_path / "o.zarr")


def test_a_killed_driver_goes_on(scene: Scene, start: Start, tmp_path: Path) -> None:
    arguments = scene.arguments(tmp_path / "o.zarr", scene.config())
    run = start(*arguments)
    run.reach(5)
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    done = run.computed()
    until(lambda: not queue("RUNNING"), "workers that leave without a scheduler", 90)
    again = start(*arguments)
    again.ends()
    scene.check(tmp_path / "o.zarr")
    assert len(done & again.computed()) <= 2  # computed, but not marked yet
    assert not list((scene.folder / "shared").glob("keys-*"))


def test_interrupted_it_leaves_no_job_and_no_key(
    scene: Scene, start: Start, tmp_path: Path
) -> None:
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config()))
    run.reach(2)
    assert list((scene.folder / "shared").glob("keys-*"))
    run.process.send_signal(signal.SIGTERM)
    assert "interrupted" in run.ends(130)
    until(lambda: not queue("PENDING", "RUNNING", "COMPLETING"), "no job left", 30)
    assert not list((scene.folder / "shared").glob("keys-*"))


def test_a_refused_job_is_told_at_once(scene: Scene, start: Start, tmp_path: Path) -> None:
    said = start(*scene.arguments(tmp_path / "o.zarr", scene.config(partition="absent"))).ends(1)
    assert "takes no job: sbatch: error: invalid partition specified: absent" in said
    assert "Traceback" not in said


def test_jobs_that_fail_at_once_stop_the_run(scene: Scene, start: Start, tmp_path: Path) -> None:
    more = '\nprologue = ["echo this node is broken >&2", "exit 9"]'
    said = start(*scene.arguments(tmp_path / "o.zarr", scene.config(more=more))).ends(1)
    assert "3 jobs in a row ended" in said
    assert "the last one is" in said
    assert "this node is broken" in said
    assert str(scene.folder / "shared" / "logs") in said
    assert "Traceback" not in said
    assert not queue("PENDING", "RUNNING")


def test_a_bad_node_gets_no_more_jobs(scene: Scene, start: Start, tmp_path: Path) -> None:
    """The others do the work; what is wrong there is told."""
    more = """
prologue = ["[ $SLURMD_NODENAME != node2 ] || { echo no such disk >&2; exit 5; }"]"""
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config(more=more), 3))
    said = run.ends()
    scene.check(tmp_path / "o.zarr")
    if said.count("ended on node2") >= 3:  # a short run may be over before
        assert "No more jobs go to node2" in said
    assert "ended on node2 without having done anything (FAILED (NonZeroExitCode))" in said


def test_a_node_that_is_lost_costs_nothing(scene: Scene, start: Start, tmp_path: Path) -> None:
    """Marked down by its administrator; SLURM itself ends and requeues what ran there."""
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config()))
    run.reach(3)
    lost = queue("RUNNING")[0]
    slurm("scontrol", "update", f"nodename={lost.node}", "state=down", "reason=test")
    run.ends()
    scene.check(tmp_path / "o.zarr")


def test_a_node_that_falls_silent_costs_nothing(scene: Scene, start: Start, tmp_path: Path) -> None:
    """Its daemon and all that runs there die at once, and SLURM believes the job to run on."""
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config()))
    run.reach(3)
    lost = queue("RUNNING")[0]
    folder = Path(os.environ["SLURM_CONF"]).parent
    daemon = psutil.Process(int((folder / "run" / f"slurmd-{lost.node}.pid").read_text()))
    doomed = processes_of(lost.number)
    assert doomed
    for process in [daemon, *doomed]:
        process.kill()
    try:
        assert "RUNNING" in {job.state for job in queue() if job.number == lost.number}
        run.ends()
        scene.check(tmp_path / "o.zarr")
    finally:
        slurm("slurmd", "-f", os.environ["SLURM_CONF"], "-N", lost.node)
        until(lambda: not queue("RUNNING", "COMPLETING"), "the node's return")


def test_a_gpu_is_asked_for(scene: Scene, start: Start, tmp_path: Path) -> None:
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config(more="gpus = 1")))
    run.until(lambda: len(queue("RUNNING")) == 2, "two jobs")
    asked = slurm("scontrol", "show", "job", queue("RUNNING")[0].number)
    assert "gres:gpu:1" in asked or "gres/gpu" in asked
    run.ends()
    scene.check(tmp_path / "o.zarr")


def test_a_gpu_that_torch_does_not_see_is_told_first(
    scene: Scene, start: Start, tmp_path: Path
) -> None:
    """SLURM grants it, and the first worker that tries half precision on it has none."""
    config = tmp_path / "gpu.toml"
    text = scene.config(more="gpus = 1").read_text()
    config.write_text(text.replace("1500MB", "5GB"))  # CUDA's own share
    said = start(*scene.arguments(tmp_path / "o.zarr", config), "--device=auto").ends(1)
    assert "error: on the worker" in said
    assert "device cuda is not available here; available: cpu" in said
    assert "Traceback" not in said
    assert not (tmp_path / "o.zarr").exists()
    until(lambda: not queue("PENDING", "RUNNING", "COMPLETING"), "no job left", 30)


def test_no_more_jobs_than_there_is_work_for(scene: Scene, start: Start, tmp_path: Path) -> None:
    """Six are allowed; four blocks are two jobs of two tasks."""
    before, few = {job.number for job in queue()}, ("--only=0:4", "--no-pyramid")
    start(*scene.arguments(tmp_path / "o.zarr", scene.config(), 6, *few)).ends()
    assert len({job.number for job in queue()} - before) == 2


def test_nothing_listens_but_with_tls(scene: Scene, start: Start, tmp_path: Path) -> None:
    run = start(*scene.arguments(tmp_path / "o.zarr", scene.config()))
    run.reach(1)
    ours = [
        p
        for p in psutil.process_iter()
        if "n2v_scale" in " ".join(_command_line(p)) or "multiprocessing" in str(_command_line(p))
    ]
    opened = {
        (c.laddr.ip, c.laddr.port)
        for p in ours
        for c in p.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    elsewhere = {(ip, port) for ip, port in opened if ip != "127.0.0.1"}
    assert elsewhere  # the scheduler and the workers are reached from other nodes
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    for ip, port in elsewhere:
        assert not answers(ip, port, anybody)
    run.process.send_signal(signal.SIGSTOP)
    secrets = [*(scene.folder / "shared").glob("keys-*/key.pem")]
    assert len(secrets) == 1
    assert secrets[0].stat().st_mode & 0o077 == 0
    body = secrets[0].read_text().splitlines()[1]
    for process in ours:
        assert body not in " ".join(_command_line(process))
    run.process.send_signal(signal.SIGCONT)
    run.ends()


def answers(ip: str, port: int, who: ssl.SSLContext) -> bool:
    """Whether someone without a certificate hears anything; TLS 1.3 refuses after shaking hands."""
    try:
        with (
            socket.create_connection((ip, port), 5) as raw,
            who.wrap_socket(raw) as shaken,
        ):
            shaken.settimeout(5)
            return bool(shaken.recv(1))
    except OSError:
        return False


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    cancel_all()
