"""A block as a task: read with halo, denoise tile by tile, crop, write whole shards.

A worker runs several blocks at a time: one computes while others read and write, so the device
does not wait. Needs no torch itself; a denoiser brings what it needs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from distributed.threadpoolexecutor import ThreadPoolExecutor

from n2v_scale.denoiser import (
    Denoiser,
    Estimate,
    FloatArray,
    OpenOptions,
    Region,
    TileBoxes,
    open_denoiser,
)
from n2v_scale.empty import Cells, classify, constant_response, repeated, tiles_to_run
from n2v_scale.errors import ModelError, OutputError
from n2v_scale.geometry import Box
from n2v_scale.grids import Block
from n2v_scale.io.finite import check_finite
from n2v_scale.io.stores import remember
from n2v_scale.io.writer import NOTHING, write_box
from n2v_scale.ledger import Ledger, Marker
from n2v_scale.plan import Plan
from n2v_scale.processors import processor

_computing = ThreadPoolExecutor(1, thread_name_prefix="n2v_scale")
"""What computes in this process. One block at a time, as a second would need a second tile's
memory; in the same thread, as each that computes has OpenMP threads and prepared weights of its
own. A daemon: no process waits at its end for a tile."""


@dataclass(frozen=True)
class BlockReport:
    """What became of a block, and where its time went, in seconds."""

    marker: Marker
    voxels: int
    skipped: int
    """Voxels that no forward pass was needed for."""
    read_s: float
    wait_s: float
    """For the device, while another block computed."""
    compute_s: float
    write_s: float
    worker: str
    processor: str
    """What computed it: another type gives other last digits."""

    @property
    def number(self) -> int:
        """The block's."""
        return self.marker.number


@lru_cache(maxsize=4)
def opened(address: str, options: OpenOptions, key: str = "") -> Denoiser:
    """A denoiser, once a process.

    With ``key`` it must be the one that was planned with: a worker may have opened another one at
    this address for an earlier run, and the folder may have been replaced since.

    Raises
    ------
    ModelError
        When it is another one now.
    """
    found = open_denoiser(address, options)
    if key and found.key != key:
        raise ModelError(
            f"{address} is not the model that the plan was made with: put that one back, or plan "
            "again"
        )
    return found


class _Clock:
    """The time since it was last read."""

    def __init__(self) -> None:
        self.last = perf_counter()

    def lap(self) -> float:
        now = perf_counter()
        lap, self.last = now - self.last, now
        return lap


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
    remember(plan.output.store, plan.storage)
    clock = _Clock()
    # A process's first block reads while torch and the weights are loaded; an error comes below.
    _computing.submit(opened, plan.denoiser, plan.open_options, plan.denoiser_key)
    box = plan.read_box(block)
    values = plan.volume.read(block.t, block.c, box)
    cells = classify_cells(plan, block, values, box)
    tiles = tiles_to_run(plan.tiles(block), block.write, cells)
    _check(plan, block, tiles, values, box)
    read = clock.lap()
    out, waited = _computing.submit(
        _computed, plan, block, tiles, cells, values, box, clock
    ).result()
    computed = clock.lap()
    marker = _write(plan, block, out, crc32(values.data))
    return BlockReport(
        marker=marker,
        voxels=block.write.size,
        skipped=cells.voxels,
        read_s=read,
        wait_s=waited,
        compute_s=computed,
        write_s=clock.lap(),
        worker=f"{socket.gethostname()}:{os.getpid()}",
        processor=processor(plan.device),
    )


def _computed(
    plan: Plan,
    block: Block,
    tiles: list[TileBoxes],
    cells: Cells,
    values: npt.NDArray[Any],
    box: Box,
    clock: _Clock,
) -> tuple[npt.NDArray[Any], float]:
    """A block's voxels (part, z, y, x), and how long it waited for its turn."""
    waited = clock.lap()
    denoiser = opened(plan.denoiser, plan.open_options, plan.denoiser_key)
    out = denoise_tiles(denoiser, plan, block, tiles, values, box, dtype=plan.output.dtype)
    _fill_cells(denoiser, block, cells, values, box, out)
    return out, waited


def classify_cells(plan: Plan, block: Block, values: npt.NDArray[Any], box: Box) -> Cells:
    """What of a block needs no forward pass; see :mod:`n2v_scale.empty`."""
    mask = plan.foreground
    return classify(
        values,
        box,
        block.write,
        cell=plan.output.spatial_chunk,
        halo=plan.halo,
        shape=plan.shape,
        nodata=plan.nodata,
        outside=None if mask is None else mask.over(block.t, block.c, block.write),
    )


def denoise_tiles(
    denoiser: Denoiser,
    plan: Plan,
    block: Block,
    tiles: list[TileBoxes],
    values: npt.NDArray[Any],
    box: Box,
    *,
    dtype: str | None = None,
) -> npt.NDArray[Any]:
    """The estimate for a block's write box, from ``values`` of its read ``box`` (z, y, x).

    (part, z, y, x): the mean, and the standard deviation where the plan writes it.

    Every tile is computed whole, also where the block needs only a part of it, so a voxel's value
    does not depend on the blocks. What no tile covers is 0. ``dtype`` is the result's; that of the
    computation, float64 for such ``values`` and else float32, when None.
    """
    working = np.float64 if values.dtype == np.float64 else np.float32
    out = np.zeros((plan.parts, *block.write.shape), dtype or working)
    for tile in tiles:
        region = Region(block.t, block.c, tile.core, plan.shape)
        data = values[tile.data.slices_in(box)].astype(working)
        estimate = denoiser.denoise(_filled(plan, block, data), region)
        kept = tile.core.intersect(block.write)
        for layer, part in zip(out, parts_of(estimate, plan.parts), strict=True):
            inner = part[kept.slices_in(tile.core)]
            layer[kept.slices_in(block.write)] = as_dtype(inner, out.dtype.name)
    return out


def parts_of(estimate: Estimate, parts: int) -> tuple[FloatArray, ...]:
    """The mean, and the standard deviation if there are to be two.

    Raises
    ------
    ModelError
        When the denoiser gave none.
    """
    if parts == 1:
        return (estimate.mean,)
    if estimate.std is None:
        raise ModelError("standard deviations are to be written, and the denoiser gives none")
    return estimate.mean, estimate.std


def _fill_cells(
    denoiser: Denoiser,
    block: Block,
    cells: Cells,
    values: npt.NDArray[Any],
    box: Box,
    out: npt.NDArray[Any],
) -> None:
    """Write what needs no forward pass over what tiles left there, whether they ran or not.

    What is kept was not estimated: its standard deviation is 0.
    """
    for cell in cells.kept:
        out[(0, *cell.slices_in(block.write))] = values[cell.slices_in(box)]
        out[(slice(1, None), *cell.slices_in(block.write))] = 0
    for cell, value in cells.constant:
        estimate = constant_response(denoiser, value, block.c)
        for layer, response in zip(out, parts_of(estimate, len(out)), strict=True):
            filled = as_dtype(repeated(response, cell), out.dtype.name)
            layer[cell.slices_in(block.write)] = filled


def _check(
    plan: Plan, block: Block, tiles: list[TileBoxes], values: npt.NDArray[Any], box: Box
) -> None:
    """Refuse NaN and infinity where a forward pass would see them, if the plan says so."""
    if plan.on_nan != "error" or values.dtype.kind != "f":
        return
    whole = len(tiles) == len(plan.tiles(block))
    for part in [box] if whole else [tile.data for tile in tiles]:
        where = f"{plan.volume.address}, t={block.t}, c={block.c}"
        check_finite(values[part.slices_in(box)], part, where)


def _filled(plan: Plan, block: Block, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """NaN and infinity become the channel's mean, which is zero after normalisation."""
    if plan.on_nan != "fill":
        return values
    mean = plan.normalisation.offset[block.c] if plan.normalisation else 0.0
    return np.where(np.isfinite(values), values, values.dtype.type(mean))


def _write(plan: Plan, block: Block, values: npt.NDArray[Any], read_checksum: int) -> Marker:
    """``values`` are (part, z, y, x)."""
    spec = plan.output
    with writing(spec.store, f"block {block.number}"):
        stored = NOTHING
        for c, part in zip(plan.grid.channels_of(block, spec.channels), values, strict=True):
            stored = write_box(spec, block.t, c, block.write, part, before=stored)
        marker = Marker(block.number, stored.checksum, stored.size, read_checksum)
        Ledger(spec.store, spec.ome_version).mark(spec.path, marker)
    return marker


@contextmanager
def writing(store: str, what: str) -> Iterator[None]:
    """Says of an OSError what could not be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{store}: {what} cannot be written: {error}") from error


def as_dtype(values: npt.NDArray[np.floating[Any]], dtype: str) -> npt.NDArray[Any]:
    """Rounded to the nearest and clipped for an integer type, as it is for a float type."""
    target = np.dtype(dtype)
    if target.kind == "f":
        return values.astype(target)
    limits = np.iinfo(target)
    rounded: npt.NDArray[Any] = np.rint(values)
    return rounded.clip(limits.min, limits.max).astype(target)
