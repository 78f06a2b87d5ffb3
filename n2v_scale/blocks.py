"""Blocks as tasks: read with halo, denoise tile by tile, crop, write whole shards.

Needs no torch itself; a denoiser brings what it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from distributed import Client

from n2v_scale.denoiser import Denoiser, OpenOptions, Region, TileBoxes, open_denoiser
from n2v_scale.errors import OutputError, PlanError
from n2v_scale.geometry import Box
from n2v_scale.io.finite import check_finite
from n2v_scale.io.writer import write_box
from n2v_scale.ledger import Ledger, Marker
from n2v_scale.plan import Block, Plan
from n2v_scale.progress import Progress
from n2v_scale.window import Outcome, reason, run_window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockReport:
    """Where a block's time went, in seconds."""

    number: int
    voxels: int
    read_s: float
    compute_s: float
    write_s: float


@lru_cache(maxsize=4)
def opened(address: str, options: OpenOptions) -> Denoiser:
    """A denoiser, once a process."""
    return open_denoiser(address, options)


def predict_block(plan: Plan, block: Block) -> BlockReport:
    """Compute one block and write its shards: the Dask task.

    Deterministic and idempotent: whoever runs it, whenever and however often, writes the same
    bytes; its marker comes last.

    Raises
    ------
    InputError
        When the input cannot be read or holds NaN where that is not allowed.
    OutputError
        When a shard cannot be written.
    """
    started = perf_counter()
    tiles = plan.tiles(block)
    box = plan.read_box(block)
    values = _read(plan, block, box)
    read = perf_counter()
    usable = _usable(plan, block, box, values)
    estimate = denoise_tiles(_denoiser(plan), plan, block, tiles, usable, box)
    computed = perf_counter()
    _write(plan, block, as_dtype(estimate, plan.output.dtype), crc32(values.data))
    return BlockReport(
        block.number,
        block.write.size,
        read - started,
        computed - read,
        perf_counter() - computed,
    )


def _denoiser(plan: Plan) -> Denoiser:
    return opened(plan.denoiser, OpenOptions(plan.normalisation, plan.device, plan.threads))


def denoise_tiles(
    denoiser: Denoiser,
    plan: Plan,
    block: Block,
    tiles: list[TileBoxes],
    values: npt.NDArray[np.floating[Any]],
    box: Box,
) -> npt.NDArray[np.floating[Any]]:
    """The estimate for a block's write box, from ``values`` of its read ``box`` (z, y, x).

    Every tile is computed whole, also where the block needs only a part of it, so a voxel's value
    does not depend on the blocks.
    """
    out = np.empty(block.write.shape, values.dtype)
    for tile in tiles:
        region = Region(block.t, block.c, tile.core, plan.shape)
        estimate = denoiser.denoise(values[tile.data.slices_in(box)], region)
        kept = tile.core.intersect(block.write)
        out[kept.slices_in(block.write)] = estimate.mean[kept.slices_in(tile.core)]
    return out


def _read(plan: Plan, block: Block, box: Box) -> npt.NDArray[Any]:
    return plan.volume.read(block.t, block.c, box)


def _usable(
    plan: Plan, block: Block, box: Box, values: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """As float32, with NaN and infinity treated as the plan says."""
    usable = values.astype(np.float32)
    if plan.on_nan == "keep" or np.isfinite(usable).all():
        return usable
    if plan.on_nan == "error":
        check_finite(usable, box, f"{plan.volume.address}, t={block.t}, c={block.c}")
    return _filled(plan, block, usable)


def _filled(plan: Plan, block: Block, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """NaN and infinity become the channel's mean, which is zero after normalisation."""
    mean = plan.normalisation.offset[block.c] if plan.normalisation else 0.0
    return np.where(np.isfinite(values), values, np.float32(mean))


def _write(plan: Plan, block: Block, values: npt.NDArray[Any], read_checksum: int) -> None:
    spec = plan.output
    try:
        checksum = write_box(spec, block.t, block.c, block.write, values)
        marker = Marker(block.number, checksum, read_checksum)
        Ledger(spec.store, spec.ome_version).mark(spec.path, marker)
    except OSError as error:
        raise OutputError(
            f"{spec.store}: block {block.number} cannot be written: {error}"
        ) from error


def as_dtype(values: npt.NDArray[np.floating[Any]], dtype: str) -> npt.NDArray[Any]:
    """Rounded to the nearest and clipped for an integer type, as it is for a float type."""
    target = np.dtype(dtype)
    if target.kind == "f":
        return values.astype(target)
    limits = np.iinfo(target)
    rounded: npt.NDArray[Any] = np.rint(values)
    return rounded.clip(limits.min, limits.max).astype(target)


def recheck_blocks(plan: Plan, client: Client, progress: Progress) -> int:
    """Unmark the blocks whose input is no longer what they were made from; returns how many.

    For an input whose files changed since the run began, such as a damaged chunk that was copied
    again. A block depends on its read box alone, so the others stay.

    Raises
    ------
    PlanError
        When no block's input is what it was: that is another volume.
    """
    ledger = Ledger(plan.output.store, plan.output.ome_version)
    done = ledger.done(plan.output.path)
    marked = [block for block in plan.iterate() if block.number in done]
    voxels = sum(block.write.size for block in marked)
    checks, unreadable = collect(
        run_window(client, partial(_read_checksum, plan), marked),
        progress,
        "checking the input, which changed",
        voxels,
        lambda b: b.write.size,
    )
    same = {number for number, checksum in checks if done[number].read_checksum == checksum}
    changed = [number for number in done if number not in same]
    if marked and not same:
        raise PlanError(
            f"{plan.volume.address} is not the volume that {plan.output.store} was begun from: "
            "--overwrite starts afresh; or choose another name"
        )
    log.info("%d blocks changed, of them %d cannot be read", len(changed), len(unreadable))
    if changed:
        for level in plan.levels:  # first: a kill in between must not leave an old pyramid marked
            ledger.unmark(level.array.path)
    ledger.unmark(plan.output.path, changed)
    return len(changed)


def _read_checksum(plan: Plan, block: Block) -> tuple[int, int]:
    return block.number, crc32(_read(plan, block, plan.read_box(block)).data)


def run_blocks(
    plan: Plan, client: Client, progress: Progress, *, name: str = "predicting"
) -> tuple[list[BlockReport], dict[int, str]]:
    """Every block that is not marked yet; what was done, and the reasons of those that failed."""
    done = Ledger(plan.output.store, plan.output.ome_version).done(plan.output.path)
    missing = [block for block in plan.iterate() if block.number not in done]
    voxels = sum(block.write.size for block in missing)
    task = partial(predict_block, plan)
    return collect(
        run_window(client, task, missing), progress, name, voxels, lambda b: b.write.size
    )


def collect(
    outcomes: Iterator[Outcome[Any]],
    progress: Progress,
    name: str,
    voxels: int,
    size: Callable[[Any], int],
) -> tuple[list[Any], dict[int, str]]:
    """Drain a window of numbered items into (results, number → reason), showing progress."""
    results: list[Any] = []
    failed: dict[int, str] = {}
    if not voxels:
        return results, failed
    with progress.step(name, voxels, "voxel") as bar:
        for outcome in outcomes:
            if outcome.error is None:
                results.append(outcome.result)
            else:
                failed[outcome.item.number] = reason(outcome.error)
            bar.advance(size(outcome.item), f"{len(failed)} failed" if failed else "")
    return results, failed


__all__ = ["BlockReport", "as_dtype", "denoise_tiles", "predict_block", "run_blocks"]
