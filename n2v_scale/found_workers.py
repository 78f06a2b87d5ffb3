"""What the workers of a scheduler that runs already are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from distributed import Client

from n2v_scale._version import __version__
from n2v_scale.errors import ClusterError, ConfigError


@dataclass(frozen=True)
class FoundWorkers:
    """Workers, by the least of what each has."""

    workers: int
    memory_bytes: int | None
    """None where nothing limits it."""
    threads: int
    tasks: int
    """Threads of Dask's, each of which runs a task."""
    devices: tuple[str, ...]
    """That all of them have, the best first."""

    def device(self, wanted: str) -> str:
        """``auto`` becomes the best that all have; another word must be one of them."""
        if wanted == "auto":
            return self.devices[0]
        if wanted not in self.devices:
            raise ConfigError(
                f"device {wanted} is not available on every worker; available: "
                f"{', '.join(self.devices)}"
            )
        return wanted


def look_at_workers(client: Client) -> FoundWorkers | None:
    """Ask each worker what it has; None when there are none.

    Raises
    ------
    ClusterError
        When a worker has another version of this package, or none.
    """
    threads = client.nthreads()
    if not threads:
        return None
    try:
        answers = client.run(_answer)
    except Exception as error:  # whatever an import or a connection raises
        raise ClusterError(
            f"the workers do not know n2v-scale {__version__} ({error}): install it where they run"
        ) from error
    versions = Counter(str(answer["version"]) for answer in answers.values())
    if set(versions) != {__version__}:
        told = ", ".join(f"{n} with {version}" for version, n in versions.items())
        raise ClusterError(f"here is n2v-scale {__version__}, and workers: {told}")
    limits = [answer["memory"] for answer in answers.values() if answer["memory"]]
    least = min(threads.values())
    cuda = all(answer["cuda"] for answer in answers.values())
    return FoundWorkers(
        workers=len(threads),
        memory_bytes=min(limits, default=None),
        threads=least,
        tasks=least,
        devices=("cuda", "cpu") if cuda else ("cpu",),
    )


def _answer(dask_worker: Any) -> dict[str, Any]:
    import torch

    limit = getattr(dask_worker.memory_manager, "memory_limit", None)
    return {"version": __version__, "memory": limit, "cuda": torch.cuda.is_available()}
