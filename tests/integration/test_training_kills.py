"""Trainings that are killed: the same command ends with the bytes of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from n2v_scale.checkpoint import CheckpointFolder

from ..commands import until

STEPS = 400
OFTEN, NEVER = "20ms", "1h"
KILLS = 3


@pytest.fixture(scope="module")
def volume(tmp_path_factory, write_volume) -> str:
    z, y, x = np.meshgrid(*map(np.arange, (16, 32, 48)), indexing="ij")
    clean = 200 + 60 * np.sin(x / 5) * np.cos(y / 6 + z / 4)
    data = clean + np.random.default_rng(0).normal(0, 40, clean.shape)
    path = tmp_path_factory.mktemp("training") / "v.zarr"
    return write_volume(path, data.astype("f4"), chunk=(8, 8, 16)).address


def arguments(volume: str, model: Path, every: str = NEVER, *more: str) -> list[str]:
    chosen = f"--steps={STEPS} --patch=8,16,16 --batch=2 --depth=1 --filters=2 --device=cpu"
    return [
        "train", volume, "-o", str(model), *chosen.split(), "--threads=1",
        f"--checkpoint-every={every}", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(volume, tmp_path_factory) -> bytes:
    """The weights of a run that nobody disturbs."""
    return finished_by_itself(volume, tmp_path_factory.mktemp("undisturbed") / "m")


def finished_by_itself(volume: str, model: Path, *more: str) -> bytes:
    from subprocess import run
    from sys import executable

    run([executable, "-m", "n2v_scale", *arguments(volume, model, NEVER, *more)], check=True,
        capture_output=True)  # fmt: skip
    return weights(model)


def weights(model: Path) -> bytes:
    return (model / "weights.safetensors").read_bytes()


def newest(model: Path) -> str:
    files = CheckpointFolder.beside(model).files()
    return files[-1].name if files else ""


def rows(model: Path) -> int:
    """Looks at the held-out loss so far: the first is before the first step."""
    path = CheckpointFolder.beside(model).path / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def nothing_left(model: Path) -> None:
    assert sorted(p.name for p in model.iterdir()) == [
        "metrics.csv", "model.json", "weights.safetensors"
    ]  # fmt: skip
    assert [p.name for p in model.parent.iterdir() if p.name.startswith(model.name)] == ["m"]


def ranks_of(process: psutil.Process) -> list[psutil.Process]:
    return [c for c in process.children() if alive(c) and "spawn_main" in " ".join(c.cmdline())]


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_training_that_is_killed_again_and_again(start, volume, undisturbed, tmp_path):
    model, rng, seen = tmp_path / "m", random.Random(0), set()
    for _ in range(KILLS):
        command, before = start(*arguments(volume, model, OFTEN)), newest(model)
        command.until(lambda old=before: newest(model) > old, "a checkpoint")
        time.sleep(rng.random() * 0.2)  # anywhere: between two steps, or while one is written
        ended = command.stop(signal.SIGKILL)
        assert ended.returncode == -signal.SIGKILL
        assert not model.exists()
        seen.add(newest(model))
    assert len(seen) == KILLS
    ended = start(*arguments(volume, model)).end()
    assert ended.returncode == 0, ended.stderr
    assert "going on from step" in ended.stderr
    assert weights(model) == undisturbed
    nothing_left(model)


def test_a_training_that_is_told_to_stop_or_to_save(start, volume, undisturbed, tmp_path):
    """By the clock nothing is kept here: what is there was kept for the signal."""
    model = tmp_path / "m"
    for looks, number in ((2, signal.SIGTERM), (3, signal.SIGINT)):
        command, before = start(*arguments(volume, model)), newest(model)
        command.until(lambda n=looks: rows(model) >= n, "a look at the loss")
        ended = command.stop(number)
        assert ended.returncode == 130, ended.stderr
        assert "interrupted" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert newest(model) > before
    command, before = start(*arguments(volume, model)), newest(model)
    command.until(lambda: rows(model) >= 4, "a look at the loss")
    os.kill(command.process.pid, signal.SIGUSR1)
    command.until(lambda: newest(model) > before, "a checkpoint")
    assert command.end().returncode == 0
    assert weights(model) == undisturbed
    nothing_left(model)
    again = start(*arguments(volume, model)).end()
    assert again.returncode == 0
    assert "nothing to do" in again.stderr


def test_ctrl_c_reaches_all_processes_and_the_state_is_kept(start, volume, tmp_path):
    model = tmp_path / "m"
    more = ("--devices=2", "--batch=1")
    command = start(*arguments(volume, model, NEVER, *more))
    command.until(lambda: rows(model) >= 2, "a look at the loss")
    ended = command.stop(signal.SIGINT, group=True)
    assert ended.returncode == 130, ended.stderr
    assert newest(model)
    ended = start(*arguments(volume, model, NEVER, *more)).end()
    assert ended.returncode == 0, ended.stderr
    assert weights(model) == finished_by_itself(volume, tmp_path / "other", *more)


def test_one_of_two_processes_is_killed(start, volume, tmp_path):
    model = tmp_path / "m"
    command = start(*arguments(volume, model, OFTEN, "--devices=2", "--batch=1"))
    command.until(lambda: newest(model), "a checkpoint")
    ranks = ranks_of(psutil.Process(command.process.pid))
    assert len(ranks) == 2
    ranks[1].kill()
    ended = command.end()
    assert ended.returncode == 1
    assert "died" in ended.stderr
    assert "the same command goes on from the last checkpoint" in ended.stderr
    until(lambda: not any(map(alive, ranks)), "a process is left")
    ended = start(*arguments(volume, model, NEVER, "--devices=2", "--batch=1")).end()
    assert ended.returncode == 0, ended.stderr
    assert "going on from step" in ended.stderr
    nothing_left(model)


def test_processes_end_with_the_one_that_started_them(start, volume, tmp_path):
    """Or two trainings would write to one place."""
    model = tmp_path / "m"
    endless = [
        a for a in arguments(volume, model, OFTEN) if not a.startswith(("--steps", "--batch"))
    ]
    command = start(*endless, "--minutes=10", "--batch=1", "--devices=2")
    command.until(lambda: newest(model), "a checkpoint")
    ranks = ranks_of(psutil.Process(command.process.pid))
    command.process.kill()
    try:
        _, left = psutil.wait_procs(ranks, 20)
        assert left == []
    finally:
        for rank in filter(alive, ranks):
            rank.kill()


def two_processes_end_well(start, volume, model, monkeypatch, numbers):
    """Each is told its own number in the variables ``numbers``."""
    commands = []
    for rank in range(2):
        for name in numbers:
            monkeypatch.setenv(name, str(rank))
        commands.append(start(*arguments(volume, model, NEVER, "--batch=1")))
    ended = [command.process.wait(60) for command in commands]
    assert ended == [0, 0], [command.end().stderr for command in commands]
    nothing_left(model)


def test_processes_that_somebody_else_has_started(start, volume, tmp_path, monkeypatch):
    """As torchrun does: one writes, and all of them end well."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    two_processes_end_well(start, volume, tmp_path / "m", monkeypatch, ("RANK", "LOCAL_RANK"))


def test_a_job_step_of_slurm(start, volume, tmp_path, monkeypatch):
    """As srun does: one writes, and all of them end well."""
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_JOB_ID", str(os.getpid()))
    monkeypatch.setenv("SLURM_STEP_NODELIST", "127.0.0.1")
    numbers = ("SLURM_PROCID", "SLURM_LOCALID")
    two_processes_end_well(start, volume, tmp_path / "m", monkeypatch, numbers)
