"""What a plan will take, told before anything runs: blocks, bytes, halo, memory, time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite, prod
from time import perf_counter
from typing import Any

import numpy as np

from n2v_scale.denoiser import Denoiser, Region, open_denoiser, tile_boxes
from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Box, Shape, align_halo, as_shape, ceil_div, round_up
from n2v_scale.grids import Block
from n2v_scale.io.occupancy import stored_cells
from n2v_scale.ledger import SEGMENT
from n2v_scale.memory import Budget, WorkerMemory, worker_memory
from n2v_scale.plan import Plan
from n2v_scale.recovery import levels_of
from n2v_scale.tiling import tiling

MEASURED_TILE = 96
MOST_ASKED = 4096
"""Blocks that are asked one by one whether they are empty; of more, a sample is."""


@dataclass(frozen=True)
class Forecast:
    """The outlook of a plan. Bytes are of voxels as they are in memory, before compression."""

    blocks: int
    tiles: int
    empty_blocks: int | None
    """Known in advance to need no forward pass; None when it cannot be told cheaply."""
    empty_is_estimate: bool
    halo: list[list[int]]
    tile: list[int]
    block: list[int]
    chunk: list[int]
    shard: list[int]
    read_bytes: int
    write_bytes: int
    """With the pyramid."""
    files: int
    """At most, when it is finished: shards of all levels, metadata, ledger."""
    read_overhead: float
    """Voxels read over useful ones."""
    compute_overhead: float
    """Work over what it would be without a halo, each voxel computed once."""
    memory: WorkerMemory
    """Of one worker, an upper bound."""
    memory_allowed: int | None
    workers: int
    """That there is a block for."""
    speed: float
    """Useful voxels a second and worker."""
    speed_measured: bool
    seconds: float
    posterior: bool | None = None
    """Whether each voxel's own value is put back; None where the model has seen it already."""
    noise: list[dict[str, float]] | None = None
    """By channel, of which the posterior is made."""
    no_posterior: str | None = None
    """Why there is none although the model is blind."""
    write: str = "mean"
    """What of the estimate."""
    precision: str = "float32"
    """Of the arithmetic; auto where a worker is asked, and then the sizes are those of float32."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        memory = {**asdict(self.memory), "total": self.memory.total}
        return {**asdict(self), "memory": memory}


def forecast_plan(plan: Plan, budget: Budget, *, speed: float | None = None) -> Forecast:
    """The outlook of ``plan`` on workers that have ``budget``.

    ``speed`` is in useful voxels a second and worker; measured here, on one tile, when None.

    Raises
    ------
    ConfigError
        When the speed is not above 0.
    InputError
        When the volume, or the mask, is no longer there.
    """
    if speed is not None and speed <= 0:
        raise ConfigError(f"a speed of {speed:g} voxels a second: give one above 0")
    denoiser = open_denoiser(plan.denoiser, plan.open_options)
    tiles = tiling(plan, plan.shape, plan.block, plan.tile)
    images = plan.grid.times * plan.grid.channels
    useful = plan.grid.voxels
    sizes = [np.dtype(d).itemsize for d in (plan.volume.dtype, plan.output.dtype)]
    empty, estimated = _empty_blocks(plan)
    rate = measure_speed(plan, denoiser) if speed is None else speed
    workers = min(budget.workers, plan.blocks)
    in_a_row = ceil_div(plan.blocks - (empty or 0), workers)
    return Forecast(
        blocks=plan.blocks,
        tiles=images * tiles.tiles,
        empty_blocks=empty,
        empty_is_estimate=estimated,
        halo=[list(side) for side in plan.halo],
        tile=list(plan.tile),
        block=list(plan.block),
        chunk=list(plan.sizes.chunk),
        shard=list(plan.sizes.shard),
        read_bytes=images * tiles.read * sizes[0],
        write_bytes=sum(prod(level.spec.shape) for level in levels_of(plan)) * sizes[1],
        files=_files(plan),
        read_overhead=tiles.read_overhead,
        compute_overhead=tiles.compute_overhead(denoiser),
        memory=worker_memory(
            plan.volume,
            denoiser,
            plan.sizes,
            plan.output.dtype,
            budget.tasks,
            mask=plan.foreground,
            parts=plan.parts,
        ),
        memory_allowed=budget.memory_bytes,
        workers=workers,
        speed=rate,
        speed_measured=speed is None,
        seconds=in_a_row * useful / plan.blocks / rate,
        posterior=plan.noise is not None if denoiser.blind else None,
        noise=None if plan.noise is None else [asdict(noise) for noise in plan.noise],
        no_posterior=plan.no_posterior,
        write=plan.write,
        precision="auto" if plan.precision_is_open else plan.precision,
    )


def _files(plan: Plan) -> int:
    documents = 1 if plan.output.zarr_format == 3 else 2  # of each array and of each group
    files = 2 * documents + 1  # of the groups; the journal of runs
    for level in levels_of(plan):
        files += prod(
            ceil_div(n, s) for n, s in zip(level.spec.shape, level.spec.shard, strict=True)
        )
        files += documents + 2 * ceil_div(len(level.grid), SEGMENT)  # of ledger and journal
    return files


def _empty_blocks(plan: Plan) -> tuple[int | None, bool]:
    """How many blocks need no forward pass, and whether that is an estimate from a sample."""
    empty = _emptiness(plan)
    if empty is None:
        return None, False
    total = plan.blocks
    if total <= MOST_ASKED:
        return sum(empty(block) for block in plan.grid), False
    numbers = np.random.default_rng(0).choice(total, MOST_ASKED, replace=False)
    found = sum(empty(plan.grid.at(int(number))) for number in numbers)
    return round(found * total / MOST_ASKED), True


def _emptiness(plan: Plan) -> Callable[[Block], bool] | None:
    """Whether a block is known to be empty: outside the mask, or where nothing is stored."""
    stored, mask = stored_cells(plan.volume), plan.foreground
    if stored is None and mask is None:
        return None

    def unstored(block: Block) -> bool:
        if stored is None:
            return False
        if stored.fill_value == plan.nodata:
            return stored.empty(block.t, block.c, block.write)
        inner = Box.whole(plan.shape).contains(block.write.expand(plan.halo))
        constant = inner and isfinite(stored.fill_value)
        return constant and stored.empty(block.t, block.c, plan.read_box(block))

    def empty(block: Block) -> bool:
        outside = mask is not None and mask.outside(block.t, block.c, block.write)
        return outside or unstored(block)

    return empty


def measure_speed(plan: Plan, denoiser: Denoiser) -> float:
    """Useful voxels a second of a forward pass here, scaled to the plan's tiles.

    Raises
    ------
    ConfigError
        When the workers' device is not here to be measured.
    """
    _check_is_here(plan.device)
    core, halo = _small_core(plan), align_halo(plan.halo, plan.stride)
    box = Box.whole(core).shift(as_shape([low for low, _ in halo]))
    shape = as_shape([b + high for b, (_, high) in zip(box.stop, halo, strict=True)])
    boxes = tile_boxes(box, plan.halo, plan.stride, shape)
    values = np.random.default_rng(0).normal(100, 10, boxes.data.shape).astype(np.float32)
    region = Region(0, 0, box, shape)
    denoiser.denoise(values, region)  # loads the weights
    started = perf_counter()
    denoiser.denoise(values, region)
    rate = denoiser.work(core, halo) / max(1e-9, perf_counter() - started)
    tiles = tiling(plan, plan.shape, plan.block, plan.tile)
    return rate * prod(plan.shape) / tiles.work(denoiser)


def _check_is_here(device: str) -> None:
    if device == "cpu":
        return
    from n2v_scale.devices import choose_device

    try:
        choose_device(device)
    except ConfigError:
        raise ConfigError(
            f"the plan is for workers with {device}, and this machine has none to measure: say "
            "how fast one is, --speed 40 for 40 megavoxels a second, as `predict` reported before"
        ) from None


def _small_core(plan: Plan) -> Shape:
    pairs = zip(plan.tile, plan.stride, strict=True)
    return as_shape([min(t, round_up(MEASURED_TILE, s)) for t, s in pairs])
