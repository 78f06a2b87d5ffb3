"""A Dask client for whatever is to compute: one door to this machine, batch systems, schedulers.

TLS wherever something leaves the process. What runs on this machine alone is in
:mod:`n2v_scale.local_cluster`.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import dask
from distributed import Client
from distributed.security import Security
from distributed.utils import get_ip

from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.jobqueue.credentials import Credentials, temporary_credentials
from n2v_scale.jobqueue.keeper import JobKeeper
from n2v_scale.jobqueue.scripts import Jobs
from n2v_scale.jobqueue.states import asking
from n2v_scale.local_cluster import client_of, local_client
from n2v_scale.signals import uninterrupted
from n2v_scale.watch import watch_over
from n2v_scale.worker_settings import worker_settings

CONNECT_S = 30.0
PATIENCE = 50
"""Workers that may be lost with a task before Dask gives it up."""


def open_client(
    settings: ClusterSettings,
    *,
    workers: int,
    tasks: int,
    say: Callable[[str], None] = print,
    a_gpu_each: bool = False,
) -> AbstractContextManager[Client]:
    """A client of up to ``workers`` processes of ``tasks`` tasks at a time, wherever they run.

    ``say`` is told what becomes of jobs; ``a_gpu_each`` gives every worker on this machine a GPU
    of its own. Raises what :func:`job_client` and :func:`scheduler_client` raise.
    """
    if settings.system == "scheduler":
        return scheduler_client(settings)
    if settings.batch:
        return job_client(settings, jobs=workers, tasks=tasks, say=say)
    return local_client(workers, threads=tasks, a_gpu_each=a_gpu_each)


@contextmanager
def job_client(
    settings: ClusterSettings,
    *,
    jobs: int,
    tasks: int,
    say: Callable[[str], None],
    patient: bool = False,
) -> Iterator[Client]:
    """A client whose workers are jobs of a batch system, up to ``jobs`` of ``tasks`` tasks each.

    The scheduler runs here. Jobs that are lost are replaced, and cancelled at the end.

    Parameters
    ----------
    say
        Is told, in a sentence each, what becomes of the jobs.
    patient
        Whether Dask itself runs a task again when its worker is lost, for callers who do not.

    Raises
    ------
    ClusterError
        When the batch system takes no job, with its words.
    ConfigError
        When the settings do not suit it.
    """
    shared = shared_folder(settings)
    logs = shared / "logs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    keys: AbstractContextManager[Credentials | None] = (
        nullcontext() if settings.insecure else temporary_credentials(shared)
    )
    with (
        keys as made,
        _no_job_left() as keepers,
        client_of(
            losses=PATIENCE if patient else 0,
            n_workers=0,
            processes=True,
            host=settings.host or (None if settings.interface else get_ip()),
            interface=settings.interface,
            scheduler_port=settings.port,
            protocol="tcp://" if made is None else "tls://",
            security=made and made.security,
        ) as client,
    ):
        scripts = Jobs(settings, _address_of(client), tasks, logs, tls=made.options if made else ())
        keeper = JobKeeper(
            scripts.job,
            asking(settings.system),
            partial(_tasks_in_hand, client),
            partial(_retire, client),
            scripts.log,
            client.close,
            scripts.avoid,
            most=jobs,
            tasks=tasks,
            wait_s=settings.wait,
            say=say,
        )
        keepers.append(keeper)
        try:
            with uninterrupted():
                keeper.start()
            say(f"{jobs} {'jobs are' if jobs > 1 else 'job is'} asked for; their logs: {logs}")
            watch_over(client, keeper)
            yield client
        except BaseException:
            keeper.check()  # what followed from its giving up is of less interest
            raise
        finally:
            with uninterrupted():
                keeper.stop()


def job_script(settings: ClusterSettings) -> str:
    """The script of a job as it would be submitted; the scheduler's address is made up.

    Nothing is written, neither here nor in the home directory.

    Raises
    ------
    ConfigError
        When the settings do not suit the batch system.
    """
    shared = shared_folder(settings)
    tls = ("--tls-ca-file", *("--tls-cert", "--tls-key"))
    keys = [] if settings.insecure else [part for o in tls for part in (o, f"{shared}/keys-…")]
    scheme = "tcp" if settings.insecure else "tls"
    with tempfile.TemporaryDirectory() as logs:  # dask-jobqueue makes the folder that it is told
        jobs = Jobs(settings, f"{scheme}://SCHEDULER:PORT", 2, Path(logs), tls=keys)
        return jobs.job("n2v-1").job_script().replace(logs, str(shared / "logs"))


@contextmanager
def _no_job_left() -> Iterator[list[JobKeeper]]:
    """Once the scheduler is closed, workers go by themselves; what is left then is cancelled."""
    keepers: list[JobKeeper] = []
    try:
        yield keepers
    finally:
        with uninterrupted():
            for keeper in keepers:
                keeper.cancel_what_is_left()


def _address_of(client: Client) -> str:
    scheduler: Any = client.scheduler
    return str(scheduler.address)


def shared_folder(settings: ClusterSettings) -> Path:
    """What this machine and the nodes both see: as told, or in the home directory.

    Raises
    ------
    ConfigError
        When it names a variable that is not set, or the home directory and there is none.
    """
    folder = os.path.expandvars(settings.shared or "~/.n2v-scale")
    if "$" in folder:
        raise ConfigError(f"shared = {settings.shared!r} names a variable that is not set here")
    try:
        return Path(folder).expanduser().absolute()
    except RuntimeError:
        raise ConfigError(
            f"shared = {folder!r}: no home directory is known here; set HOME, or set shared to a "
            "folder that the nodes see too"
        ) from None


def _tasks_in_hand(client: Client) -> dict[str, int]:
    found: dict[str, int] = client.run_on_scheduler(_in_hand)
    return found


def _in_hand(dask_scheduler: Any) -> dict[str, int]:
    return {str(w.name): len(w.processing) for w in dask_scheduler.workers.values()}


def _retire(client: Client, names: list[str]) -> None:
    client.run_on_scheduler(_begin_to_retire, names=names)


def _begin_to_retire(dask_scheduler: Any, names: list[str]) -> None:
    """Nobody waits for it: it takes as long as the workers take."""
    going = dask_scheduler.retire_workers(names=names, close_workers=True, stimulus_id="n2v-scale")
    task = asyncio.ensure_future(going)
    _retiring.add(task)
    task.add_done_callback(_retiring.discard)


_retiring: set[asyncio.Future[Any]] = set()
"""Kept here, or they may be forgotten before they are done."""


@contextmanager
def scheduler_client(settings: ClusterSettings) -> Iterator[Client]:
    """A client of a scheduler that runs already, whose workers are somebody else's.

    Raises
    ------
    ConfigError
        When it speaks without TLS, and nobody said that this is meant.
    ClusterError
        When it does not answer, or lets nobody in without a certificate.
    """
    address = _address(settings)
    if not address.startswith("tls://") and not settings.insecure:
        raise ConfigError(
            f"{address} has no TLS: whoever reaches it may run anything there, and reads what is "
            "sent. Start it with certificates, or say --insecure on a network that is your own"
        )
    security = Security(
        tls_ca_file=settings.tls_ca,
        tls_client_cert=settings.tls_cert,
        tls_client_key=settings.tls_key,
        require_encryption=address.startswith("tls://"),
    )
    with dask.config.set(worker_settings()):
        try:
            with uninterrupted():
                client = Client(address, security=security, timeout=CONNECT_S, set_as_default=False)
        except (TypeError, ValueError) as error:
            raise ClusterError(
                f"the scheduler {address} cannot be talked to (a tls:// scheduler needs --tls-ca, "
                f"--tls-cert and --tls-key): {error}"
            ) from error
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"the scheduler {address} does not answer within {CONNECT_S:g} s: {error}"
            ) from error
        try:
            yield client
        finally:
            with uninterrupted():
                client.close()


def _address(settings: ClusterSettings) -> str:
    """Of a scheduler; a file says it as Dask writes it, ``{"address": …}``."""
    given = settings.address or ""
    if "://" in given:
        return given
    try:
        return str(json.loads(Path(given).read_text())["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{given} is not the scheduler file of a running scheduler: {error}"
        ) from None
