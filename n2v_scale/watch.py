"""Who looks after a client's workers, where somebody does."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakKeyDictionary

from distributed import Client


class Watch(Protocol):
    """Keeps as many workers as there is work for."""

    def check(self) -> None:
        """Return while workers are there or may still come.

        Raises
        ------
        ClusterError
            That says why none will.
        """

    def need(self, tasks: int) -> None:
        """So many tasks are left."""

    def worked(self, worker: str) -> None:
        """The worker of this name has finished a task."""

    def excused(self, worker: str) -> bool:
        """Whether this worker was lost for a reason that no task has given."""


class NoWatch:
    """Nobody: workers are there, or a scheduler's owner looks after them."""

    def check(self) -> None:
        """See :class:`Watch`."""

    def need(self, tasks: int) -> None:
        """See :class:`Watch`."""

    def worked(self, worker: str) -> None:
        """See :class:`Watch`."""

    def excused(self, worker: str) -> bool:
        """See :class:`Watch`."""
        del worker
        return False


_watches: WeakKeyDictionary[Client, Watch] = WeakKeyDictionary()


def watch_over(client: Client, watch: Watch) -> None:
    """From now on ``watch`` looks after the workers of ``client``."""
    _watches[client] = watch


def watch_of(client: Client) -> Watch:
    """Who looks after the workers of ``client``."""
    return _watches.get(client) or NoWatch()
