"""The output as a whole: begun, taken up again or refused; its metadata; its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from n2v_scale._version import __version__
from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import IDENTITY
from n2v_scale.errors import OutputError, PlanError
from n2v_scale.io.ome_metadata import image_attributes
from n2v_scale.io.stores import inside, remember
from n2v_scale.io.volume import Axis, Level, Volume
from n2v_scale.io.volume_record import volume_to_dict
from n2v_scale.io.writer import (
    PROVENANCE,
    ArraySpec,
    array_exists,
    check_codec,
    create_array,
    delete_keys,
    names,
    remove_output,
    set_attributes,
    sweep_partial_files,
)
from n2v_scale.ledger import Ledger
from n2v_scale.lock import driver_lock, is_locked
from n2v_scale.plan import Plan
from n2v_scale.recovery import all_done, damaged_by_size, forget, levels_of, lost_metadata
from n2v_scale.rendering import begun_rendering, finished_rendering
from n2v_scale.resume import resume_plan
from n2v_scale.succession import LOCK_FOLDER
from n2v_scale.versions import versions

BEGUN = {PROVENANCE, "zarr.json", ".zgroup", ".zattrs"}
"""What a run that was killed at its very beginning may have left."""


@dataclass(frozen=True)
class Output:
    """An output that is ready to be written to, or finished already."""

    plan: Plan
    complete: bool
    input_changed: bool = False
    """Files of the input are others than when the output was begun."""

    @property
    def ledger(self) -> Ledger:
        """Its record."""
        return ledger_of(self.plan)


def ledger_of(plan: Plan) -> Ledger:
    """The record inside the output of ``plan``."""
    return Ledger(plan.output.store, plan.output.ome_version)


def check_place(store: str, volume: Volume) -> None:
    """Refuse an output that would write into its own input.

    Raises
    ------
    OutputError
        When one lies inside the other.
    """
    if inside(store, volume.address) or inside(volume.address, store):
        raise OutputError(
            f"the output {store} and the input {volume.address} lie inside one another: "
            "choose another name for the output"
        )


def check_output(plan: Plan) -> None:
    """Refuse what cannot become an output, before anything is written there.

    Raises
    ------
    OutputError
        When something else is there.
    ConfigError
        When the codec has no such level.
    """
    remember(plan.output.store, plan.storage)
    check_place(plan.output.store, plan.volume)
    check_codec(plan.output.codec, plan.output.codec_level)
    others = names(plan.output.store) - BEGUN
    if names(f"{plan.output.store}/{plan.output.path}") <= {LOCK_FOLDER.rpartition("/")[2]}:
        others.discard(plan.output.path)
    if others and ledger_of(plan).record() is None:
        raise OutputError(
            f"{plan.output.store} exists and n2v-scale did not write it (it holds "
            f"{', '.join(sorted(others)[:3])}): choose another name"
        )


def find_output(
    plan: Plan, settings: PredictSettings, *, look_at_input: bool = True
) -> Output | None:
    """What an earlier run of the same plan left, or None; nothing is written.

    Without ``look_at_input``, the plan is the one that the output has on record, and the input
    may be gone.

    Raises
    ------
    PlanError
        When the output was begun with other settings, or is finished and its input changed.
    """
    record = ledger_of(plan).record()
    if record is None:
        return None
    if not look_at_input:
        return Output(plan, record["complete"])
    resumed = resume_plan(record["plan"], plan, settings)
    changed = record["plan"]["input"]["identity"] != plan.volume.identity()
    if record["complete"] and changed:
        raise PlanError(
            f"{plan.output.store} is finished, and its input {plan.volume.address} has changed "
            "since: --overwrite starts afresh; or choose another name"
        )
    return Output(resumed, record["complete"], changed)


def begin_output(plan: Plan, settings: PredictSettings, *, look_at_input: bool = True) -> Output:
    """Begin the output of ``plan``, or take up what an earlier run left; the lock is held.

    What workers of a dead driver marked is folded into the ledger, blocks whose shards are not as
    they were written are forgotten, and metadata that is lost is written again.
    """
    output = find_output(plan, settings, look_at_input=look_at_input)
    if output is None:
        output = Output(plan, complete=False)
        output.ledger.begin(_provenance(plan))
    else:
        sweep_partial_files(plan.output.store)
    plan = output.plan
    for level in levels_of(plan):
        output.ledger.fold_loose(level.spec.path)
    damaged, lost = damaged_by_size(plan, output.ledger), lost_metadata(plan)
    complete = output.complete and all_done(plan, output.ledger) and not (damaged or lost)
    if complete:
        return output
    if output.complete:
        output.ledger.update(complete=False)
    forget(plan, output.ledger, damaged)
    _write_what_is_lost(plan, lost)
    return replace(output, complete=False)


def tidy_output(store: str, wait: Callable[[str], None]) -> None:
    """Take away what a run has left that was killed between its last byte and its end.

    Nothing, while somebody holds the lock, or when the store cannot be written.
    """
    with suppress(OutputError):
        if is_locked(store):
            with driver_lock(store, wait=wait):
                sweep_partial_files(store, older_than_s=0)


def clear_output(plan: Plan) -> None:
    """Delete the output of ``plan`` but for the lock, which is held; a foreign one is refused.

    Raises
    ------
    OutputError
        When something else is there.
    """
    if ledger_of(plan).record() is not None:
        remove_output(plan.output.store, keep=LOCK_FOLDER)


def accept_input(output: Output) -> None:
    """Record the input as it is now, once every block that it changed is unmarked."""
    record = output.ledger.record() or {}
    output.ledger.begin({**record, **_provenance(output.plan)})


def _provenance(plan: Plan) -> dict[str, Any]:
    return {
        "package_version": __version__,
        "versions": versions(),
        "key": plan.key,
        "plan": plan.to_dict(),
        "volume": volume_to_dict(plan.volume),
    }


def _write_what_is_lost(plan: Plan, lost: list[str]) -> None:
    delete_keys(plan.output.store, lost)  # zarr reads what it replaces, and fails where it is torn
    for level in levels_of(plan):
        if not array_exists(level.spec):
            create_array(level.spec)
    if lost:
        write_metadata(plan, finished=False)


def write_metadata(plan: Plan, *, finished: bool) -> None:
    """The OME-Zarr attributes: the input's axes, units, scale, translation, channels.

    Once all is ``finished``, with display windows of the new data and with the lower levels, which
    a viewer would show black before.
    """
    volume, output = plan.volume, plan.output
    rendering = finished_rendering(plan) if finished else begun_rendering(plan)
    axes = [_selected(volume, name) for name in output.axes]
    attributes = image_attributes(
        axes,
        _levels(plan, axes) if finished else _levels(plan, axes)[:1],
        version=output.ome_version,
        name=output_name(plan),
        omero=rendering,
        multiscale_transforms=_in_output_order(volume, output),
    )
    set_attributes(output.store, "", attributes, output.ome_version)


def output_name(plan: Plan) -> str:
    """What viewers call it: the input's name, and that it is denoised, where it is."""
    name = plan.volume.name
    return f"{name}, denoised" if name and plan.denoiser != IDENTITY else name


def _selected(volume: Volume, name: str) -> Axis:
    """An axis of the output; a selection of evenly spaced time points moves and stretches it."""
    axis = volume.axis(name)
    if axis is None and name == "c":  # the output alone has several
        return Axis(name)
    if axis is None:
        raise OutputError(f"the output has an axis {name!r} that the input lacks")
    times = volume.timepoints
    if name != "t" or len(times) == 0:
        return axis
    steps = set(np.diff(times).tolist())
    step = steps.pop() if len(steps) == 1 and min(steps) > 0 else 1  # no scale is negative
    return replace(
        axis, scale=axis.scale * step, translation=axis.translation + times[0] * axis.scale
    )


def _levels(plan: Plan, axes: list[Axis]) -> list[Level]:
    """Scale and translation a level: a voxel of a mean lies in the middle of what it averages."""
    factors = dict.fromkeys(plan.output.axes, 1)
    levels = [_level(plan.output, axes, factors)]
    for level in plan.levels:
        for name, factor in zip("zyx", level.factors, strict=True):
            if name in factors:
                factors[name] *= factor
        levels.append(_level(level.array, axes, factors))
    return levels


def _level(spec: ArraySpec, axes: list[Axis], factors: dict[str, int]) -> Level:
    return Level(
        spec.path,
        spec.shape,
        tuple(a.scale * factors[a.name] for a in axes),
        tuple(a.translation + a.scale * (factors[a.name] - 1) / 2 for a in axes),
    )


def _in_output_order(volume: Volume, output: ArraySpec) -> list[dict[str, Any]]:
    """The multiscale's own transformations, permuted from the stored axes to the output's."""
    stored = [a.name for a in volume.axes]

    def ordered(kind: str, numbers: list[Any]) -> list[Any]:
        new = 1.0 if kind == "scale" else 0.0  # of an axis that the output alone has
        return [numbers[stored.index(n)] if n in stored else new for n in output.axes]

    return [
        {k: ordered(k, v) if isinstance(v, list) else v for k, v in transform.items()}
        for transform in volume.multiscale_transforms
    ]


def finish_output(output: Output) -> None:
    """All levels are written: recompute the display windows and close the record."""
    plan = output.plan
    write_metadata(plan, finished=True)
    sweep_partial_files(plan.output.store, older_than_s=0)  # every block is done: no one writes
    output.ledger.update(complete=True)
