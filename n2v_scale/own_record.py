"""What a volume's record says, where this package wrote it: how it was made, and what it holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from n2v_scale.errors import InputError
from n2v_scale.io.stores import normalise, remember
from n2v_scale.io.volume import Volume
from n2v_scale.ledger import Ledger
from n2v_scale.plan import PLAN_FORMAT


def record_of(volume: Volume) -> dict[str, Any] | None:
    """Of the run that wrote a volume; None where there is none that this version knows."""
    if volume.kind != "zarr":
        return None
    remember(volume.address, volume.storage)
    record = Ledger(normalise(volume.address), "").record()
    if record is None or "plan" not in record or record["plan"].get("format") != PLAN_FORMAT:
        return None
    return record


def means_of(volume: Volume) -> Volume:
    """A volume without its channels of standard deviations; itself where it has none.

    Raises
    ------
    InputError
        When nothing else is selected.
    """
    if volume.axis("c") is None or not (record := record_of(volume)):
        return volume
    plan = record["plan"]
    if plan.get("write", "mean") == "mean":
        return volume
    means = len(plan["input"]["channels"])
    kept = tuple(c for c in volume.channels if c < means)
    if not kept:
        raise InputError(
            f"{volume.address}: channels {', '.join(map(str, volume.channels))} hold standard "
            f"deviations, and 0 to {means - 1} what was denoised: select of those"
        )
    return volume if kept == volume.channels else replace(volume, channels=kept)
