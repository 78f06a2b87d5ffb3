"""One Dask task a block, submitted through a refilled window.

A scheduler that is given every block at once grows with the volume; a window does not.
"""

from __future__ import annotations

import logging
import math
import pickle
import time
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar

from dask.utils import key_split
from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from n2v_scale.errors import ClusterError, InputError, N2VScaleError

log = logging.getLogger(__name__)

Item = TypeVar("Item")

WINDOW_PER_THREAD = 2
SMALLEST_WINDOW = 4
ATTEMPTS = 3
"""An item that failed so often is set aside."""
GIVE_UP_AFTER = 3
"""With fewer failures than this the blocks are to blame, not the code."""
STREAK = 16
"""So many items in a row that fail, and twice the window, stop a run: a disk is full."""
STREAK_OF_INPUT = 256
"""The same of input that cannot be read: a damaged file costs many blocks beside one another."""
MOST_PUT_OFF = 64
ASK_EVERY_S = 2.0
FORGET_EVERY = 1024
"""Tasks, in this process."""
_tasks = count(1)
GONE = (OSError, CancelledError, FutureCancelled)
LOST = (
    "the Dask scheduler is lost. Finished blocks are kept: the same command goes on with what is "
    "missing"
)


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of one item: a result, or the reason why there is none."""

    item: Item
    result: Any = None
    error: BaseException | None = None
    attempts: int = 1
    """How often it was tried; with an error it is tried no more."""


@dataclass(frozen=True)
class _Try(Generic[Item]):
    item: Item
    number: int = 1


def _attempt(function: Callable[[Item], Any], item: Item) -> Outcome[Item]:
    """The task: an exception is a result, so that no worker logs a traceback of its own."""
    _forget_names()
    try:
        return Outcome(item, result=function(item))
    except Exception as error:  # whatever it is, the others go on
        return Outcome(item, error=_sendable(error))


def _forget_names() -> None:
    """Now and then: Dask keeps the names of the last 100,000 tasks, a third of a kilobyte each."""
    if next(_tasks) % FORGET_EVERY == 0:
        key_split.cache_clear()


def _tidy_scheduler(dask_scheduler: Any) -> None:
    """On the scheduler: the same, and what it notes of every single submission, for ever."""
    key_split.cache_clear()
    extension = dask_scheduler.extensions.get("spans")
    for span in getattr(extension, "spans", {}).values():
        metadata = getattr(span, "_metadata", None)
        if metadata and len(metadata.get("collections", ())) > 1:
            del metadata["collections"][1:]


def _sendable(error: Exception) -> Exception:
    """The error, or what it says where it cannot travel to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a class of errors does
        return ClusterError(f"{type(error).__name__}: {error}")
    return error


class Crew:
    """The workers there are, asked of the scheduler now and then.

    Raises
    ------
    ClusterError
        From both properties, when the scheduler is lost.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
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
            with _scheduler_of(self.client):
                self.known = dict(self.client.nthreads())
            self.asked = time.monotonic()
        return self.known


@contextmanager
def _scheduler_of(client: Client) -> Iterator[None]:
    """Calls that need the scheduler; whatever they raise when it is lost says so."""
    try:
        yield
    except (Exception, CancelledError) as error:
        if client.status == "running" and not isinstance(error, GONE):
            raise
        raise ClusterError(LOST) from error


def run_window(
    client: Client,
    function: Callable[[Item], Any],
    items: Iterable[Item],
    *,
    crew: Crew | None = None,
) -> Iterator[Outcome[Item]]:
    """Apply ``function`` to every item on the cluster; one outcome an item, as they come.

    An item that fails is tried again after others, three times in all; then its failure is an
    outcome like another, and the others go on. Futures that are still open when the caller stops
    early are cancelled.

    Raises
    ------
    N2VScaleError
        The failure itself, or a ClusterError that names it, when nothing succeeds: the whole first
        window fails, or a long row of items. Going on would only repeat it.
    ClusterError
        When the scheduler is lost.
    """
    queue = _Queue(items)
    open_tries: dict[Future[Any], _Try[Item]] = {}
    running = as_completed(loop=client.loop)

    def submit(wanted: int) -> None:
        for _ in range(wanted):
            attempt = queue.next()
            if attempt is None:
                return
            with _scheduler_of(client):
                future = client.submit(_attempt, function, attempt.item, pure=False)
            open_tries[future] = attempt
            running.add(future)

    health, crew, finished = _Health(), crew or Crew(client), 0
    try:
        submit(crew.window)
        first = set(open_tries)
        for future in running:
            attempt = open_tries.pop(future)
            first.discard(future)
            finished += 1
            if finished % FORGET_EVERY == 0:
                with suppress(Exception):  # if the scheduler is lost, the next call says so
                    client.run_on_scheduler(_tidy_scheduler)
            outcome = _outcome(client, future, attempt)
            future.release()
            health.count(outcome, first_is_over=not first, window=crew.window)
            if outcome.error is not None and attempt.number < ATTEMPTS:
                queue.put_off(_Try(attempt.item, attempt.number + 1))
            else:
                yield outcome
            submit(crew.window - len(open_tries))
    finally:
        if open_tries:
            with suppress(ClusterError), _scheduler_of(client):
                client.cancel(list(open_tries), force=True)


class _Queue(Generic[Item]):
    """What is to be done: new items first, those put off after them, or when they become many."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.fresh = iter(items)
        self.late: deque[_Try[Item]] = deque()

    def next(self) -> _Try[Item] | None:
        if len(self.late) >= MOST_PUT_OFF:
            return self.late.popleft()
        for item in self.fresh:
            return _Try(item)
        return self.late.popleft() if self.late else None

    def put_off(self, attempt: _Try[Item]) -> None:
        self.late.append(attempt)


class _Health:
    """Whether a run gets anywhere."""

    def __init__(self) -> None:
        self.succeeded = self.failed = self.streak = 0

    def count(self, outcome: Outcome[Any], *, first_is_over: bool, window: int) -> None:
        """Raise when going on would only repeat what failed."""
        if outcome.error is None:
            self.succeeded += 1
            self.streak = 0
            return
        log.info("%s failed: %s", outcome.item, outcome.error)
        if outcome.attempts > 1:  # put off to the end, where failures gather
            return
        self.failed += 1
        self.streak += 1
        nothing_works = self.failed >= GIVE_UP_AFTER and not self.succeeded and first_is_over
        most = STREAK_OF_INPUT if isinstance(outcome.error, InputError) else STREAK
        if nothing_works or self.streak >= max(most, 2 * window):
            raise _fault(outcome.error, since_the_start=not self.succeeded)


def _fault(error: BaseException, *, since_the_start: bool) -> N2VScaleError:
    """What to tell of an error that every block meets."""
    if isinstance(error, N2VScaleError):
        return error
    what = "every block fails" if since_the_start else "every block fails now"
    cure = "a smaller --tile or fewer workers need less memory"
    return ClusterError(f"{what}: {reason(error)} (if memory is short, {cure})")


def _outcome(client: Client, future: Future[Any], attempt: _Try[Item]) -> Outcome[Item]:
    """What a finished future holds; a worker that died leaves an exception."""
    if future.status == "finished":
        with _scheduler_of(client):
            outcome: Outcome[Item] = future.result()
        return Outcome(attempt.item, outcome.result, outcome.error, attempt.number)
    if future.status != "error" and client.status != "running":
        raise ClusterError(LOST)
    error = future.exception() if future.status == "error" else None
    return Outcome(
        attempt.item,
        error=error or ClusterError(f"the task was {future.status}"),
        attempts=attempt.number,
    )


def reason(error: BaseException) -> str:
    """An error in one line, for a list of failed blocks."""
    if isinstance(error, KilledWorker):
        return "its worker died each time: killed, or out of memory"
    text = str(error).strip().splitlines()
    first = text[0] if text else "no message"
    return first if isinstance(error, N2VScaleError) else f"{type(error).__name__}: {first}"
