"""What every worker process does first; Dask loads it by name."""

from __future__ import annotations

import signal
import threading
from typing import Any

from n2v_scale.walltime import walltime_plugin


async def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the driver: it ends the workers.

    Where the worker is a job with a walltime, let it go in time.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    plugin = walltime_plugin()
    if plugin is not None:
        await worker.plugin_add(plugin, name=plugin.name)
