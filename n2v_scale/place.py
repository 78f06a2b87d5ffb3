"""Where a run computes, and what each worker there has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from distributed import Client
from distributed.system import memory_limit

from n2v_scale.cluster import job_client, scheduler_client
from n2v_scale.cluster_settings import ClusterSettings, read_cluster
from n2v_scale.config import PredictSettings
from n2v_scale.cores import available_cores, split_cores
from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.found_workers import FoundWorkers, look_at_workers
from n2v_scale.memory import Budget
from n2v_scale.progress import NoProgress, Progress

MEMORY_SHARE = 0.8
"""Of the memory there is, when nobody said how much."""
CPU_TASKS = 2
MOST_TASKS = 8
"""Blocks that a worker with a GPU has in hand: one computes, the others read and write."""


@dataclass(frozen=True)
class Place:
    """Where a run computes."""

    settings: ClusterSettings = field(default_factory=ClusterSettings)
    client: Client | None = None
    """Of workers that are there already."""
    found: FoundWorkers | None = None
    """What these are."""

    def device(self, wanted: str) -> str:
        """The workers' device; ``auto`` becomes what they have.

        Raises
        ------
        ConfigError
            When they have no such device, as far as that is known here.
        """
        if wanted != "auto" and (wanted == "cpu" or self.settings.batch):
            return wanted
        if self.settings.batch:
            return "cuda" if self.settings.gpus else "cpu"
        if self.found is not None:
            return self.found.device(wanted)
        from n2v_scale.devices import choose_device

        return choose_device(wanted)

    @property
    def here(self) -> bool:
        """Whether the workers' devices are those of this machine."""
        return not self.settings.batch and self.found is None

    @contextmanager
    def workers(
        self, progress: Progress | None, *, patient: bool = False
    ) -> Iterator[Client | None]:
        """For what starts threads or processes of its own here, and is given None then.

        ``patient`` work is tried again however often a worker is lost with it.
        """
        if self.client is not None or not self.settings.batch:
            yield self.client
            return
        say = (progress or NoProgress()).say
        with job_client(
            self.settings, jobs=self.settings.jobs, tasks=CPU_TASKS, say=say, patient=patient
        ) as client:
            yield client

    def budget(self, settings: PredictSettings, device: str) -> Budget:
        """What each worker has: as told, as asked for, or this machine's share."""
        if self.settings.batch:
            return self._of_jobs(settings, device)
        if self.found is not None:
            return self._of_workers(self.found, settings, device)
        return _of_this_machine(settings, device)

    def _of_jobs(self, settings: PredictSettings, device: str) -> Budget:
        place = self.settings
        if settings.workers is not None:
            raise ConfigError("--workers is for this machine: a cluster of jobs has --jobs")
        if settings.memory is not None and settings.memory > place.memory:
            raise ConfigError(
                f"--memory {settings.memory / 1e9:.1f} GB is more than a job has, "
                f"{place.memory / 1e9:.1f} GB: leave it out, or give jobs more (memory = …)"
            )
        return Budget(
            settings.memory or int(MEMORY_SHARE * place.memory),
            place.jobs,
            _tasks(device, place.cpus),
            device,
            int(MEMORY_SHARE * place.gpu_memory) if place.gpu_memory else None,
            threads=place.cpus,
        )

    @staticmethod
    def _of_workers(found: FoundWorkers, settings: PredictSettings, device: str) -> Budget:
        if settings.workers is not None:
            raise ConfigError("--workers is for this machine: a scheduler has those that it has")
        limit = found.memory_bytes
        return Budget(
            settings.memory or (int(MEMORY_SHARE * limit) if limit else None),
            found.workers,
            max(2, found.tasks),
            device,
            None,
            threads=found.threads,
        )


LOCAL = Place()


def _of_this_machine(settings: PredictSettings, device: str) -> Budget:
    workers = settings.workers or (
        split_cores(available_cores())[0] if device == "cpu" else _devices(device)
    )
    return Budget(
        settings.memory or int(memory_limit() * MEMORY_SHARE) // workers,
        workers,
        _tasks(device, available_cores()),
        device,
        _device_bytes(device),
        threads=max(1, available_cores() // workers),
    )


def _tasks(device: str, cores: int) -> int:
    return CPU_TASKS if device == "cpu" else max(2, min(MOST_TASKS, cores))


def _devices(device: str) -> int:
    """One worker a GPU."""
    if device != "cuda":
        return 1
    from n2v_scale.devices import device_count

    return device_count()


def _device_bytes(device: str) -> int | None:
    """What may be taken of the GPU here; None without one."""
    if device != "cuda":
        return None
    from n2v_scale.devices import device_memory

    memory = device_memory()
    return None if memory is None else int(MEMORY_SHARE * memory)


@contextmanager
def place_of(
    cluster: ClusterSettings | str | None, client: Client | None = None
) -> Iterator[Place]:
    """Where a run computes; a scheduler that runs already is connected to until the end.

    Raises
    ------
    ConfigError
        When both a cluster and a client are given, or nobody knows the cluster.
    ClusterError
        When a scheduler does not answer, has no workers, or its workers lack this package.
    """
    if client is not None:
        if cluster is not None:
            raise ConfigError("cluster and client are both given: choose one")
        yield Place(client=client, found=look_at_workers(client))
        return
    chosen = read_cluster(cluster) if isinstance(cluster, str) else cluster or ClusterSettings()
    if chosen.system != "scheduler":
        yield Place(chosen)
        return
    with scheduler_client(chosen) as opened:
        found = look_at_workers(opened)
        if found is None:
            raise ClusterError(
                f"the scheduler {chosen.address} has no workers yet: start some, with n2v-scale "
                "installed in the same version, and run the same command again"
            )
        yield Place(chosen, opened, found)
