"""Several processes that train one network: started here, or found under torchrun and srun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as group

from n2v_scale.errors import ConfigError, N2VScaleError, TrainingError

LAST_WORDS_S = 10.0
"""When one process has died, how long the others have to say why."""
FIRST_PORT, PORTS = 20_000, 20_000
"""For a job under srun, by its number."""
MEETING = "N2V_SCALE_MEETING"
"""The file through which processes that were started here find each other: no port is open."""
LOOPBACK = {"linux": "lo", "darwin": "lo0"}
"""The network of this machine alone."""


@dataclass(frozen=True)
class Ranks:
    """One process among those that train together."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Number on this machine, and so of its GPU."""
    control: Any = None
    """A group on the CPU for what is decided together."""

    @property
    def leads(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def lanes(self, batch: int) -> range:
        """Which patches of all processes' batches are this one's."""
        return range(self.rank * batch, (self.rank + 1) * batch)

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network, its gradients averaged over all processes."""
        if self.size == 1:
            return network
        ids = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def largest(self, *values: float) -> list[float]:
        """Of each value, the largest that any process has."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64)
        group.all_reduce(shared, group.ReduceOp.MAX, group=self.control)
        found: list[float] = shared.tolist()
        return found

    def mean(self, value: float) -> float:
        """Over the processes."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        group.all_reduce(shared, group=self.control)
        return float(shared) / self.size

    def gathered(self, value: Any) -> list[Any]:
        """Every process's value, by rank, in each of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        group.all_gather_object(found, value, group=self.control)
        return found

    def from_first(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                group.broadcast(tensor, 0)


def found_ranks() -> dict[str, str] | None:
    """The environment of a process group that torchrun or srun has started; None alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        return {}
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks == 1 or "SLURM_PROCID" not in os.environ:
        return None
    number = int(os.environ.get("SLURM_JOB_ID", "0"))
    return {
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ.get("SLURM_LOCALID", "0"),
        "WORLD_SIZE": str(tasks),
        "MASTER_ADDR": os.environ.get("MASTER_ADDR") or _first_node(),
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(FIRST_PORT + number % PORTS),
    }


def _first_node() -> str:
    """The node of a job step's first process."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    if not any(c in nodes for c in "[,"):
        return nodes or "127.0.0.1"
    try:
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(
            f"the first node of {nodes} is not known ({error}): set MASTER_ADDR to its name"
        ) from None
    return listed.stdout.split()[0]


@contextmanager
def joined(environment: dict[str, str] | None, device: str) -> Iterator[Ranks]:
    """The process group that ``environment`` describes; alone when it is None."""
    if environment is None:
        yield Ranks()
        return
    os.environ.update(environment)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local)
    backend = "nccl" if device == "cuda" else "gloo"
    if MEETING in environment:
        group.init_process_group(
            backend,
            init_method=f"file://{environment[MEETING]}",
            rank=int(environment["RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
        )
    else:
        group.init_process_group(backend)
    try:
        control = group.new_group(backend="gloo")
        yield Ranks(group.get_rank(), group.get_world_size(), local, control)
    finally:
        group.destroy_process_group()


def run_ranks(function: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call ``function(environment, *arguments)`` in ``count`` processes on this machine.

    Raises
    ------
    N2VScaleError
        The first that one of them raises; the others are ended.
    KeyboardInterrupt
        When they were told to stop and have.
    """
    with TemporaryDirectory(prefix="n2v-scale-") as folder:
        _run_ranks(function, count, f"{folder}/meeting", arguments)


def _run_ranks(
    function: Callable[..., None], count: int, meeting: str, arguments: tuple[Any, ...]
) -> None:
    context = get_context("spawn")
    processes: list[Any] = []
    pipes: list[Any] = []
    own_machine = {"GLOO_SOCKET_IFNAME": LOOPBACK[sys.platform]} if sys.platform in LOOPBACK else {}
    try:
        for rank in range(count):
            environment = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                MEETING: meeting,
                **own_machine,
            }
            receiving, sending = context.Pipe(duplex=False)
            arguments_of_rank = (sending, function, environment, *arguments)
            process = context.Process(target=_rank, args=arguments_of_rank)
            process.start()
            sending.close()
            processes.append(process)
            pipes.append(receiving)
        with _passed_on(processes):
            _wait_for(processes, pipes)
    except KeyboardInterrupt:
        for process in processes:
            process.terminate()  # which keeps the state
        for process in processes:
            process.join()
        raise
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
            process.join()


@contextmanager
def _passed_on(processes: list[Any]) -> Iterator[None]:
    """SIGUSR1 is for the processes that hold the state, and SIGTERM ends them as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def save(number: int, frame: object) -> None:
        del frame
        for process in processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def stop(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    handlers: dict[int, Any] = {signal.SIGTERM: stop}
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        handlers[signal.SIGUSR1] = save
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_for(processes: list[Any], pipes: list[Any]) -> None:
    """Until all have ended well. The error that is raised is the first, but one that a process
    tells of comes before the death of another, which it may have caused.
    """
    left: list[Any] = list(pipes)
    died: BaseException | None = None
    while left:
        ready = wait(left, LAST_WORDS_S if died else None)
        if not ready:
            break
        for pipe in ready:
            left.remove(pipe)
            rank = pipes.index(pipe)
            said, error = _said(pipe, processes[rank], rank)
            if error is not None and said:
                raise error
            died = died or error
    if died is not None:
        raise died


def _said(pipe: Any, process: Any, rank: int) -> tuple[bool, BaseException | None]:
    """Whether a process spoke before it ended, and what became of it."""
    try:
        return True, pipe.recv()
    except EOFError:
        process.join()
        return False, TrainingError(
            f"training process {rank} died (exit code {process.exitcode}): the same command goes "
            "on from the last checkpoint"
        )


def _rank(pipe: Any, function: Callable[..., None], *arguments: Any) -> None:
    """In a process: what became of it is sent back. It does not outlive the one that started it."""
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        function(*arguments)
        pipe.send(None)
    except KeyboardInterrupt:
        pipe.send(KeyboardInterrupt())
    except N2VScaleError as error:
        pipe.send(error)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
