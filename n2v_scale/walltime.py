"""A worker that goes in time: before its job's end it takes no new task and finishes what it has.

Dask's ``--lifetime`` leaves in the midst of a task.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from distributed import Worker, WorkerPlugin
from distributed.core import Status

ENDS_AT = "N2V_SCALE_ENDS_AT"
"""In the environment: when the job ends, in seconds since 1970."""
LEAST_MARGIN_S = 30.0
MARGIN = 1.5
"""Of the longest task so far; a task may take longer than those before it."""
LOOK_EVERY_S = 1.0


class InTime(WorkerPlugin):
    """Lets a worker go when its longest task would not fit any more before ``ends_at``."""

    name = "n2v_scale.walltime"

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.begun: dict[Any, float] = {}
        self.longest = 0.0
        self.watching: asyncio.Task[None] | None = None

    def setup(self, worker: Worker) -> None:
        """Begin to watch the clock."""
        self.watching = asyncio.ensure_future(self._watch(worker))

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Take the time of each task."""
        if finish == "executing":
            self.begun[key] = time.monotonic()
        elif start == "executing":
            took = time.monotonic() - self.begun.pop(key, time.monotonic())
            self.longest = max(self.longest, took)

    def last_moment(self) -> float:
        """When a new task may begin for the last time, in seconds since 1970."""
        return self.ends_at - max(LEAST_MARGIN_S, MARGIN * self.longest)

    async def _watch(self, worker: Worker) -> None:
        while time.time() < self.last_moment():
            await asyncio.sleep(LOOK_EVERY_S)
        worker.status = Status.paused  # what it has begun goes on
        while self.begun:
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.sleep(LOOK_EVERY_S)  # the driver fetches the last results
        await worker.close_gracefully(restart=False, reason="n2v-scale: the walltime ends")


def walltime_plugin() -> InTime | None:
    """For the worker of a job that ends; None where nothing says so."""
    ends_at = os.environ.get(ENDS_AT)
    return InTime(float(ends_at)) if ends_at else None
