"""Dask clients of this machine, with TLS wherever something leaves the process."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from n2v_scale.allocator import ENVIRONMENT

LOOPBACK = "127.0.0.1"


@contextmanager
def local_client(workers: int, *, threads: int = 1) -> Iterator[Client]:
    """A client of ``workers`` processes on this machine, each with ``threads`` tasks at a time.

    TLS with certificates made for this run, every port and dashboard on the loopback address.
    """
    with _client(
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        memory_limit=MEMORY_LIMIT // workers,
        host=LOOPBACK,
        protocol="tls://",
        security=Security.temporary(),
        preload=["n2v_scale.worker_setup"],
    ) as client:
        yield client


@contextmanager
def thread_client(threads: int) -> Iterator[Client]:
    """A client of threads in this process: for reading ahead while something else computes."""
    with _client(
        n_workers=1, threads_per_worker=threads, processes=False, memory_limit=0
    ) as client:
        yield client


@contextmanager
def _client(**options: Any) -> Iterator[Client]:
    with _configured():
        with uninterrupted():
            cluster = LocalCluster(
                **options,
                dashboard_address=f"{LOOPBACK}:0",
                worker_dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.CRITICAL,
            )
            client = Client(cluster, set_as_default=False)
        try:
            yield client
        finally:
            with uninterrupted():
                client.close()
                cluster.close()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end: no cluster is left half started or half closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: caught.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])


@contextmanager
def _configured() -> Iterator[None]:
    """How workers start; no warnings about long blocks or memory that torch keeps: both are normal
    here.
    """
    usual: dict[str, Any] = dask.config.get("distributed.nanny.pre-spawn-environ")
    with dask.config.set(
        {
            "distributed.nanny.pre-spawn-environ": usual | ENVIRONMENT,
            "distributed.admin.tick.limit": "60s",
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.pause": False,
            "distributed.comm.timeouts.connect": "60s",
            # Nothing that grows with the number of tasks.
            "distributed.worker.profile.enabled": False,
            "distributed.admin.log-length": 1000,
            "distributed.admin.low-level-log-length": 1000,
            "distributed.scheduler.dashboard.tasks.task-stream-length": 1000,
        }
    ):
        yield
