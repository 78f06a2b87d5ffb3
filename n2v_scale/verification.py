"""Whether an output is whole: every stored byte against the ledger; and what to do if not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from distributed import Client

from n2v_scale.cluster import local_client
from n2v_scale.config import PredictSettings
from n2v_scale.cores import available_cores
from n2v_scale.denoiser import open_denoiser
from n2v_scale.errors import IncompleteError, ModelError, OutputError
from n2v_scale.execution import Summary, run_plan
from n2v_scale.foreground import open_foreground
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import remember
from n2v_scale.io.writer import array_exists
from n2v_scale.ledger import Ledger
from n2v_scale.lock import driver_lock
from n2v_scale.output import ledger_of
from n2v_scale.plan import Plan, plan_key
from n2v_scale.prediction import budget_for
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.recovery import forget, levels_of, rewritten
from n2v_scale.resume import recorded_plan

MOST_WORKERS = 8
LISTED = 20


@dataclass(frozen=True)
class Verification:
    """What is wrong with an output; block numbers by level."""

    output: str
    blocks: int
    """Of the full resolution."""
    missing: dict[str, list[int]]
    """Blocks that were never finished."""
    damaged: dict[str, list[int]]
    """Blocks whose shards are not what was written."""
    problems: list[str]
    """With the output as a whole."""

    @property
    def whole(self) -> bool:
        """Nothing is wrong."""
        return not (self.missing or self.damaged or self.problems)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"whole": self.whole, **asdict(self)}

    def text(self) -> str:
        """For people."""
        if self.whole:
            return f"{self.output}: whole, {self.blocks} blocks and their pyramid"
        lines = [f"{self.output}: not whole", *(f"  {problem}" for problem in self.problems)]
        for what, found in (("missing", self.missing), ("damaged", self.damaged)):
            for level, numbers in found.items():
                listed = ", ".join(map(str, numbers[:LISTED]))
                more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
                lines.append(f"  level {level}: {len(numbers)} blocks {what}: {listed}{more}")
        return "\n".join(lines)


def stored_plan(store: str, storage: StorageOptions) -> Plan:
    """The plan that the output at ``store`` was made by.

    Raises
    ------
    OutputError
        When there is no output of this package.
    """
    remember(store, storage)
    record = Ledger(store, "").record()
    if record is None:
        raise OutputError(f"{store} is no output of n2v-scale: there is no record of a run in it")
    return recorded_plan(record, store, storage)


def verify_output(
    store: str,
    *,
    storage: StorageOptions,
    client: Client | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read every shard back and compare it with what was written; nothing is changed.

    Neither the input nor the model is needed.

    Raises
    ------
    OutputError
        When there is no output of this package.
    """
    plan = stored_plan(store, storage)
    ledger = ledger_of(plan)
    with _client(client) as used:
        return _verify(plan, ledger, used, progress or NoProgress())


def _verify(plan: Plan, ledger: Ledger, client: Client, progress: Progress) -> Verification:
    missing: dict[str, list[int]] = {}
    damaged: dict[str, list[int]] = {}
    problems = _problems(plan, ledger)
    for level in levels_of(plan):
        path = level.spec.path
        numbers = np.flatnonzero(~ledger.done(path, len(level.grid))).tolist()
        bad = rewritten(level, plan.storage, client, ledger, progress)
        missing |= {path: numbers} if numbers else {}
        damaged |= {path: bad} if bad else {}
    return Verification(plan.output.store, plan.blocks, missing, damaged, problems)


def _problems(plan: Plan, ledger: Ledger) -> list[str]:
    record = ledger.record() or {}
    problems = [] if record["complete"] else ["it was not finished"]
    if record["key"] != plan_key(record["plan"]):
        problems.append("its record was changed")
    torn = [level.spec.path for level in levels_of(plan) if not array_exists(level.spec)]
    return problems + [f"level {path} has no readable metadata" for path in torn]


def repair_output(
    store: str,
    *,
    storage: StorageOptions,
    client: Client | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Verify, forget what is damaged, and compute that and what is missing again.

    Raises
    ------
    InputError, ModelError
        When the input or the model is not where it was, or another one now.
    """
    progress = progress or NoProgress()
    plan = stored_plan(store, storage)
    _check_denoiser(plan)
    ledger = ledger_of(plan)
    with _client(client) as used:
        with driver_lock(store, wait=progress.say):
            for level in levels_of(plan):
                ledger.fold_loose(level.spec.path)
            found = _verify(plan, ledger, used, progress)
            if found.damaged:
                ledger.update(complete=False)
            forget(plan, ledger, found.damaged)
        return _go_on(plan, slice(None), client=used, progress=progress)


def pyramid_of(
    store: str,
    *,
    storage: StorageOptions,
    client: Client | None = None,
    progress: Progress | None = None,
) -> Summary:
    """The lower resolutions of an output whose full resolution is finished.

    Raises
    ------
    IncompleteError
        When blocks of the full resolution are missing.
    """
    plan = stored_plan(store, storage)
    summary = _go_on(plan, slice(0), client=client, progress=progress)
    if summary.missing:
        raise IncompleteError(
            f"{store}: {summary.missing} of {summary.blocks} blocks of the full resolution are "
            "missing, and the pyramid is made from them: run predict again"
        )
    return summary


def _go_on(plan: Plan, only: slice, *, client: Client | None, progress: Progress | None) -> Summary:
    """Compute what is missing of the output that :func:`stored_plan` found."""
    record = ledger_of(plan).record() or {}
    if mask := record["plan"]["foreground"]:
        plan = replace(
            plan,
            foreground=open_foreground(mask["address"], plan.volume, storage_options=plan.storage),
        )
    settings = PredictSettings()
    budget = budget_for(settings, plan.device)
    return run_plan(plan, settings, budget, only=only, client=client, progress=progress)


def _check_denoiser(plan: Plan) -> None:
    found = open_denoiser(plan.denoiser).key
    if found != plan.denoiser_key:
        raise ModelError(
            f"{plan.denoiser} is not the model that {plan.output.store} was made with: put that "
            "model back, or start afresh with predict --overwrite"
        )


def _client(client: Client | None) -> AbstractContextManager[Client]:
    if client is not None:
        return nullcontext(client)
    return local_client(min(available_cores(), MOST_WORKERS))
