"""One Dask task a block, submitted through a refilled window.

A scheduler that is given every block at once grows with the volume; a window does not.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from itertools import count
from socket import gethostname
from typing import Any, Generic, TypeVar

from dask.utils import key_split
from distributed import Client, Future, as_completed, get_worker
from distributed.scheduler import KilledWorker

from n2v_scale.crew import ASK_EVERY_S, LOST, Crew, scheduler_of
from n2v_scale.errors import ClusterError, InputError, N2VScaleError

log = logging.getLogger(__name__)

Item = TypeVar("Item")

ATTEMPTS = 3
"""An item that failed so often is set aside."""
GIVE_UP_AFTER = 3
"""With fewer failures than this the blocks are to blame, not the code."""
STREAK = 16
"""So many items in a row that fail, and twice the window, stop a run: a disk is full."""
STREAK_OF_INPUT = 256
"""The same of input that cannot be read: a damaged file costs many blocks beside one another."""
MOST_PUT_OFF = 64
MOST_EXCUSES = 100
"""An item that was so often on a worker that was taken away counts as any other one after that."""
FORGET_EVERY = 1024
"""Tasks, in this process."""
_tasks = count(1)


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of one item: a result, or the reason why there is none."""

    item: Item
    result: Any = None
    error: BaseException | None = None
    attempts: int = 1
    """How often it was tried; with an error it is tried no more."""
    worker: str = ""
    """The name of the worker that ran it."""


@dataclass(frozen=True)
class _Try(Generic[Item]):
    item: Item
    number: int = 1
    killed: int = 0
    """Workers that were lost with it, for no reason that is known."""
    lost: int = 0
    """Workers that were lost for another reason."""
    excused: bool = False
    """Whether that was so the last time."""

    @property
    def suspect(self) -> bool:
        """Whether it has its last try, alone: it, or one beside it, has cost workers."""
        return self.killed == ATTEMPTS - 1


def _attempt(function: Callable[[Item], Any], item: Item, home: str) -> Outcome[Item]:
    """The task: an exception is a result, so that no worker logs a traceback of its own.

    ``home`` is the machine that asks.
    """
    _forget_names()
    try:
        return Outcome(item, result=function(item), worker=str(get_worker().name))
    except Exception as error:  # whatever it is, the others go on
        return Outcome(item, error=_sendable(placed(error, gethostname(), home)))


def placed(error: Exception, node: str, home: str) -> Exception:
    """``error`` with the node where it was met, unless that is ``home``: what is missing there may
    well be here.
    """
    if node == home or not isinstance(error, N2VScaleError) or len(error.args) != 1:
        return error
    named = copy(error)
    named.args = (f"on node {node}: {error}",)
    return named


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


def run_window(
    client: Client,
    function: Callable[[Item], Any],
    items: Iterable[Item],
    *,
    crew: Crew | None = None,
    proven: bool = False,
) -> Iterator[Outcome[Item]]:
    """Apply ``function`` to every item on the cluster; one outcome an item, as they come.

    An item that fails is tried again after others, three times in all; then its failure is an
    outcome like another, and the others go on. Futures that are still open when the caller stops
    early are cancelled. Where the function is ``proven``, as other items have succeeded before, a
    run goes on although all that is left fails.

    Raises
    ------
    N2VScaleError
        The failure itself, or a ClusterError that names it, when nothing succeeds: the whole first
        window fails, or a long row of items. Going on would only repeat it.
    ClusterError
        When the scheduler is lost.
    """
    crew = crew or Crew(client)
    queue = _Queue(items)
    open_tries: dict[Future[Any], _Try[Item]] = {}
    running, home = as_completed(loop=client.loop), gethostname()

    def submit() -> None:
        for _ in range(crew.window - len(open_tries)):
            attempt = queue.next(alone=not open_tries)
            if attempt is None:
                return
            with scheduler_of(client):
                future = client.submit(_attempt, function, attempt.item, home, pure=False)
            open_tries[future] = attempt
            running.add(future)

    health, finished = _Health(proven=proven), 0
    try:
        submit()
        first = set(open_tries)
        for future in _as_they_come(running, crew, submit):
            attempt = open_tries.pop(future)
            first.discard(future)
            finished += 1
            if finished % FORGET_EVERY == 0:
                with suppress(Exception):  # if the scheduler is lost, the next call says so
                    client.run_on_scheduler(_tidy_scheduler)
            outcome, again = _weighed(crew, attempt, _outcome(client, future, attempt))
            future.release()
            if again is None or not again.excused:
                health.count(outcome, first_is_over=not first, window=crew.window)
            if again is None:
                yield outcome
            else:
                queue.put_off(again)
            submit()
    finally:
        if open_tries:
            with suppress(ClusterError), scheduler_of(client):
                client.cancel(list(open_tries), force=True)


def _as_they_come(
    running: as_completed, crew: Crew, more: Callable[[], None]
) -> Iterator[Future[Any]]:
    """Futures that are done. While none is, whether workers still come, and ``more`` for new ones.

    Raises
    ------
    ClusterError
        When the watch over the workers gives up.
    """
    asked = time.monotonic()
    while not running.is_empty():
        if running.has_ready():
            yield next(running)
            continue
        crew.watch.check()
        if time.monotonic() - asked > ASK_EVERY_S:
            asked = time.monotonic()
            more()
        with running.thread_condition:
            running.thread_condition.wait(timeout=0.1)


def _weighed(
    crew: Crew, attempt: _Try[Item], outcome: Outcome[Item]
) -> tuple[Outcome[Item], _Try[Item] | None]:
    """The outcome, and how the item is tried again, if it is."""
    if outcome.error is None:
        crew.watch.worked(outcome.worker)
        return outcome, None
    if not isinstance(outcome.error, KilledWorker):
        again = attempt.number < ATTEMPTS
        return outcome, replace(attempt, number=attempt.number + 1) if again else None
    worker = str(outcome.error.last_worker.name)
    if crew.watch.excused(worker) and attempt.lost < MOST_EXCUSES:
        return outcome, replace(attempt, lost=attempt.lost + 1, excused=True)
    killed = attempt.killed + 1
    if killed == ATTEMPTS:
        return outcome, None
    return outcome, replace(attempt, killed=killed, excused=False)


class _Queue(Generic[Item]):
    """What is to be done: new items first, those put off after them, or when they become many.

    Suspects come last, one at a time, with no other task beside them.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.fresh = iter(items)
        self.late: deque[_Try[Item]] = deque()
        self.suspects: deque[_Try[Item]] = deque()
        self.trying_suspects = False

    def next(self, *, alone: bool) -> _Try[Item] | None:
        """The next try; ``alone`` when no other one is open."""
        if self.trying_suspects and not alone:
            return None
        self.trying_suspects = False
        if len(self.late) >= MOST_PUT_OFF:
            return self.late.popleft()
        for item in self.fresh:
            return _Try(item)
        if self.late:
            return self.late.popleft()
        if not self.suspects or not alone:
            return None
        self.trying_suspects = True
        return self.suspects.popleft()

    def put_off(self, attempt: _Try[Item]) -> None:
        """Try it again, later."""
        (self.suspects if attempt.suspect else self.late).append(attempt)


class _Health:
    """Whether a run gets anywhere."""

    def __init__(self, *, proven: bool = False) -> None:
        self.proven = proven
        """Whether the same has succeeded before: what is left may be only what failed then."""
        self.succeeded = self.failed = self.streak = 0
        self.lost: set[str] = set()
        """Workers that were lost with items."""

    def count(self, outcome: Outcome[Any], *, first_is_over: bool, window: int) -> None:
        """Raise when going on would only repeat what failed."""
        if outcome.error is None:
            self.succeeded += 1
            self.streak = 0
            return
        log.info("%s failed: %s", outcome.item, outcome.error)
        if outcome.attempts > 1 or self._known_loss(outcome.error):
            return  # put off to the end, where failures gather; or beside one that is counted
        self.failed += 1
        self.streak += 1
        hopeless = not (self.succeeded or self.proven)
        nothing_works = self.failed >= GIVE_UP_AFTER and hopeless and first_is_over
        most = STREAK_OF_INPUT if isinstance(outcome.error, InputError) else STREAK
        if nothing_works or self.streak >= max(most, 2 * window):
            raise _fault(outcome.error, since_the_start=not self.succeeded)

    def _known_loss(self, error: BaseException) -> bool:
        """Whether the error is the loss of a worker with which other items were lost before."""
        if not isinstance(error, KilledWorker):
            return False
        worker = str(error.last_worker.server_id)
        known = worker in self.lost
        self.lost.add(worker)
        return known


def _fault(error: BaseException, *, since_the_start: bool) -> N2VScaleError:
    """What to tell of an error that every block meets."""
    if isinstance(error, N2VScaleError):
        return error
    what = "every block fails" if since_the_start else "every block fails now"
    cure = "a smaller --tile or fewer workers need less memory"
    return ClusterError(f"{what}: {reason(error)} (if memory is short, {cure})")


def _outcome(client: Client, future: Future[Any], attempt: _Try[Item]) -> Outcome[Item]:
    """What a finished future holds; a worker that died leaves an exception."""
    attempts = attempt.number + attempt.killed
    if future.status not in ("error", "cancelled"):
        try:
            with scheduler_of(client):
                outcome: Outcome[Item] = future.result()
        except KilledWorker as lost:  # it was done, and died before it had handed the result over
            return Outcome(attempt.item, error=lost, attempts=attempts)
        return replace(outcome, item=attempt.item, attempts=attempts)
    if future.status != "error" and client.status != "running":
        raise ClusterError(LOST)
    error = future.exception() if future.status == "error" else None
    if error is None:
        error = ClusterError(f"the task was {future.status}")
    return Outcome(attempt.item, error=error, attempts=attempts)


def reason(error: BaseException) -> str:
    """An error in one line, for a list of failed blocks."""
    if isinstance(error, KilledWorker):
        return "its worker died each time: killed, or out of memory"
    text = str(error).strip().splitlines()
    first = text[0] if text else "no message"
    return first if isinstance(error, N2VScaleError) else f"{type(error).__name__}: {first}"
