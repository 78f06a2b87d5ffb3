"""As many workers as there is work for, as jobs of a batch system that loses them.

dask-jobqueue submits; whoever dies before it connects, is cancelled while it waits, is requeued or
leaves in time is looked after here. A job that a person, a preemption, its walltime or a lost node
has ended is replaced, however often. What ends by itself, before its worker has done anything,
counts against its node, and after three in a row no more jobs go there. Where nothing else works,
or the batch system cannot be told, they stop the run; so do the first three, wherever they were.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from n2v_scale.errors import ClusterError, N2VScaleError
from n2v_scale.jobqueue.scripts import Job
from n2v_scale.jobqueue.states import UNKNOWN, Ask, JobState, State
from n2v_scale.progress import amount_text, clock

LOOK_EVERY_S = 2.0
ASK_EVERY_S = (2.0, 30.0)
"""The queue is asked in a tenth of the time since anything has happened, within these."""
FAILED_STARTS = 3
"""So many jobs in a row that end by themselves with nothing done, on one node, stop a run."""
REFUSALS = 5
"""So many submissions in a row that fail stop a run in which nothing is left; the first one does
at once."""
REFUSED_WAIT_S = 30.0
HOLD_S = 5.0
"""No job for so long after the first that failed at its start, and longer after others."""
PROGRAM_S = 60.0
"""For a batch system's program to take or cancel a job."""
RECONNECT_S = 120.0
"""A running job whose worker went so long ago gets no other one from its nanny."""
STOP_S = 2 * PROGRAM_S
"""The jobs may be looked after, or another one be submitted, at this moment."""
GOING_S = 10.0
VERDICT_S = 10.0
"""So long it may take until the queue tells how a job has ended."""
LASTING_S = 60.0
"""A worker that was there for so long did not fail at its start."""
LAST_WORDS = 12
"""Lines of a log."""
SUBMITTED = JobState(State.WAITING, "submitted")
NOWHERE = "a node that the queue does not tell"


@dataclass
class Entry:
    """A job of ours."""

    name: str
    job: Job
    number: str
    since: float
    """When it was submitted, or when its worker was last there."""
    state: JobState = SUBMITTED
    connected: bool = False
    first: float | None = None
    """When its worker came first."""
    worked: bool = False
    retired: bool = False
    """Told to go, as there is too little to do."""
    seen: dict[str, int] = field(default_factory=dict)
    """Names of its workers, and how often the job had been restarted when each came."""

    @property
    def node(self) -> str:
        """Where it runs or ran."""
        return self.state.node or NOWHERE


class JobKeeper:
    """Keeps jobs; a :class:`n2v_scale.watch.Watch`.

    Parameters
    ----------
    make
        A job whose worker has this name; nothing is submitted yet.
    ask
        What the batch system says of jobs.
    workers
        Names of the workers that are connected, and how many tasks each has in hand.
    retire
        Lets the workers of these names go, when they have finished what they do.
    log
        Where the job of this number writes its last words.
    give_up
        Is called when no worker will come any more: whoever waits for one is to be woken.
    avoid
        Keeps jobs that are made from now on away from a node; False where that cannot be.
    most
        Jobs at a time.
    tasks
        That a worker runs at a time.
    wait_s
        So long there may be no worker.
    """

    def __init__(
        self,
        make: Callable[[str], Job],
        ask: Ask,
        workers: Callable[[], Mapping[str, int]],
        retire: Callable[[list[str]], None],
        log: Callable[[str], Path | None],
        give_up: Callable[[], Any],
        avoid: Callable[[str], bool],
        *,
        most: int,
        tasks: int,
        wait_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.make, self.ask, self.workers, self.retire, self.log = make, ask, workers, retire, log
        self.give_up, self.avoid_node = give_up, avoid
        self.avoided: set[str] = set()
        self.most, self.tasks, self.wait_s, self.say = most, tasks, wait_s, say
        self.wanted = most
        self.entries: list[Entry] = []
        self.known: dict[str, Entry] = {}
        """Every job of this run, by name; ``entries`` are those that are not over."""
        self.asked = self.changed = -math.inf
        self.made = 0
        self.failure: N2VScaleError | None = None
        self.failed_starts: Counter[str] = Counter()
        self.failed = self.too_short = 0
        self.blocks = False
        """Whether tasks are blocks, each of which is told of when it is done."""
        """Starts, in all."""
        self.refused, self.held_until = 0, -math.inf
        self.alone_since = time.monotonic()
        self.spoken = time.monotonic()
        self.looking = threading.RLock()
        self.begun, self.stopping = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._keep, name="n2v-scale jobs", daemon=True)

    # -- for the driver ------------------------------------------------------------------------

    def start(self) -> None:
        """Submit the first jobs, and look after them until :meth:`stop`.

        Raises
        ------
        ClusterError
            With the batch system's words, when it takes none.
        """
        self.thread.start()
        self.begun.wait()
        self.check()

    def stop(self) -> None:
        """Look after the jobs no more; those without a worker are cancelled."""
        self.stopping.set()
        if self.thread.ident is not None:
            self.thread.join(STOP_S)
        self._apart(self._cancel, [e for e in self.entries if not (e.connected or e.retired)])

    def cancel_what_is_left(self) -> None:
        """Give workers, whose scheduler is gone, a moment to go; cancel those that do not."""
        until = time.monotonic() + GOING_S
        left = [entry for entry in self.entries if entry.connected or entry.retired]
        while left and time.monotonic() < until:
            time.sleep(0.5)
            states = self.ask([entry.number for entry in left])
            if states is not None:
                left = [e for e in left if not states.get(e.number, UNKNOWN).over]
        self._apart(self._cancel, left)

    @staticmethod
    def _apart(act: Callable[[list[Entry]], None], entries: list[Entry]) -> None:
        """In a thread of its own: an event loop may be running in this one."""
        acting = threading.Thread(target=act, args=(entries,))
        acting.start()
        acting.join()

    def check(self) -> None:
        """See :class:`n2v_scale.watch.Watch`."""
        if self.failure is not None:
            raise self.failure

    def need(self, tasks: int) -> None:
        """See :class:`n2v_scale.watch.Watch`."""
        self.blocks = True
        self.wanted = max(1, min(self.most, -(-tasks // self.tasks)))

    def worked(self, worker: str) -> None:
        """See :class:`n2v_scale.watch.Watch`."""
        entry = self._entry(worker)
        if entry is not None:
            entry.worked = True
            self.failed_starts.pop(entry.node, None)
            self.too_short = 0

    def excused(self, worker: str) -> bool:
        """See :class:`n2v_scale.watch.Watch`."""
        entry, until = self._entry(worker), time.monotonic() + VERDICT_S
        if entry is None:
            return False
        while True:
            with self.looking:
                self._update(now=True)
            state = entry.state
            if state.state is not State.ENDING or time.monotonic() > until:
                again = state.restarts > entry.seen.get(worker, 0)
                return again or state.state in (State.TAKEN, State.WAITING, State.ENDING)
            time.sleep(0.5)

    # -- looking -------------------------------------------------------------------------------

    def _keep(self) -> None:
        while self.failure is None:
            try:
                self.look()
            except N2VScaleError as error:  # the settings do not suit, or a package is missing
                self.failure = self.failure or error
            except Exception as error:  # whatever it is, the driver has to be told
                if not self.stopping.is_set():
                    self.failure = self.failure or ClusterError(
                        f"the jobs cannot be looked after any more: {error}"
                    )
            self.begun.set()
            if self.stopping.wait(LOOK_EVERY_S):
                return
        self.give_up()

    def look(self) -> None:
        """One look at the queue and the workers, and what follows from it."""
        with self.looking:
            self._update()
            self._give_up_lost()
            for entry in [e for e in self.entries if e.state.over]:
                self.entries.remove(entry)
                self._judge(entry)
            if self.failure is None and not self.stopping.is_set():
                staying = sum(not entry.retired for entry in self.entries)
                self._submit(self.wanted - staying)
                self._let_go(staying - self.wanted)
                self._mind_the_time()

    def _update(self, *, now: bool = False) -> None:
        """Who is connected, and, if it is time or must be ``now``, what the queue says."""
        self._note_workers()
        if not self.entries or not (now or self._due()):
            return
        self.asked = time.monotonic()
        states = self.ask([entry.number for entry in self.entries])
        if states is None:  # it does not answer; nothing is known to have changed
            return
        for entry in self.entries:
            found = states.get(entry.number)
            if found is None and (entry.connected or self._is_new(entry)):
                continue
            lost = replace(UNKNOWN, node=entry.state.node, restarts=entry.state.restarts)
            if (found or lost) != entry.state:
                self.changed = self.asked
            entry.state = found or lost

    def _is_new(self, entry: Entry) -> bool:
        """Whether it was submitted this moment, so that the queue may not know it yet."""
        return not entry.seen and self.asked - entry.since < VERDICT_S

    def _note_workers(self) -> None:
        now, of_job = time.monotonic(), defaultdict(list)
        for name in self.workers():
            of_job[_job_of(name)].append(name)
        for entry in self.entries:
            mine = of_job[entry.name]
            for name in mine:
                entry.seen.setdefault(name, entry.state.restarts)
            if bool(mine) != entry.connected:
                entry.connected, self.changed = bool(mine), now
            if mine:
                entry.since = self.alone_since = now
                entry.first = entry.first or now

    def _due(self) -> bool:
        now = time.monotonic()
        least, most = ASK_EVERY_S
        return now - self.asked >= min(most, max(least, (now - self.changed) / 10))

    def _give_up_lost(self) -> None:
        """Jobs that run on although their worker is gone for good."""
        now = time.monotonic()
        for entry in self.entries:
            running = entry.state.state is State.RUNNING and entry.seen and not entry.connected
            if running and now - entry.since > RECONNECT_S:
                self._cancel([entry])
                words = f"its worker did not come back within {clock(RECONNECT_S)}"
                entry.state = replace(entry.state, state=State.ENDED, words=words)

    def _judge(self, entry: Entry) -> None:
        """What a job that is over says of the others."""
        if entry.retired:
            return
        if entry.state.state is State.TAKEN:
            self.say(f"job {entry.number} is gone ({entry.state.words}): another one goes on")
            self._judge_walltime(entry)
            return
        lasted = entry.first is not None and entry.since - entry.first > LASTING_S
        if entry.worked or lasted or (entry.seen and entry.state.state is State.DONE):
            return
        if entry.node in self.avoided:  # it was submitted before that was known
            return
        self.failed_starts[entry.node] += 1
        self.failed += 1
        # No flood, and time for the workers of other jobs to come and prove that it is the node.
        self.held_until = time.monotonic() + min(REFUSED_WAIT_S, HOLD_S * self.failed)
        came = any(known.seen for known in self.known.values())
        bad_node = self.failed_starts[entry.node] >= FAILED_STARTS
        if not bad_node and (came or self.failed < FAILED_STARTS):
            self.say(
                f"job {entry.number} ended on {entry.node} without having done anything "
                f"({entry.state.words}): another one goes on"
            )
            return
        where = f" on {entry.node}" if bad_node else ""
        told = (
            f"{FAILED_STARTS} jobs in a row ended{where} without having done anything; the last "
            f"one is {entry.number}, on {entry.node}: {entry.state.words}. "
            f"{self._last_words(entry)}"
        )
        if bad_node and any(e.connected for e in self.entries) and self._avoid(entry.node):
            self.say(f"{told}\nNo more jobs go to {entry.node}; the others go on")
            return
        self.failure = ClusterError(
            f"{told}\nFinished blocks are kept: the same command goes on with what is missing"
        )

    def _judge_walltime(self, entry: Entry) -> None:
        """Whether a walltime is too short for any block at all."""
        late = "TIMEOUT" in entry.state.words and entry.seen and not entry.worked
        if not (late and self.blocks):
            return
        self.too_short += 1
        if self.too_short >= FAILED_STARTS:
            self.failure = ClusterError(
                f"{FAILED_STARTS} jobs in a row have reached their walltime before their first "
                "block was done: a longer walltime (in the cluster's TOML), or smaller --block"
            )

    def _avoid(self, node: str) -> bool:
        if node == NOWHERE or not self.avoid_node(node):
            return False
        self.avoided.add(node)
        return True

    def _last_words(self, entry: Entry) -> str:
        path = self.log(entry.number)
        if path is None:
            return "It has written no log"
        lines = path.read_text(errors="replace").strip().splitlines()[-LAST_WORDS:]
        return "\n".join([f"Its log {path} ends with", *(f"  {line}" for line in lines)])

    def _mind_the_time(self) -> None:
        alone = time.monotonic() - self.alone_since
        if any(entry.connected for entry in self.entries):
            return
        if alone > self.wait_s:
            self.failure = ClusterError(
                f"no worker for {clock(alone)}: {self.queue_says()}. Wait longer (wait = … in the "
                "cluster's TOML), or ask for less; finished blocks are kept, and the same command "
                "goes on"
            )
        elif time.monotonic() - self.spoken > _patience(alone):
            self.spoken = time.monotonic()
            self.say(f"no worker for {clock(alone)}: {self.queue_says()}")

    def queue_says(self) -> str:
        """The jobs that are there, by what the queue says of them."""
        words = Counter(entry.state.words for entry in self.entries)
        said = [f"{amount_text(n, 'job')} {word}" for word, n in words.most_common()]
        return "the queue says: " + ", ".join(said) if said else "no job is in the queue"

    # -- acting --------------------------------------------------------------------------------

    def _submit(self, missing: int) -> None:
        if time.monotonic() < self.held_until:
            return
        for _ in range(missing):
            if self.stopping.is_set():
                return
            self.made += 1
            name = f"n2v-{self.made}"
            job = self.make(name)
            try:
                asyncio.run(asyncio.wait_for(job.start(), PROGRAM_S))
            except (RuntimeError, OSError, ValueError) as error:
                self._refuse(error)
                return
            self.refused = 0
            self.changed = time.monotonic()
            entry = Entry(name, job, str(job.job_id), self.changed)
            self.known[name] = entry
            self.entries.append(entry)

    def _refuse(self, error: Exception) -> None:
        self.refused, self.held_until = self.refused + 1, time.monotonic() + REFUSED_WAIT_S
        words = of_program(error)
        if self.made == 1 or (self.refused >= REFUSALS and not self.entries):
            self.failure = ClusterError(f"the batch system takes no job: {words}")
        else:
            self.say(f"the batch system took no further job, which is tried again: {words}")

    def _let_go(self, surplus: int) -> None:
        """Jobs that have not begun first, then workers that have nothing in hand."""
        if surplus <= 0:
            return
        staying = [e for e in self.entries if not e.retired and not e.connected]
        waiting = [e for e in staying if not e.seen or e.state.state is State.WAITING]
        some = waiting[-surplus:]
        for entry in some:
            entry.retired = True
        self._cancel(some)
        if surplus > len(some):
            idle = [name for name, tasks in self.workers().items() if not tasks]
            names = [name for name in idle if self._stays(name)][: surplus - len(some)]
            for entry in filter(None, map(self._entry, names)):
                entry.retired = True
            if names:
                self.retire(names)

    def _stays(self, worker: str) -> bool:
        entry = self._entry(worker)
        return entry is not None and not entry.retired

    def _cancel(self, entries: list[Entry]) -> None:
        async def close() -> None:
            closing = (asyncio.wait_for(e.job.close(), PROGRAM_S) for e in entries)
            await asyncio.gather(*closing, return_exceptions=True)

        if entries:
            with suppress(OSError, RuntimeError):
                asyncio.run(close())

    def _entry(self, worker: str) -> Entry | None:
        return self.known.get(_job_of(worker))


def _job_of(worker: Any) -> str:
    """A worker's name is its job's, a dot, and something of its own."""
    return str(worker).partition(".")[0]


def _patience(alone_s: float) -> float:
    """Seconds between two words about having no worker: 10 at first, a tenth of the time later."""
    return max(10.0, alone_s / 10)


def of_program(error: Exception) -> str:
    """What the program itself said, out of dask-jobqueue's account of it."""
    if isinstance(error, TimeoutError):
        return f"its program does not answer within {clock(PROGRAM_S)}"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is not installed here: run this on a login node"
    text = str(error)
    for part in ("stderr:\n", "stdout:\n"):
        said = text.partition(part)[2].strip().removesuffix("stderr:").strip()
        if said:
            return " ".join(said.split())
    return " ".join(text.split())
