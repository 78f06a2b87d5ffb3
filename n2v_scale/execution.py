"""A whole run over a volume: lock, output, blocks, pyramid, end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter, time
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client

from n2v_scale.blocks import BlockReport, predict_block, writing
from n2v_scale.cluster import open_client
from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.config import PredictSettings
from n2v_scale.crew import Crew
from n2v_scale.denoiser import open_denoiser
from n2v_scale.errors import IncompleteError, OutputError, PlanError
from n2v_scale.events import Events, RunEnded, RunStarted
from n2v_scale.grids import Block
from n2v_scale.journal import Journal
from n2v_scale.levels import Driver, Totals, run_level
from n2v_scale.lock import driver_lock
from n2v_scale.memory import Budget, check_budget
from n2v_scale.output import (
    Output,
    accept_input,
    begin_output,
    check_output,
    clear_output,
    find_output,
    finish_output,
    ledger_of,
    tidy_output,
)
from n2v_scale.plan import Plan
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.pyramid import shrink_block
from n2v_scale.recovery import Level, all_done, is_intact, levels_of, recheck_input
from n2v_scale.worker_precision import with_precision

LISTED = 20
"""Blocks that failed and are named in the message."""


@dataclass(frozen=True)
class Summary:
    """What a run did. Seconds of reading, waiting, computing and writing add up over workers."""

    output: str
    blocks: int
    computed: int
    """Blocks of this run; the others were done before, or are not wanted."""
    missing: int
    """Blocks that are still to be done."""
    lower_missing: int
    """The same of the lower resolutions."""
    voxels: int
    skipped: int
    """Voxels that needed no forward pass: empty, or outside the mask."""
    already_finished: bool
    """Nothing was left to do."""
    posterior: bool | None
    """Whether each voxel's own value was put back; None where the model has seen it."""
    no_posterior: str | None
    """Why not."""
    workers: int
    seconds: float
    read_s: float
    wait_s: float
    compute_s: float
    write_s: float

    @property
    def busy(self) -> float:
        """The share of the workers' time in which they computed."""
        return self.compute_s / max(1e-9, self.seconds * self.workers)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "busy": self.busy}


def run_plan(
    plan: Plan,
    settings: PredictSettings,
    budget: Budget,
    *,
    overwrite: bool = False,
    client: Client | None = None,
    cluster: ClusterSettings | None = None,
    progress: Progress | None = None,
    events: Events | None = None,
    only: slice | list[int] | None = None,
    full: bool = True,
    pyramid: bool = True,
    name: str = "predicting",
) -> Summary:
    """Write what is missing of the plan's output; on a finished one, nothing.

    Parameters
    ----------
    client
        Of workers that are there already.
    cluster
        Where to start workers otherwise; here when None.
    only
        The numbers of the blocks that are wanted; the others wait for another run.
    full
        Whether to compute blocks of the full resolution. Without, ``plan`` is the one that the
        output has on record, and neither the input nor the denoiser is looked at.
    pyramid
        Whether to make the lower resolutions too.

    Raises
    ------
    IncompleteError
        When blocks failed. The others are written; the same call computes only these.
    OutputError, PlanError
        When the output cannot be begun or taken up, or another process is writing it.
    """
    started = perf_counter()
    progress, events = progress or NoProgress(), events or Events()
    only = only if full else slice(0)
    with _recorded(events) as totals:
        check_output(plan)
        found = None if overwrite else find_output(plan, settings, look_at_input=full)
        if found is not None and found.complete and is_intact(found.plan, found.ledger):
            tidy_output(plan.output.store, progress.say)
            return _summary(found.plan, totals, 0, started, already_finished=True)
        with driver_lock(plan.output.store, wait=progress.say) as lock:
            if overwrite:
                clear_output(plan)
            with _CrewOnDemand(client, cluster, budget, progress) as crew:
                if plan.precision_is_open and ledger_of(plan).record() is None:
                    wanted = _to_do(Output(plan, complete=False), only, pyramid=pyramid)
                    plan = with_precision(plan, crew.of(plan, wanted), progress)
                    lock.check()  # a worker may have been waited for, for hours
                output = begin_output(plan, settings, look_at_input=full)
                if full:
                    _recheck_budget(output.plan, budget)
                    _say_posterior(output.plan, progress)
                to_do = _to_do(output, only, pyramid=pyramid)
                if not to_do and _waits(output) and not output.input_changed:
                    return _summary(output.plan, totals, 0, started)  # and no worker is started
                used = crew.of(output.plan, to_do)
                driver = Driver(used, output.ledger, lock, progress, events)
                with _noted(driver, output, settings, totals, started):
                    _run(driver, output, totals, only=only, pyramid=pyramid, name=name)
                workers = used.workers
            _raise_incomplete(output, totals)
    return _summary(output.plan, totals, workers, started)


def _run(
    driver: Driver,
    output: Output,
    totals: Totals,
    *,
    only: slice | list[int] | None,
    pyramid: bool,
    name: str,
) -> None:
    """The blocks; once they are all done the pyramid, level by level, and the end."""
    plan = output.plan
    if output.input_changed:
        recheck_input(plan, driver.crew.client, output.ledger, driver.progress)
        accept_input(output)
    for level, task in _tasks(plan):
        full = level.spec.path == plan.output.path
        if not full and not pyramid:
            return
        missing = ~output.ledger.done(level.spec.path, len(level.grid))
        wanted = missing & _selected(only if full else None, len(missing))
        if full:
            driver.events.write(
                RunStarted(plan.output.store, plan.key, len(missing), int(wanted.sum()))
            )
        what = name if full else f"pyramid level {level.spec.path}"
        run_level(driver, task, level, wanted, totals if full else totals.lower, name=what)
        if totals.failures or totals.lower.failures or (missing & ~wanted).any():
            return
    if not all_done(plan, output.ledger):
        raise IncompleteError(
            f"{plan.output.store} lost a part of its ledger while it was written: the same command "
            "computes the blocks that are no longer in it"
        )
    finish_output(output)


def _tasks(plan: Plan) -> Iterator[tuple[Level, Callable[[Block], BlockReport]]]:
    """Every level with what makes a block of it."""
    full, *lower = levels_of(plan)
    yield full, partial(predict_block, plan)
    source = plan.output
    for level, made in zip(lower, plan.levels, strict=True):
        yield level, partial(shrink_block, source, made, plan.storage)
        source = made.array


def _selected(only: slice | list[int] | None, blocks: int) -> npt.NDArray[np.bool_]:
    chosen = np.zeros(blocks, bool)
    try:
        chosen[only if only is not None else slice(None)] = True
    except IndexError:
        raise PlanError(f"blocks {only} are wanted, and they go from 0 to {blocks - 1}") from None
    return chosen


def _say_posterior(plan: Plan, progress: Progress) -> None:
    """Before hours of computing: a blind prediction without it is worse."""
    if plan.no_posterior is not None:
        progress.say(f"each voxel's own value is not put back: {plan.no_posterior}")


def _recheck_budget(plan: Plan, budget: Budget) -> None:
    """A resumed plan has the sizes of the run that began it: they must fit here too."""
    denoiser = open_denoiser(plan.denoiser, plan.open_options)
    check_budget(
        plan.volume,
        denoiser,
        plan.sizes,
        plan.output.dtype,
        budget,
        mask=plan.foreground,
        parts=plan.parts,
    )


class _CrewOnDemand(ExitStack):
    """Workers that are started when they are first asked for, and stopped at the end."""

    def __init__(
        self,
        client: Client | None,
        cluster: ClusterSettings | None,
        budget: Budget,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.client, self.cluster = client, cluster or ClusterSettings()
        self.budget, self.progress = budget, progress
        self.started: Crew | None = None

    def of(self, plan: Plan, to_do: int) -> Crew:
        """Workers for so many blocks of ``plan``; once there are some, these."""
        if self.started is None:
            self.started = Crew(self.client or self.enter_context(self._opened(plan, to_do)))
        return self.started

    def _opened(self, plan: Plan, to_do: int) -> AbstractContextManager[Client]:
        together = self.budget.tasks if self.cluster.batch else 1  # a job is dearer than a process
        return open_client(
            self.cluster,
            workers=min(self.budget.workers, -(-max(1, to_do) // together)),
            tasks=self.budget.tasks,
            say=self.progress.say,
            a_gpu_each=plan.device == "cuda",
        )


def _to_do(output: Output, only: slice | list[int] | None, *, pyramid: bool) -> int:
    """Blocks that are wanted of the first level that lacks any; 0 where these are not wanted."""
    for level, _ in _tasks(output.plan):
        missing = ~output.ledger.done(level.spec.path, len(level.grid))
        full = level.spec.path == output.plan.output.path
        if missing.any():
            chosen = _selected(only, len(missing)) if full else np.full(len(missing), pyramid)
            return int((missing & chosen).sum())
    return 0


def _waits(output: Output) -> bool:
    """Whether blocks are missing, of any level."""
    return not all_done(output.plan, output.ledger)


@contextmanager
def _recorded(events: Events) -> Iterator[Totals]:
    """Totals to fill; how it ended becomes an event, whatever happens."""
    started, totals = perf_counter(), Totals()
    outcome, message = "failed", ""
    try:
        yield totals
        outcome = "finished"
    except IncompleteError as error:
        outcome, message = "incomplete", str(error)
        raise
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    except BaseException as error:
        message = str(error)
        raise
    finally:
        seconds = round(perf_counter() - started, 3)
        failures = totals.failures + totals.lower.failures
        events.write(RunEnded(outcome, seconds, totals.computed, failures, message))


@contextmanager
def _noted(
    driver: Driver, output: Output, settings: PredictSettings, totals: Totals, started: float
) -> Iterator[None]:
    """The run is in the journal afterwards, however it ends, for who reads it later."""
    try:
        yield
    finally:
        with suppress(OutputError):  # nothing depends on it
            if driver.lock.held:
                _note_run(driver, output, settings, totals, started)


def _note_run(
    driver: Driver, output: Output, settings: PredictSettings, totals: Totals, started: float
) -> None:
    spec, journal = output.plan.output, Journal(output.plan.output.store, output.plan.output.path)
    run = {
        "ended": round(time(), 3),
        "seconds": round(perf_counter() - started, 3),
        "workers": driver.crew.announced,
        "computed": totals.computed,
        "asked": settings.model_dump(mode="json", exclude_unset=True, exclude_none=True),
    }
    with writing(spec.store, "the journal"):
        done = output.ledger.done(spec.path, output.plan.blocks)
        failed = {n: why for n, why in journal.failed().items() if not done[n]}
        journal.add_run(run, {**failed, **totals.failed})


def _raise_incomplete(output: Output, totals: Totals) -> None:
    for part, what in (
        (totals, f"of {output.plan.blocks} blocks"),
        (totals.lower, "blocks of the pyramid"),
    ):
        if part.failures:
            listed = [f"  block {n}: {why}" for n, why in sorted(part.failed.items())[:LISTED]]
            more = [f"  … and {part.failures - LISTED} more"] if part.failures > LISTED else []
            raise IncompleteError(
                f"{output.plan.output.store}: {part.failures} {what} failed and are not written; "
                "the others are. The same command computes only what is missing.\n"
                + "\n".join(listed + more)
            )


def _summary(
    plan: Plan, totals: Totals, workers: int, started: float, *, already_finished: bool = False
) -> Summary:
    ledger = ledger_of(plan)
    full, *lower = (~ledger.done(level.spec.path, len(level.grid)) for level in levels_of(plan))
    return Summary(
        output=plan.output.store,
        blocks=plan.blocks,
        computed=totals.computed,
        missing=int(full.sum()),
        lower_missing=sum(int(level.sum()) for level in lower),
        voxels=totals.voxels,
        skipped=totals.skipped,
        already_finished=already_finished,
        posterior=False if plan.no_posterior else True if plan.noise else None,
        no_posterior=plan.no_posterior,
        workers=workers,
        seconds=perf_counter() - started,
        read_s=totals.read_s,
        wait_s=totals.wait_s,
        compute_s=totals.compute_s,
        write_s=totals.write_s,
    )
