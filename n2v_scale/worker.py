"""A worker of a job: Dask's own, with this package's settings (``python -m n2v_scale.worker``).

Its options are those of ``dask worker``, and ``--walltime``: so many seconds after its start the
job ends. Shortly before, the worker takes no new task, finishes those that it has, and goes.
"""

from __future__ import annotations

import os
import random
import sys
import time
import uuid

from n2v_scale.walltime import ENDS_AT
from n2v_scale.worker_settings import worker_settings

STAGGER = 0.05
"""Of the walltime, at most: jobs that began together do not all go at once."""
LONGEST_STAGGER_S = 300.0


def main(arguments: list[str]) -> None:
    """Run a worker until it is told to end, or its walltime is."""
    import dask

    arguments = list(arguments)
    walltime = float(_taken(arguments, "--walltime") or 0)
    if walltime:
        stagger = random.uniform(0, min(STAGGER * walltime, LONGEST_STAGGER_S))
        # A prologue that knows better, as of a reservation's end, has said so.
        os.environ.setdefault(ENDS_AT, f"{time.time() + walltime - stagger:.0f}")
    if "--name" in arguments:
        # A job that is requeued comes back under its name, while its former self may not be gone.
        arguments[arguments.index("--name") + 1] += f".{uuid.uuid4().hex[:8]}"
    dask.config.set(worker_settings())
    from distributed.cli.dask_worker import main as dask_worker

    dask_worker([*arguments, "--preload", "n2v_scale.worker_setup"])


def _taken(arguments: list[str], option: str) -> str | None:
    """The value of ``option``, which is taken out of ``arguments``."""
    if option not in arguments:
        return None
    place = arguments.index(option)
    value = arguments[place + 1]
    del arguments[place : place + 2]
    return value


if __name__ == "__main__":
    main(sys.argv[1:])
