"""Whether an output is whole: every stored byte against the ledger; and what to do if not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from distributed import Client

from n2v_scale.config import PredictSettings
from n2v_scale.cores import available_cores
from n2v_scale.denoiser import open_denoiser
from n2v_scale.errors import IncompleteError, ModelError, OutputError
from n2v_scale.execution import Summary, run_plan
from n2v_scale.foreground import open_foreground
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import remember
from n2v_scale.io.writer import ArraySpec, delete_keys, get_attributes, open_output
from n2v_scale.ledger import Ledger
from n2v_scale.local_cluster import local_client
from n2v_scale.lock import driver_lock
from n2v_scale.output import ledger_of
from n2v_scale.place import LOCAL, Place
from n2v_scale.plan import PLAN_FORMAT, Plan, plan_key
from n2v_scale.progress import NoProgress, Progress, amount_text
from n2v_scale.recovery import forget, levels_of, rewritten
from n2v_scale.resume import recorded_plan

MOST_WORKERS = 8
LISTED = 20
FULL = "0"
UNFINISHED = "it was not finished"
DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
TORN = (ValueError, KeyError, TypeError, FileNotFoundError)
"""What zarr raises of metadata that is torn or gone; a store that fails raises something else."""


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

    @property
    def cure(self) -> str:
        """What to do when it is not whole."""
        full_is_well = FULL not in {*self.missing, *self.damaged}
        if full_is_well and not self.damaged and self.problems in ([], [UNFINISHED]):
            return "its full resolution is: the command pyramid makes the rest"
        return "run the command that made it again, or verify --repair"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"whole": self.whole, **asdict(self)}

    def text(self) -> str:
        """For people."""
        blocks = amount_text(self.blocks, "block")
        if self.whole:
            return f"{self.output}: whole, {blocks} and the lower resolutions are as written"
        lines = [f"{self.output}: not whole", *(f"  {problem}" for problem in self.problems)]
        for what, found in (("missing", self.missing), ("damaged", self.damaged)):
            for level, numbers in found.items():
                listed = ", ".join(map(str, numbers[:LISTED]))
                more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
                count = amount_text(len(numbers), "block")
                lines.append(f"  level {level}: {count} {what} (number {listed}{more})")
        return "\n".join(lines)


def stored_plan(store: str, storage: StorageOptions) -> Plan:
    """The plan that the output at ``store`` was made by.

    Raises
    ------
    OutputError
        When there is no output of this package, or one of another version that is kept otherwise.
    """
    remember(store, storage)
    record = Ledger(store, "").record()
    if record is None:
        raise OutputError(
            f"{store} is no output of n2v-scale: there is no readable record of a run in it"
        )
    if record["plan"].get("format") != PLAN_FORMAT or "volume" not in record:
        raise OutputError(
            f"{store} was written by n2v-scale {record.get('package_version', '(unknown)')}, "
            "which keeps its record otherwise: use that version, or predict --overwrite"
        )
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
        numbers = np.flatnonzero(~ledger.done(path, len(level.grid), loose=True)).tolist()
        some = len(numbers) < len(level.grid)
        bad = rewritten(level, plan.storage, client, ledger, progress) if some else []
        missing |= {path: numbers} if numbers else {}
        damaged |= {path: bad} if bad else {}
    return Verification(plan.output.store, plan.blocks, missing, damaged, problems)


def _problems(plan: Plan, ledger: Ledger) -> list[str]:
    record = ledger.record() or {}
    problems = [] if record["complete"] else [UNFINISHED]
    if record["key"] != plan_key(record["plan"]):
        problems.append("its record was changed")
    for path in _torn(plan, finished=record["complete"]):
        what = f"level {path}" if path else "the image"
        problems.append(f"the metadata of {what} is damaged")
    return problems


def _torn(plan: Plan, *, finished: bool) -> list[str]:
    """The arrays, and "" for the image itself, of which the metadata is not what was written."""
    specs = [level.spec for level in levels_of(plan)]
    torn = [spec.path for spec in specs if not _is_sound(spec)]
    expected = {spec.path for spec in (specs if finished else specs[:1])}
    return torn if expected <= _listed_levels(plan.output.store) else ["", *torn]


def _listed_levels(store: str) -> set[str]:
    attributes = get_attributes(store, "") or {}
    try:
        (image,) = attributes.get("ome", attributes)["multiscales"]
        return {dataset["path"] for dataset in image["datasets"]}
    except (*TORN, AttributeError):
        return set()


def _is_sound(spec: ArraySpec) -> bool:
    """Whether the array opens, and is laid out as it should be."""
    try:
        array = open_output(spec)
    except TORN:
        return False
    layout = array.shape, array.chunks, array.shards or array.chunks, array.dtype.name
    return bool(layout == (spec.shape, spec.chunk, spec.shard, spec.dtype))


def repair_output(
    store: str,
    *,
    storage: StorageOptions,
    client: Client | None = None,
    place: Place = LOCAL,
    progress: Progress | None = None,
) -> Summary:
    """Verify, forget what is damaged, and compute that and what is missing again.

    Input and model are needed only where blocks of the full resolution are to be computed.

    Raises
    ------
    InputError, ModelError
        When the input or the model is not where it was, or another one now.
    """
    progress = progress or NoProgress()
    plan = stored_plan(store, storage)
    ledger = ledger_of(plan)
    with _client(client) as used:
        with driver_lock(store, wait=progress.say):
            for level in levels_of(plan):
                ledger.fold_loose(level.spec.path)
            found = _verify(plan, ledger, used, progress)
            full = FULL in {*found.missing, *found.damaged}
            if full:
                _check_denoiser(plan)
            _forget_metadata(plan, ledger)
            if found.damaged:
                ledger.update(complete=False)
            forget(plan, ledger, found.damaged)
        return _go_on(plan, full=full, client=used, place=place, progress=progress)


def _forget_metadata(plan: Plan, ledger: Ledger) -> None:
    """Delete documents that are damaged: a run that takes up the output writes them again."""
    finished = (ledger.record() or {})["complete"]
    if torn := _torn(plan, finished=finished):
        ledger.update(complete=False)
        keys = [f"{path}/{name}".lstrip("/") for path in torn for name in DOCUMENTS]
        delete_keys(plan.output.store, keys)


def pyramid_of(
    store: str,
    *,
    storage: StorageOptions,
    client: Client | None = None,
    place: Place = LOCAL,
    progress: Progress | None = None,
) -> Summary:
    """The lower resolutions of an output whose full resolution is finished.

    Neither the input nor the model is needed. Without a ``client``, workers are started in
    ``place``, once there is something to do.

    Raises
    ------
    IncompleteError
        When blocks of the full resolution are missing.
    """
    plan = stored_plan(store, storage)
    summary = _go_on(plan, full=False, client=client, place=place, progress=progress)
    if summary.missing:
        raise IncompleteError(
            f"{store}: {summary.missing} of {summary.blocks} blocks of the full resolution are "
            "missing, and the pyramid is made from them: run predict again"
        )
    return summary


def _go_on(
    plan: Plan, *, full: bool, client: Client | None, place: Place, progress: Progress | None
) -> Summary:
    """Compute what is missing of the output that :func:`stored_plan` found."""
    mask = (ledger_of(plan).record() or {})["plan"]["foreground"]
    if full and mask:
        plan = replace(
            plan,
            foreground=open_foreground(mask["address"], plan.volume, storage_options=plan.storage),
        )
    settings = PredictSettings()
    return run_plan(
        plan,
        settings,
        place.budget(settings, plan.device),
        full=full,
        client=client,
        cluster=place.settings,
        progress=progress,
    )


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
