"""Clusters of this machine: processes or threads, with the scheduler of Dask in this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from n2v_scale.errors import ClusterError
from n2v_scale.signals import uninterrupted
from n2v_scale.worker_settings import worker_settings

LOOPBACK = "127.0.0.1"
START_S = 120.0
"""For the workers of this machine; Ctrl-C waits so long too."""
ALLOWED = "distributed.scheduler.allowed-failures"


@contextmanager
def local_client(workers: int, *, threads: int = 1, a_gpu_each: bool = False) -> Iterator[Client]:
    """A client of ``workers`` processes on this machine, each with ``threads`` tasks at a time.

    TLS with certificates made for this run, every port and dashboard on the loopback address.
    With ``a_gpu_each`` the first worker sees the first GPU alone, and so on.
    """
    with client_of(
        cls=OneGPUEach if a_gpu_each and workers > 1 else LocalCluster,
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
    with client_of(
        n_workers=1, threads_per_worker=threads, processes=False, memory_limit=0
    ) as client:
        yield client


class OneGPUEach(LocalCluster):
    """A local cluster whose workers see one GPU each, in turn."""

    def new_worker_spec(self) -> dict[Any, Any]:
        """See :class:`distributed.SpecCluster`."""
        ((name, spec),) = super().new_worker_spec().items()
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = seen.split(",") if seen else None
        mine = gpus[int(name) % len(gpus)] if gpus else str(name)
        options = {**spec["options"], "env": {"CUDA_VISIBLE_DEVICES": mine}}
        return {name: {**spec, "options": options}}


@contextmanager
def client_of(
    cls: type[LocalCluster] = LocalCluster, losses: int = 0, **options: Any
) -> Iterator[Client]:
    """A client of a cluster whose scheduler runs here, with ``options`` of :class:`LocalCluster`.

    A task that ``losses`` workers were lost with is not given to another one.

    Raises
    ------
    ClusterError
        When its workers do not start.
    """
    workers = options.pop("n_workers")
    with dask.config.set({**worker_settings(), ALLOWED: losses}):
        with uninterrupted():
            cluster = cls(
                n_workers=0 if cls is OneGPUEach else workers,
                **options,
                dashboard_address=f"{LOOPBACK}:0",
                worker_dashboard_address=f"{LOOPBACK}:0",
                silence_logs=logging.CRITICAL,
            )
            try:
                client = Client(cluster, set_as_default=False)
                if cls is OneGPUEach:
                    cluster.scale(workers)
                    client.wait_for_workers(workers, timeout=START_S)
            except TimeoutError as error:
                cluster.close()
                raise ClusterError(
                    f"not all of {workers} workers have started within {START_S:g} s"
                ) from error
        try:
            yield client
        finally:
            with uninterrupted():
                client.close()
                cluster.close()
