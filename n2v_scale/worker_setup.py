"""What every worker process does first; Dask loads it by name."""

from __future__ import annotations

import signal
import threading
from typing import Any

from n2v_scale.allocator import keep_slabs


def dask_setup(worker: Any) -> None:
    """Keep slabs; leave Ctrl-C, which a terminal sends to all processes, to the driver."""
    del worker
    keep_slabs()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
