"""Several processes train as one: the same weights, the same errors, and nobody is left behind."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import textwrap
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
from safetensors.torch import load_file

import n2v_scale
from n2v_scale.checkpoint import CheckpointFolder
from n2v_scale.errors import ConfigError, InputError, TrainingError
from n2v_scale.parallel import Ranks, found_ranks, run_ranks
from n2v_scale.progress import NoProgress

TINY = {
    "steps": 12, "filters": 2, "depth": 1, "patch": (8, 16, 16), "validate_every": 4,
    "device": "cpu",
}  # fmt: skip
DEADLINE_S = 100.0

FUNCTIONS = '''
"""What the processes of a test do."""

import os
import signal

from n2v_scale.errors import InputError
from n2v_scale.parallel import joined

import psutil


def write(environment, folder):
    with joined(environment, "cpu") as ranks:
        found = ranks.largest(ranks.rank, -ranks.rank), ranks.mean(ranks.rank)
        told = ranks.gathered(f"rank {ranks.rank}")
        with open(f"{folder}/{ranks.rank}", "w") as file:
            file.write(repr((*found, told, list(ranks.lanes(3)), ranks.leads)))


def refuse(environment):
    with joined(environment, "cpu") as ranks:
        if ranks.rank == 1:
            raise InputError("plane 7 is damaged")
        ranks.largest(1.0)


def die(environment):
    with joined(environment, "cpu") as ranks:
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.largest(1.0)


def say_where_it_listens(environment, folder):
    with joined(environment, "cpu") as ranks:
        ranks.largest(1.0)
        found = psutil.Process().net_connections("inet")
        listening = sorted({c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN})
        with open(f"{folder}/{ranks.rank}", "w") as file:
            file.write(repr(listening))
        ranks.largest(1.0)


def stop(environment):
    with joined(environment, "cpu") as ranks:
        ranks.largest(1.0)
        raise KeyboardInterrupt
'''


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """A module that the processes can import."""
    (tmp_path / "functions_of_ranks.py").write_text(textwrap.dedent(FUNCTIONS))
    monkeypatch.syspath_prepend(tmp_path)
    import functions_of_ranks  # type: ignore[import-not-found]

    return functions_of_ranks


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    assert multiprocessing.active_children() == []
    assert ranks_running() == []


def ranks_running() -> list[psutil.Process]:
    found = psutil.Process().children()
    return [c for c in found if "spawn_main" in " ".join(c.cmdline())]


@pytest.fixture
def volume(tmp_path, write_volume):
    z, y, x = np.meshgrid(*map(np.arange, (16, 32, 48)), indexing="ij")
    clean = 200 + 60 * np.sin(x / 5) * np.cos(y / 6 + z / 4)
    data = clean + np.random.default_rng(0).normal(0, 40, clean.shape)
    return write_volume(tmp_path / "v.zarr", data.astype("f4"), chunk=(8, 8, 16))


# What is decided together


def test_processes_tell_each_other(functions, tmp_path):
    run_ranks(functions.write, 2, str(tmp_path))
    found = [eval((tmp_path / str(rank)).read_text()) for rank in range(2)]
    assert found[0] == ([1.0, 0.0], 0.5, ["rank 0", "rank 1"], [0, 1, 2], True)
    assert found[1] == ([1.0, 0.0], 0.5, ["rank 0", "rank 1"], [3, 4, 5], False)


def test_nobody_from_elsewhere_can_come_in(functions, tmp_path):
    run_ranks(functions.say_where_it_listens, 2, str(tmp_path))
    assert {(tmp_path / str(rank)).read_text() for rank in range(2)} == {"['127.0.0.1']"}


def test_alone_everything_is_ones_own():
    ranks = Ranks()
    assert ranks.largest(2.0, -1.0) == [2.0, -1.0]
    assert (ranks.mean(3.0), ranks.gathered("a"), list(ranks.lanes(2))) == (3.0, ["a"], [0, 1])
    assert ranks.leads


def test_the_error_of_one_is_raised_as_it_is(functions):
    with pytest.raises(InputError, match=r"^plane 7 is damaged$"):
        run_ranks(functions.refuse, 2)


def test_one_that_dies_ends_the_others(functions):
    with pytest.raises(TrainingError, match=r"process \d died .*the same command goes on"):
        run_ranks(functions.die, 2)


def test_those_that_were_told_to_stop_have_stopped(functions):
    with pytest.raises(KeyboardInterrupt):
        run_ranks(functions.stop, 2)


# Found ones


def test_alone_no_others_are_found(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert found_ranks() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert found_ranks() is None


def test_a_job_step_of_slurm_describes_the_processes(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node7")
    found = found_ranks()
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("3", "1", "4")
    assert found["MASTER_ADDR"] == "node7"
    assert 1024 < int(found["MASTER_PORT"]) < 65536


def test_devices_and_processes_of_others_contradict_each_other(volume, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="--devices starts processes itself"):
        n2v_scale.train(volume, tmp_path / "m", devices=2, **TINY)


def test_processes_of_others_do_not_ask_for_jobs_each(volume, tmp_path, monkeypatch):
    monkeypatch.setattr("n2v_scale.place.job_client", Mock(side_effect=AssertionError))
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ConfigError, match=r"^--cluster slurm asks for jobs, and each of the"):
            n2v_scale.train(volume, tmp_path / "m", cluster="slurm", **TINY)
    assert not (tmp_path / "m.training").exists()


# Trainings


def metrics(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("step", "training", "held_out")
    return [{n: float(row[n]) for n in names if row[n]} for row in rows]


def test_two_processes_train_what_one_does_with_twice_the_batch(volume, tmp_path, client):
    n2v_scale.train(volume, tmp_path / "one", batch=4, threads=1, client=client, **TINY)
    n2v_scale.train(volume, tmp_path / "two", batch=2, threads=1, devices=2, **TINY)
    one, two = (load_file(tmp_path / n / "weights.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)
    expected, found = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(found) == 4
    for a, b in zip(expected, found, strict=True):
        assert b == pytest.approx(a, rel=1e-6)
    card = n2v_scale.load_model(tmp_path / "two").card
    assert (card.training["processes"], card.training["batch"]) == (2, 2)


class Notes(NoProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_two_processes_go_on_to_the_bit(volume, tmp_path):
    """One is told to stop, and both keep their state; threads are shared out among them."""
    chosen = TINY | {"steps": 80, "batch": 1, "devices": 2, "threads": 2}
    n2v_scale.train(volume, tmp_path / "undisturbed", **chosen)
    checkpoints = CheckpointFolder.beside(tmp_path / "m")

    def disturb() -> None:
        end = time.monotonic() + DEADLINE_S
        while not checkpoints.files() and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(ranks_running()[1].pid, signal.SIGTERM)

    thread = threading.Thread(target=disturb)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        n2v_scale.train(volume, tmp_path / "m", checkpoint_every=1e-3, **chosen)
    thread.join()
    assert ranks_running() == []
    assert not (tmp_path / "m").exists()
    assert checkpoints.files()
    notes = Notes()
    n2v_scale.train(volume, tmp_path / "m", progress=notes, **chosen)
    assert any(text.startswith("going on from step") for text in notes.said)
    written = [(tmp_path / n / "weights.safetensors").read_bytes() for n in ("m", "undisturbed")]
    assert written[0] == written[1]
    n2v_scale.train(volume, tmp_path / "m", progress=notes, **chosen)
    assert notes.said[-1].endswith("is finished: nothing to do")


def test_an_error_in_all_of_them_is_raised_once(tmp_path, write_volume):
    constant = write_volume(tmp_path / "c.zarr", np.full((16, 32, 48), 7.0, "f4"))
    with pytest.raises(InputError, match="constant"):
        n2v_scale.train(constant, tmp_path / "m", devices=2, threads=1, batch=1, **TINY)
    assert not (tmp_path / "m").exists()


def test_a_client_of_threads_serves_one_process(volume, tmp_path, client):
    with pytest.raises(ConfigError, match="a client of threads serves one process"):
        n2v_scale.train(volume, tmp_path / "m", devices=2, client=client, batch=1, **TINY)
