"""Dask's settings for processes that run our blocks, wherever they run."""

from __future__ import annotations

from typing import Any

import dask

from n2v_scale.allocator import ENVIRONMENT

QUIET: dict[str, Any] = {
    "distributed.admin.tick.limit": "60s",
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.pause": False,
    "distributed.comm.timeouts.connect": "60s",
    # Nothing that grows with the number of tasks.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.log-length": 1000,
    "distributed.admin.low-level-log-length": 1000,
    "distributed.scheduler.dashboard.tasks.task-stream-length": 1000,
}
"""No warnings about long blocks or memory that torch keeps: both are normal here."""


def worker_settings() -> dict[str, Any]:
    """For ``dask.config.set``: how workers start, and :data:`QUIET`."""
    usual: dict[str, Any] = dask.config.get("distributed.nanny.pre-spawn-environ", {})
    return {**QUIET, "distributed.nanny.pre-spawn-environ": usual | ENVIRONMENT}
