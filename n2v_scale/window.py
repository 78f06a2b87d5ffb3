"""One Dask task a block, submitted through a refilled window.

A scheduler that is given every block at once grows with the volume; a window does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from distributed import Client, Future, as_completed

from n2v_scale.errors import ClusterError, N2VScaleError

log = logging.getLogger(__name__)

Item = TypeVar("Item")

WINDOW_PER_THREAD = 2
SMALLEST_WINDOW = 4
GIVE_UP_AFTER = 3
"""With fewer failures than this the blocks are to blame, not the code."""


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of one item: a result, or the reason why there is none."""

    item: Item
    result: Any = None
    error: BaseException | None = None


def _attempt(function: Callable[[Item], Any], item: Item) -> Outcome[Item]:
    """The task: an exception is a result, so that no worker logs a traceback of its own."""
    try:
        return Outcome(item, result=function(item))
    except Exception as error:  # whatever it is, the others go on
        return Outcome(item, error=error)


def run_window(
    client: Client, function: Callable[[Item], Any], items: Iterable[Item]
) -> Iterator[Outcome[Item]]:
    """Apply ``function`` to every item on the cluster; outcomes as they come.

    A failure is an outcome like another, and the others go on. Futures that are still open when
    the caller stops early are cancelled.

    Raises
    ------
    N2VScaleError
        The failure itself, or a ClusterError that names it, when the whole first window fails:
        going on would only repeat it.
    """
    waiting = iter(items)
    open_items: dict[Future[Any], Item] = {}
    running = as_completed(loop=client.loop)

    def submit(count: int) -> None:
        for item in islice(waiting, count):
            future = client.submit(_attempt, function, item, pure=False)
            open_items[future] = item
            running.add(future)

    succeeded = failed = 0
    try:
        submit(_window(client))
        first = set(open_items)
        for future in running:
            item = open_items.pop(future)
            first.discard(future)
            outcome = _outcome(future, item)
            future.release()
            if outcome.error is None:
                succeeded += 1
            else:
                failed += 1
                log.info("%s failed: %s", item, outcome.error)
                if failed >= GIVE_UP_AFTER and not succeeded and not first:
                    raise _fault(outcome.error)
            yield outcome
            submit(_window(client) - len(open_items))
    finally:
        if open_items:
            client.cancel(list(open_items), force=True)


def _fault(error: BaseException) -> N2VScaleError:
    """What to tell of an error that every block meets."""
    if isinstance(error, N2VScaleError):
        return error
    cure = "a smaller --tile or fewer workers need less memory"
    return ClusterError(f"every block fails: {reason(error)} (if memory is short, {cure})")


def _outcome(future: Future[Any], item: Item) -> Outcome[Item]:
    """What a finished future holds; a worker that died leaves an exception."""
    if future.status == "finished":
        outcome: Outcome[Item] = future.result()
        return outcome
    return Outcome(item, error=future.exception() or RuntimeError(f"the task was {future.status}"))


def _window(client: Client) -> int:
    threads = sum(client.nthreads().values())
    return max(SMALLEST_WINDOW, WINDOW_PER_THREAD * int(threads))


def reason(error: BaseException) -> str:
    """An error in one line, for a list of failed blocks."""
    text = str(error).strip().splitlines()
    first = text[0] if text else "no message"
    return first if isinstance(error, N2VScaleError) else f"{type(error).__name__}: {first}"
