"""Clusters that were started elsewhere and lose a worker, a nanny, or their scheduler."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from n2v_scale.errors import ClusterError

from ..commands import DEADLINE_S, until

BLOCKS = 40


class Cluster:
    """A scheduler and two nannies with a worker each, as the programs of Dask start them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, []
        file = folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--port=0", f"--scheduler-file={file}")
        until(file.exists, "the scheduler")
        worker = ["worker", f"--scheduler-file={file}", "--nthreads=1", "--memory-limit=0"]
        self.nannies = [self.start(*worker, f"--local-directory={folder}") for _ in range(2)]
        self.address = json.loads(file.read_text())["address"]

    def start(self, program: str, *options: str) -> psutil.Process:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", *options]
        command += ["--host=127.0.0.1", "--no-dashboard"]
        with (self.folder / f"{len(self.started)}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.started.append(process)
        return psutil.Process(process.pid)

    def worker_of(self, nanny: psutil.Process) -> psutil.Process:
        def found() -> list[psutil.Process]:
            return [c for c in nanny.children() if "spawn_main" in " ".join(c.cmdline())]

        return until(found, "a worker below its nanny")[0]

    def end(self) -> None:
        """Kill whatever is left, and see that it is gone."""
        left = [p for program in self.started for p in family(program)]
        for process in left:
            process.kill()
        for program in self.started:
            program.wait(DEADLINE_S)
        until(lambda: not any(map(lives, left)), "the end of the cluster")


def family(program: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        process = psutil.Process(program.pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    yield cluster
    cluster.end()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=DEADLINE_S)
        yield client


class Run:
    """A run in a thread."""

    def __init__(self, pool: ThreadPoolExecutor, scene: Any, path: Path, client: Client) -> None:
        self.events = path.with_suffix(".log")
        self.future: Future[Any] = pool.submit(
            scene.predict, path, client=client, events=self.events
        )

    def computed(self) -> set[int]:
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        done = [
            e for e in map(json.loads, lines) if e["event"] == "BlockDone" and e["level"] == "0"
        ]
        return {event["number"] for event in done}


def test_a_cluster_that_loses_workers_and_nannies(
    scene: Any, cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    first, second = cluster.nannies
    with ThreadPoolExecutor(1) as pool:
        run = Run(pool, scene, path, client)
        until(lambda: len(run.computed()) >= 3, "some blocks")
        worker = cluster.worker_of(first)
        worker.kill()
        until(lambda: len(run.computed()) >= 6, "more blocks")
        orphan = cluster.worker_of(second)
        second.kill()
        assert len(run.computed()) < BLOCKS
        until(lambda: not lives(orphan), "the end of a worker without a nanny")
        assert run.computed() <= scene.check_marks(path)
        summary = run.future.result(DEADLINE_S)
    assert summary.computed == BLOCKS
    assert cluster.worker_of(first).pid != worker.pid
    scene.check_whole(path)


def test_a_cluster_that_loses_its_scheduler(
    scene: Any, cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    with ThreadPoolExecutor(1) as pool:
        run = Run(pool, scene, path, client)
        until(lambda: len(run.computed()) >= 6, "some blocks")
        cluster.scheduler.kill()
        with pytest.raises(ClusterError, match=r"the Dask scheduler is lost.*the same command"):
            run.future.result(DEADLINE_S)
    ended = json.loads(run.events.read_text().splitlines()[-1])
    assert (ended["event"], ended["outcome"]) == ("RunEnded", "failed")
    cluster.end()
    done = scene.check_marks(path)
    assert done >= run.computed()
    before = scene.output(path).versions()
    assert scene.predict(path).computed == BLOCKS - len(done) > 0
    assert scene.output(path).rewritten(before).isdisjoint(done)
    scene.check_whole(path)
