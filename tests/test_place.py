"""Where a run computes, and what each worker there has."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import Client

from n2v_scale import found_workers, place
from n2v_scale._version import __version__
from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.config import PredictSettings
from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.found_workers import FoundWorkers, look_at_workers
from n2v_scale.local_cluster import LOOPBACK, OneGPUEach, client_of, local_client
from n2v_scale.memory import Budget
from n2v_scale.place import Place, place_of

GIB = 2**30
JOBS = ClusterSettings(system="slurm", jobs=3, memory=10 * GIB, cpus=6)
FOUND = FoundWorkers(4, 10 * GIB, 8, 8, ("cuda", "cpu"))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """12 cores, 100 GiB, 3 GPUs."""
    monkeypatch.setattr(place, "available_cores", lambda: 12)
    monkeypatch.setattr(place, "memory_limit", lambda: 100 * GIB)
    monkeypatch.setattr("n2v_scale.devices.device_count", lambda: 3)
    monkeypatch.setattr("n2v_scale.devices.device_memory", lambda: 40 * GIB)


# -- budgets -----------------------------------------------------------------------------------


def test_the_budget_of_this_machine(machine: None) -> None:
    here = Place()
    budget = here.budget(PredictSettings(workers=4), "cpu")
    assert budget == Budget(int(100 * GIB * 0.8) // 4, 4, 2, "cpu", None, threads=3)
    assert here.budget(PredictSettings(), "cpu").workers >= 1
    told = here.budget(PredictSettings(workers=2, memory=5 * GIB), "cpu")
    assert (told.memory_bytes, told.workers, told.threads) == (5 * GIB, 2, 6)


def test_every_gpu_here_has_a_worker(machine: None) -> None:
    budget = Place().budget(PredictSettings(), "cuda")
    assert budget == Budget(int(100 * GIB * 0.8) // 3, 3, 8, "cuda", int(40 * GIB * 0.8), threads=4)


def test_the_budget_of_jobs() -> None:
    budget = Place(JOBS).budget(PredictSettings(), "cpu")
    assert budget == Budget(8 * GIB, 3, 2, "cpu", None, threads=6)
    told = Place(JOBS).budget(PredictSettings(memory=5 * GIB), "cpu")
    assert told.memory_bytes == 5 * GIB


def test_jobs_with_a_gpu_read_and_write_beside_it() -> None:
    gpus = JOBS.model_copy(update={"gpus": 1, "gpu_memory": 40 * GIB})
    assert Place(gpus).budget(PredictSettings(), "cuda") == Budget(
        8 * GIB, 3, 6, "cuda", 32 * GIB, threads=6
    )
    one_core = gpus.model_copy(update={"cpus": 1, "gpu_memory": None})
    budget = Place(one_core).budget(PredictSettings(), "cuda")
    assert (budget.tasks, budget.device_bytes) == (2, None)


def test_the_budget_of_workers_that_are_there() -> None:
    budget = Place(found=FOUND).budget(PredictSettings(), "cuda")
    assert budget == Budget(8 * GIB, 4, 8, "cuda", None, threads=8)
    unlimited = FoundWorkers(1, None, 1, 1, ("cpu",))
    assert Place(found=unlimited).budget(PredictSettings(), "cpu").memory_bytes is None


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Place(JOBS), "--workers is for this machine: a cluster of jobs has --jobs"),
        (Place(found=FOUND), "--workers is for this machine: a scheduler has those that it has"),
    ],
)
def test_workers_are_counted_here_only(where: Place, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        where.budget(PredictSettings(workers=2), "cpu")


# -- devices -----------------------------------------------------------------------------------


def test_which_device_auto_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # what is here counts here only
    assert Place().device("auto") == "cuda"
    assert Place(JOBS).device("auto") == "cpu"
    assert Place(JOBS.model_copy(update={"gpus": 1})).device("auto") == "cuda"
    assert Place(found=FOUND).device("auto") == "cuda"
    without = FoundWorkers(2, None, 1, 1, ("cpu",))
    assert Place(found=without).device("auto") == "cpu"
    message = "^device cuda is not available on every worker; available: cpu$"
    with pytest.raises(ConfigError, match=message):
        Place(found=without).device("cuda")
    assert Place(JOBS).device("cuda") == "cuda"
    assert Place(found=FOUND).device("cpu") == "cpu"


def test_which_places_are_here() -> None:
    assert Place().here
    assert not Place(JOBS).here
    assert not Place(found=FOUND).here


# -- workers that are there --------------------------------------------------------------------


def test_a_look_at_workers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert look_at_workers(client) == FoundWorkers(1, None, 2, 2, ("cpu",))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert look_at_workers(client) == FoundWorkers(1, None, 2, 2, ("cuda", "cpu"))


def answer(**changed: Any) -> Any:
    told = {"version": __version__, "memory": None, "cuda": False} | changed
    return lambda: told


def missing() -> None:
    raise ImportError("No module named 'n2v_scale'")


def test_workers_of_another_version(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_workers, "_answer", answer(version="0.0.1"))
    message = f"^here is n2v-scale {__version__}, and workers: 1 with 0.0.1$"
    with pytest.raises(ClusterError, match=message):
        look_at_workers(client)


def test_workers_without_this_package(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_workers, "_answer", missing)
    message = r"the workers do not know n2v-scale .* \(No module named 'n2v_scale'\): install it"
    with pytest.raises(ClusterError, match=message):
        look_at_workers(client)


def test_the_memory_of_workers(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_workers, "_answer", answer(memory=3 * GIB))
    found = look_at_workers(client)
    assert found is not None
    assert found.memory_bytes == 3 * GIB


# -- opening -----------------------------------------------------------------------------------


def test_a_word_a_client_or_nothing(client: Client) -> None:
    with place_of(None) as here:
        assert (here, here.client, here.found) == (Place(), None, None)
        with here.workers(None) as used:
            assert used is None
    with place_of("slurm") as jobs:
        assert jobs.settings == ClusterSettings(system="slurm")
    with place_of(None, client) as given:
        assert given.client is client
        assert given.found == look_at_workers(client)
        with given.workers(None) as used:
            assert used is client
    with (
        pytest.raises(ConfigError, match=r"^cluster and client are both given: choose one$"),
        place_of("local", client),
    ):
        pytest.fail("there are two")


def test_a_scheduler_without_tls_is_refused() -> None:
    message = r"^tcp://10\.0\.0\.1:8786 has no TLS: whoever reaches it may run anything there"
    with pytest.raises(ConfigError, match=message), place_of("tcp://10.0.0.1:8786"):
        pytest.fail("it is open to all")


@pytest.mark.parametrize("text", [None, "", "[1]", '{"id": "Scheduler-1"}'])
def test_what_is_no_scheduler_file(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    message = r"scheduler\.json is not the scheduler file of a running scheduler: "
    with pytest.raises(ConfigError, match=message), place_of(str(file)):
        pytest.fail("there is none")


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2v_scale.cluster.CONNECT_S", 0.2)
    nobody = ClusterSettings(system="scheduler", address="tcp://127.0.0.1:9", insecure=True)
    message = r"^the scheduler tcp://127\.0\.0\.1:9 does not answer within 0\.2 s"
    with pytest.raises(ClusterError, match=message), place_of(nobody):
        pytest.fail("nobody is there")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[Client, ClusterSettings]]:
    """One without workers, and how it is found."""
    with client_of(
        n_workers=0, threads_per_worker=3, processes=False, protocol="tcp://", host=LOOPBACK
    ) as owner:
        file = tmp_path / "scheduler.json"
        file.write_text(json.dumps({"address": owner.scheduler.address}))
        yield owner, ClusterSettings(system="scheduler", address=str(file), insecure=True)


def test_a_scheduler_that_runs(scheduler: tuple[Client, ClusterSettings]) -> None:
    owner, settings = scheduler
    with (
        pytest.raises(ClusterError, match=r"scheduler\.json has no workers yet: start some"),
        place_of(settings),
    ):
        pytest.fail("nobody would compute")
    owner.cluster.scale(1)
    owner.wait_for_workers(1)
    with place_of(settings) as there:
        assert there.found is not None
        assert (there.found.workers, there.found.threads) == (1, 3)
        assert there.client is not None
        assert there.client.submit(sum, [1, 2]).result() == 3
        assert not there.here
    assert owner.submit(sum, [1, 2, 3]).result() == 6  # it is somebody else's, and runs on


# -- GPUs of this machine ----------------------------------------------------------------------


def seen() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_workers_see_one_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with local_client(2, a_gpu_each=True) as client:
        assert sorted(client.run(seen).values()) == ["0", "1"]
        assert set(client.nthreads().values()) == {1}
        addresses = client.scheduler_info(n_workers=-1)["workers"]
        assert all(address.startswith("tls://127.0.0.1:") for address in addresses)


class Stillborn(OneGPUEach):
    """Its workers never start."""

    closed = 0

    def scale(self, n: int = 0) -> None:
        pass

    def close(self, timeout: float | None = None) -> Any:
        Stillborn.closed += 1
        return super().close(timeout)


def test_workers_that_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2v_scale.local_cluster.OneGPUEach", Stillborn)
    monkeypatch.setattr("n2v_scale.local_cluster.START_S", 0.2)
    message = r"^not all of 2 workers have started within 0\.2 s$"
    with pytest.raises(ClusterError, match=message), local_client(2, a_gpu_each=True):
        pytest.fail("nobody computes")
    assert Stillborn.closed


@pytest.mark.parametrize(
    ("here", "theirs"), [("5,2", ["5", "2", "5"]), ("GPU-a", ["GPU-a"] * 3), ("", ["0", "1", "2"])]
)
def test_gpus_are_taken_of_those_that_are_seen_here(
    monkeypatch: pytest.MonkeyPatch, here: str, theirs: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", here)
    found = []
    with OneGPUEach(n_workers=0, processes=True, dashboard_address=f"{LOOPBACK}:0") as cluster:
        for _ in range(3):
            found.append(cluster.new_worker_spec())
            cluster._i += 1
    assert [next(iter(s.values()))["options"]["env"] for s in found] == [
        {"CUDA_VISIBLE_DEVICES": gpu} for gpu in theirs
    ]
