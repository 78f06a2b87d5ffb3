"""The workers that a client has, and what is to be known when the scheduler is lost."""

from __future__ import annotations

import math
import time
from asyncio import CancelledError
from collections.abc import Iterator
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import contextmanager

from distributed import Client

from n2v_scale.errors import ClusterError
from n2v_scale.watch import watch_of

WINDOW_PER_THREAD = 2
SMALLEST_WINDOW = 4
ASK_EVERY_S = 2.0
GONE = (OSError, CancelledError, FutureCancelled)
LOST = (
    "the Dask scheduler is lost. Finished blocks are kept: the same command goes on with what is "
    "missing"
)


class Crew:
    """The workers there are, asked of the scheduler now and then, and who looks after them.

    Raises
    ------
    ClusterError
        From both properties, when the scheduler is lost.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.watch = watch_of(client)
        self.known: dict[str, int] = {}
        self.asked = -math.inf
        self.announced = 0
        """How many workers the log of events was last told of."""

    @property
    def workers(self) -> int:
        """How many."""
        return len(self._ask())

    @property
    def window(self) -> int:
        """How many tasks may be open: twice as many as run at a time."""
        return max(SMALLEST_WINDOW, WINDOW_PER_THREAD * sum(self._ask().values()))

    def _ask(self) -> dict[str, int]:
        if time.monotonic() - self.asked > ASK_EVERY_S:
            with scheduler_of(self.client):
                self.known = dict(self.client.nthreads())
            self.asked = time.monotonic()
        return self.known


@contextmanager
def scheduler_of(client: Client) -> Iterator[None]:
    """Calls that need the scheduler; whatever they raise when it is lost says so."""
    try:
        yield
    except (Exception, CancelledError) as error:
        if client.status == "running" and not isinstance(error, GONE):
            raise
        raise ClusterError(LOST) from error
