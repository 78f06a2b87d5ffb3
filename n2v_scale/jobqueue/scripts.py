"""The job of one worker: dask-jobqueue's script for each batch system, from our settings."""

from __future__ import annotations

import math
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import dask

from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.errors import ClusterError, ConfigError

DEATH_TIMEOUT_S = 120
"""A worker that finds no scheduler for so long ends, and so does its job."""
NAME = "n2v-scale"
_ERRORS = re.compile(r"\.(err|e\d+|stderr)\b")
"""In the name of a log: what was written as errors, not as output."""
_OWN_GPU = {
    "slurm": r"^-G|^--gpus|^--(gres|tres)\S*[=:, ]\S*gpu",
    "lsf": r"^-gpu|ngpus",
    "sge": r"^-l .*gpu",
    "oar": "gpu",
    "htcondor": "^request_gpus",
}
"""Directives that ask for a GPU; a partition or queue may be called gpu too."""
_OWN_RESOURCES = {"pbs": "select=", "moab": "nodes="}
"""In a directive that says all of what ours would."""


class Job(Protocol):
    """What we need of a job of dask-jobqueue's."""

    job_id: str | None
    job_header: str
    log_directory: str | None

    def job_script(self) -> str:
        """The whole script."""

    async def start(self) -> Any:
        """Submit it; ``job_id`` is known then. RuntimeError with what the program said."""

    async def close(self) -> Any:
        """Cancel it."""


@dataclass(frozen=True)
class Jobs:
    """Makes the jobs of one run."""

    settings: ClusterSettings
    scheduler: str
    """Its address."""
    tasks: int
    """That a worker runs at a time."""
    logs: Path
    tls: Sequence[str] = ()
    """Options that name the files of the keys."""
    avoided: set[str] = field(default_factory=set)
    """Nodes that jobs keep away from."""

    def avoid(self, node: str) -> bool:
        """From now on no job goes to ``node``; False where we cannot say so."""
        if self.settings.system != "slurm":
            return False
        self.avoided.add(node)
        return True

    def job(self, name: str) -> Job:
        """A job whose worker is called ``name``.

        Raises
        ------
        ConfigError
            When the settings do not suit the batch system.
        """
        chosen: dict[str, Any] = {
            "scheduler": self.scheduler,
            "name": name,
            "job_name": NAME,
            "cores": self.settings.cpus,
            "memory": f"{self.settings.memory}B",
            "processes": 1,
            "nanny": True,
            "python": self.settings.python or shlex.quote(sys.executable),
            "worker_command": "n2v_scale.worker",
            "worker_extra_args": self._worker_options(),
            "death_timeout": DEATH_TIMEOUT_S,
            "local_directory": self.settings.scratch,
            "log_directory": str(self.logs),
            "job_script_prologue": list(self.settings.prologue),
            **_for_system(self.settings),
        }
        if self.settings.system == "oar":  # dask-jobqueue leaves its logs in the current folder
            logs = f"{self.logs}/{NAME}-%jobid%"
            chosen["job_extra_directives"] += [f"-O {logs}.out", f"-E {logs}.err"]
        if self.avoided:
            chosen["job_extra_directives"] += [f"--exclude={','.join(sorted(self.avoided))}"]
        given = {key: value for key, value in chosen.items() if value is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OAR's, of memory that it does not book
            try:
                made: Job = _job_class(self.settings.system)(**given)
            except (ValueError, TypeError, OSError) as error:
                raise ConfigError(f"{self.settings.system}: {error}") from error
        return made

    def log(self, job_id: str) -> Path | None:
        """The file with a job's last words, once it has said any."""
        # At the end: job 2 is neither 12 nor what n2v is called after.
        whole = re.compile(rf"(-|\.[eo]){re.escape(job_id)}(\.[a-z]+)?$")
        found = [path for path in self.logs.glob("*") if whole.search(path.name)]
        said = sorted(path for path in found if path.stat().st_size)
        return max(said, key=lambda path: _ERRORS.search(path.name) is not None, default=None)

    def _worker_options(self) -> list[str]:
        """Behind dask-jobqueue's own; of an option that is said twice, the last counts."""
        protocol = "tcp" if self.settings.insecure else "tls"
        nowhere = ["--dashboard-address", "127.0.0.1:0", "--no-dashboard"]
        options = ["--nanny", *nowhere, "--nthreads", str(self.tasks), "--protocol", protocol]
        options += ["--walltime", f"{self.settings.walltime:.0f}"]
        if self.settings.interface:
            options += ["--interface", self.settings.interface]
        return [*options, *map(shlex.quote, self.tls)]


def _for_system(settings: ClusterSettings) -> dict[str, Any]:
    """What each batch system calls the same."""
    cpus, gpus = settings.cpus, settings.gpus
    memory = f"{-(-settings.memory // 2**20)}MB"
    systems: dict[str, dict[str, Any]] = {
        "slurm": {"account": settings.account, "job_cpu": cpus},
        "pbs": {
            "account": settings.account,
            "resource_spec": f"select=1:ncpus={cpus}:mem={memory}" + (f":ngpus={gpus}" * gpus),
        },
        "moab": {
            "account": settings.account,
            "resource_spec": f"nodes=1:ppn={cpus}{f':gpus={gpus}' * gpus},mem={memory}",
        },
        "lsf": {"project": settings.account, "ncpus": cpus},
        "sge": {"project": settings.account},
        "oar": {"project": settings.account},
        "htcondor": {"disk": "1GB"},
    }
    own = systems[settings.system]
    if settings.system != "htcondor":
        own["queue"] = settings.partition
        own["walltime"] = _clock(settings.walltime, minutes_only=settings.system == "lsf")
    own["job_extra_directives"] = _directives(settings)
    resources = _OWN_RESOURCES.get(settings.system)
    if resources and any(resources in line for line in settings.directives):
        own["job_directives_skip"] = [resources]
    return own


def _directives(settings: ClusterSettings) -> list[str] | dict[str, str]:
    """The user's own, and a GPU's, where they do not ask for one themselves."""
    given = [line.strip() for line in settings.directives]
    gpu = {"slurm": "--gres=gpu:1", "lsf": '-gpu "num=1"', "sge": "-l gpu=1"}
    asked = re.compile(_OWN_GPU.get(settings.system, "gpu"), re.IGNORECASE)
    if settings.gpus and not any(asked.search(line) for line in given):
        if settings.system == "slurm" and any(map(_is_gres, given)):  # the last one counts alone
            given = [f"{line},gpu:1" if _is_gres(line) else line for line in given]
        elif settings.system in gpu:
            given.append(gpu[settings.system])
        elif settings.system == "htcondor":
            given.append("request_gpus = 1")
        elif settings.system == "oar":
            raise ConfigError(
                "gpus on oar: name the resource in directives, such as -p \"gpu='YES'\""
            )
    if settings.system != "htcondor":
        return given
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in given)}


def _is_gres(line: str) -> bool:
    return line.startswith("--gres=")


def _clock(total: float, *, minutes_only: bool) -> str:
    """Rounded up: a job that ends before its worker expects it loses what the worker does."""
    minutes, rest = divmod(math.ceil(total), 60)
    if minutes_only:
        minutes, rest = minutes + (rest > 0), 0
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}" + ("" if minutes_only else f":{rest:02}")


@contextmanager
def _nothing_touched() -> Iterator[None]:
    """dask-jobqueue 0.9 replaces the handler of Ctrl-C as it is imported, in a main thread only,
    and writes a file of examples into the home directory.
    """
    set_handler, ensure_file = signal.signal, dask.config.ensure_file
    signal.signal = lambda *_: None
    dask.config.ensure_file = lambda **_: None
    try:
        yield
    finally:
        signal.signal, dask.config.ensure_file = set_handler, ensure_file


CLASSES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
}
"""Of dask-jobqueue; each knows the class of its jobs."""


def _job_class(system: str) -> Any:
    try:
        with _nothing_touched():
            library: Any = import_module("dask_jobqueue")
    except ImportError as error:
        raise ClusterError(
            f"jobs of {system} need dask-jobqueue: pip install 'n2v-scale[slurm]'"
        ) from error
    return getattr(library, CLASSES[system]).job_cls
