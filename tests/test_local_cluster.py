"""What a local cluster opens to others: nothing."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from distributed import Client, get_client
from distributed.comm import connect

from n2v_scale.allocator import ENVIRONMENT
from n2v_scale.local_cluster import local_client, thread_client


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process waits for connections."""
    connections = psutil.Process(pid).net_connections("inet")
    return {(c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module")
def before() -> set[tuple[str, int]]:
    """What this process listens on anyway."""
    return listening(os.getpid())


@pytest.fixture(scope="module")
def processes(before: set[tuple[str, int]]) -> Iterator[Client]:
    with local_client(1) as client:
        yield client


def test_processes_listen_on_the_loopback_alone(
    processes: Client, before: set[tuple[str, int]]
) -> None:
    mine = listening(os.getpid()) - before
    workers = processes.run(os.getpid)
    assert len(workers) == 1
    theirs = {pid: listening(pid) for pid in workers.values()}
    assert os.getpid() not in theirs
    assert len(mine) >= 2  # the scheduler and its dashboard
    assert all(theirs.values())
    for address, _ in mine.union(*theirs.values()):
        assert address == "127.0.0.1"


def test_other_children_listen_to_nobody_else(processes: Client) -> None:
    for child in psutil.Process().children(recursive=True):
        assert {address for address, _ in listening(child.pid)} <= {"127.0.0.1"}


def test_everything_speaks_tls(processes: Client) -> None:
    addresses = [processes.scheduler.address, *processes.scheduler_info(n_workers=-1)["workers"]]
    assert len(addresses) == 2
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)


def talk(address: str, **options: Any) -> None:
    """Connect and ask who is there."""

    async def ask() -> None:
        comm = await connect(address, timeout=3, **options)
        await comm.write({"op": "identity", "reply": True})
        await asyncio.wait_for(comm.read(), 3)
        comm.abort()

    asyncio.run(ask())


def test_a_client_without_a_certificate_is_turned_away(processes: Client) -> None:
    address = processes.scheduler.address
    with pytest.raises((OSError, TimeoutError)):
        talk(address.replace("tls://", "tcp://"))
    anybody = ssl.create_default_context()
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    with pytest.raises((OSError, TimeoutError)):
        talk(address, ssl_context=anybody)
    ours = processes.security.get_connection_args("client")
    talk(address, **ours)  # the same with the certificate is answered


def test_workers_are_single_threaded(processes: Client) -> None:
    assert list(processes.nthreads().values()) == [1]


def test_workers_keep_the_memory_of_a_slab(processes: Client) -> None:
    """Dask's own threshold would give each back to the system, which clears it again."""
    (found,) = processes.run(environment_of_worker).values()
    assert {name: found[name] for name in ENVIRONMENT} == {
        k: str(v) for k, v in ENVIRONMENT.items()
    }
    assert found["OMP_NUM_THREADS"] == "1"  # Dask's other settings stay; a plan sets the threads


def test_nothing_is_logged_of_every_task(processes: Client) -> None:
    """Dask keeps 100,000 transitions, half a kilobyte each, in the scheduler and in each worker."""
    assert (
        processes.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_log.maxlen)
        == 1000
    )
    (found,) = processes.run(lambda dask_worker: dask_worker.state.log.maxlen).values()
    assert found == 1000


def environment_of_worker() -> dict[str, str]:
    return dict(os.environ)


def test_threads_listen_on_the_loopback_alone(before: set[tuple[str, int]]) -> None:
    already = listening(os.getpid())
    with thread_client(3) as client:
        assert client.submit(os.getpid).result() == os.getpid()
        assert list(client.nthreads().values()) == [3]
        opened = listening(os.getpid()) - already
    assert {address for address, _ in opened} <= {"127.0.0.1"}
    assert listening(os.getpid()) <= already


def test_no_client_becomes_the_default_one() -> None:
    with thread_client(1), pytest.raises(ValueError, match="No global client"):
        get_client()
