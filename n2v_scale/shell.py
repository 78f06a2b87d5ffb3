"""What commands share: opening, progress, and what they say at the end."""

from __future__ import annotations

import sys
from typing import Any

import click

from n2v_scale.progress import Progress, amount_text, clock, progress_for


def show_progress() -> Progress:
    """Bars or lines on stderr."""
    return progress_for(sys.stderr)


def volume_of(address: str, options: dict[str, Any], **more: Any) -> Any:
    """The volume that the selection options, which are taken out of ``options``, mean."""
    from n2v_scale.io.open import open_volume

    names = ("axes", "level", "channels", "timepoints", "series")
    selected: dict[str, Any] = {name: options.pop(name, None) for name in names}
    return open_volume(address, **selected, storage_options=options.get("storage_options"), **more)


def say_written(summary: Any) -> None:
    """How many blocks, how fast, and where the time went."""
    if summary.already_finished:
        click.echo(f"{summary.output}: was finished already, nothing to do")
        return
    rate = amount_text(summary.voxels / max(summary.seconds, 1e-9), "voxel")
    click.echo(
        f"{summary.output}: {amount_text(summary.computed, 'block')} of {summary.blocks} in "
        f"{clock(summary.seconds)}, {rate}/s"
    )
    if summary.skipped:
        click.echo(f"  {summary.skipped / summary.voxels:.0%} was empty and needed no computing")
    if summary.computed:
        click.echo(f"  {_where_the_time_went(summary)}")
    if summary.missing:
        click.echo(f"  {amount_text(summary.missing, 'block')} still to do")


def _where_the_time_went(summary: Any) -> str:
    """Shares of the workers' time. Reading and writing run beside computing."""
    whole = max(1e-9, summary.seconds * summary.workers)
    return (
        f"{summary.workers} workers computed {summary.compute_s / whole:.0%} of the time; beside "
        f"it they read for {summary.read_s / whole:.0%} and wrote for "
        f"{summary.write_s / whole:.0%} of it; the rest is starting, ending and waiting"
    )
