"""What commands share: opening, progress, and what they say at the end."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from n2v_scale.progress import Progress, amount_text, clock, progress_for
from n2v_scale.terminal import columns_of, fitted

SELECTION = ("axes", "level", "channels", "timepoints", "series")
"""Options that say what of an address is meant."""


def show_progress() -> Progress:
    """Bars or lines on stderr."""
    return progress_for(sys.stderr)


def volume_of(address: str, options: dict[str, Any], **more: Any) -> Any:
    """The volume that the selection options, which are taken out of ``options``, mean."""
    from n2v_scale.io.open import open_volume

    selected: dict[str, Any] = {name: options.pop(name, None) for name in SELECTION}
    return open_volume(address, **selected, storage_options=options.get("storage_options"), **more)


def matching_volume(address: str, options: dict[str, Any], **more: Any) -> Any:
    """A volume with the channels and time points of another's selection; a single one stays.

    ``more`` are selection options that belong to this volume alone.
    """
    storage = {"storage_options": options.get("storage_options")}
    whole = volume_of(address, {**storage, **more})
    several = {
        name: options.get(name)
        for name, axis in (("channels", whole.channels), ("timepoints", whole.timepoints))
        if len(axis) > 1
    }
    return volume_of(address, {**storage, **more, **several})


def say(text: str) -> None:
    """A result, on stdout; on a terminal its lines are wrapped between words."""
    click.echo(fitted(text, columns_of(sys.stdout)))


def say_summary(summary: Any, *, as_json: bool) -> None:
    """What a run did, for people or as JSON."""
    if as_json:
        click.echo(json.dumps(summary.to_dict()))
    else:
        say_written(summary)


def say_written(summary: Any) -> None:
    """How many blocks, how fast, and where the time went."""
    if summary.already_finished:
        say(f"{summary.output}: was finished already, nothing to do")
        return
    say(f"{summary.output}: {_what_was_done(summary)}")
    if summary.skipped:
        say(f"  {summary.skipped / summary.voxels:.0%} was empty and needed no computing")
    if summary.computed:
        if summary.no_posterior:
            say(f"  each voxel's own value was not put back: {summary.no_posterior}")
        say(f"  {_where_the_time_went(summary)}")
    if summary.missing:
        say(f"  {amount_text(summary.missing, 'block')} still to do")
    elif summary.lower_missing:
        say(f"  lower resolutions still to do: n2v-scale pyramid {summary.output}")


def _what_was_done(summary: Any) -> str:
    took = clock(summary.seconds)
    if not summary.computed:
        if summary.missing:
            return "no block was computed"
        if summary.lower_missing:
            return "all blocks were there, nothing was computed"
        return f"all blocks were there; lower resolutions and metadata in {took}"
    rate = amount_text(summary.voxels / max(summary.seconds, 1e-9), "voxel")
    return f"{amount_text(summary.computed, 'block')} of {summary.blocks} in {took}, {rate}/s"


def _where_the_time_went(summary: Any) -> str:
    """Shares of the workers' time. Reading and writing run beside computing."""
    whole = max(1e-9, summary.seconds * summary.workers)
    return (
        f"{amount_text(summary.workers, 'worker')} computed for {summary.compute_s / whole:.0%} "
        f"of the time, and meanwhile read for {summary.read_s / whole:.0%} and wrote for "
        f"{summary.write_s / whole:.0%} of it; the rest is starting, ending and waiting"
    )
