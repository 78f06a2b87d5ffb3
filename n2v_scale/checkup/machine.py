"""The machine: cores, memory, limits, and what local workers need of it."""

from __future__ import annotations

import multiprocessing
import os
import socket
from dataclasses import dataclass

from n2v_scale.checkup.check import Check, note, ok, problem

GB = 1e9
LEAST_MEMORY = 2 * GB
"""A worker of less computes small tiles only."""
LEAST_FILES = 1024
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class MachineSeen:
    """What this process may use."""

    cores: int
    """Of the machine."""
    usable_cores: int
    """By affinity, and by a container's or a job's quota."""
    workers: int
    """That a run starts unless told otherwise."""
    memory: int
    """Bytes of the machine."""
    usable_memory: int
    """By a container's or a job's limit."""
    free_memory: int
    open_files: int | None
    """The limit; None where there is none."""
    most_open_files: int | None
    """What ``ulimit -n`` may raise it to."""
    no_processes: str = ""
    """Why worker processes cannot be started."""
    no_loopback: str = ""
    """Why they cannot be talked to."""


def look_at_machine() -> list[Check]:
    """Cores, memory, open files, and the start of workers."""
    seen = _look()
    return [judge_cores(seen), judge_memory(seen), judge_files(seen), judge_workers(seen)]


def judge_cores(seen: MachineSeen) -> Check:
    """How many are used."""
    if seen.usable_cores >= seen.cores:
        return ok("cores", f"{seen.cores}")
    text = f"{seen.usable_cores} of {seen.cores} (affinity, or the limit of a container or a job)"
    return ok("cores", text)


def judge_memory(seen: MachineSeen) -> Check:
    """How much a worker has."""
    limit = (
        f"{_gb(seen.usable_memory)} of {_gb(seen.memory)} (a limit of a container or a job)"
        if seen.usable_memory < seen.memory
        else _gb(seen.memory)
    )
    each = seen.usable_memory / seen.workers
    text = f"{limit}, {_gb(seen.free_memory)} free; {_gb(each)} for each of {seen.workers} workers"
    if each < LEAST_MEMORY:
        fewer = max(1, int(seen.usable_memory // LEAST_MEMORY))
        return note("memory", text, f"--workers {fewer}, or a smaller --tile and --block")
    return ok("memory", text)


def judge_files(seen: MachineSeen) -> Check:
    """Each worker, shard and connection is an open file."""
    if seen.open_files is None or seen.open_files >= LEAST_FILES:
        many = "no limit" if seen.open_files is None else f"up to {seen.open_files}"
        return ok("open files", many)
    text = f"up to {seen.open_files}, and many workers need more"
    most = 4096 if seen.most_open_files is None else min(4096, seen.most_open_files)
    if most <= seen.open_files:
        return note("open files", text, "have the limit raised (nofile in limits.conf)")
    return note("open files", text, f"ulimit -n {most}")


def judge_workers(seen: MachineSeen) -> Check:
    """Whether worker processes can be started and talked to."""
    if seen.no_processes:
        return problem(
            "workers",
            f"processes cannot be started: {seen.no_processes}",
            "let this process use /dev/shm (a container needs --shm-size or --ipc=host)",
        )
    if seen.no_loopback:
        return problem(
            "workers",
            f"{LOOPBACK} cannot be used: {seen.no_loopback}",
            "bring the loopback interface up (ip link set lo up)",
        )
    return ok("workers", f"processes start, and {LOOPBACK} takes connections with TLS")


def _look() -> MachineSeen:
    import psutil
    from distributed.system import MEMORY_LIMIT

    from n2v_scale.cores import available_cores, split_cores

    memory, cores = psutil.virtual_memory(), available_cores()
    soft, hard = _open_files()
    return MachineSeen(
        cores=os.cpu_count() or cores,
        usable_cores=cores,
        workers=split_cores(cores)[0],
        memory=int(memory.total),
        usable_memory=int(MEMORY_LIMIT),
        free_memory=int(memory.available),
        open_files=soft,
        most_open_files=hard,
        no_processes=_no_processes(),
        no_loopback=_no_loopback(),
    )


def _open_files() -> tuple[int | None, int | None]:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None, None
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (None if limit == resource.RLIM_INFINITY else limit for limit in limits)
    return soft, hard


def _no_processes() -> str:
    """A lock that processes share needs what starting them needs."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        return str(error)
    return ""


def _no_loopback() -> str:
    from distributed.security import Security

    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
        Security.temporary()
    except (OSError, ImportError, ValueError) as error:
        return str(error)
    return ""


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB"
