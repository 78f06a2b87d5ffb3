"""What a worker takes at its peak, forecast before anything runs.

A pure function from shapes to bytes; the benchmark ``benchmarks/memory.py`` holds it against what
workers took.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from n2v_scale.denoiser import Denoiser
from n2v_scale.errors import PlanError
from n2v_scale.foreground import Foreground
from n2v_scale.geometry import Box, Halo, Shape, as_shape, grid_shape, round_up
from n2v_scale.io.volume import Volume

ABSURD = 1e15
"""So many bytes are not written out in digits."""
READ_AT_ONCE = 10
"""Chunks that zarr decodes at a time."""


@dataclass(frozen=True)
class Budget:
    """What a worker has."""

    memory_bytes: int | None = None
    """Host memory of one worker process; no limit when None."""
    workers: int = 1
    tasks: int = 2
    """Blocks that a worker has in hand at a time: one computes, others read and write."""
    device: str = "cpu"
    device_bytes: int | None = None
    """Memory of its GPU, which a forward pass must fit into too; no limit when None."""
    threads: int = 1
    """Of a forward pass on its cores."""


@dataclass(frozen=True)
class Sizes:
    """The shapes of a plan; chunks divide shards, and shards divide blocks."""

    chunk: Shape
    shard: Shape
    block: Shape
    tile: Shape


@dataclass(frozen=True)
class WorkerMemory:
    """What a worker process holds at its peak, in bytes: an upper bound."""

    base: int
    """Before any block: libraries, the model."""
    tile: int
    """One forward pass."""
    block: int
    """One block in hand: read, result, shard being encoded."""
    tasks: int

    @property
    def total(self) -> int:
        """The forecast."""
        return self.base + self.tile + self.tasks * self.block


def worker_memory(
    volume: Volume,
    denoiser: Denoiser,
    sizes: Sizes,
    dtype: str,
    tasks: int,
    *,
    mask: Foreground | None = None,
    parts: int = 1,
) -> WorkerMemory:
    """The forecast of a worker's peak.

    ``dtype`` is the output's; ``parts`` is 2 where standard deviations are written too.
    """
    read, written = np.dtype(volume.dtype).itemsize, np.dtype(dtype).itemsize
    box = read_shape(volume.spatial_shape, sizes, denoiser.halo, denoiser.stride)
    copies = 1 if volume.axis_names == tuple(a for a in "tczyx" if volume.axis(a)) else 2
    chunks = min(READ_AT_ONCE, prod(grid_shape(box, volume.chunk)))
    decode = 2 * chunks * prod(volume.chunk) * volume.chunk_images * read
    encode = 3 * prod(sizes.shard) * written  # padded, its chunks encoded, and joined
    block = copies * prod(box) * read + parts * prod(sizes.block) * written + max(decode, encode)
    block += mask.memory_bytes(Box.whole(sizes.block)) if mask else 0
    return WorkerMemory(denoiser.base_bytes, denoiser.memory_bytes(sizes.tile), block, tasks)


def read_shape(shape: Shape, sizes: Sizes, halo: Halo, stride: Shape) -> Shape:
    """The largest box that a block reads."""
    extents = []
    for n, b, t, (low, high), s in zip(shape, sizes.block, sizes.tile, halo, stride, strict=True):
        tiles = b if b % t == 0 or b >= n else round_up(b, t) + t  # a tile may begin before it
        extents.append(min(n, tiles + round_up(low, s) + round_up(high, s)))
    return as_shape(extents)


def check_budget(
    volume: Volume,
    denoiser: Denoiser,
    sizes: Sizes,
    dtype: str,
    budget: Budget,
    *,
    mask: Foreground | None = None,
    parts: int = 1,
) -> None:
    """Refuse sizes that need more than a worker has.

    Raises
    ------
    PlanError
        With the numbers, and what to do.
    """
    memory = worker_memory(volume, denoiser, sizes, dtype, budget.tasks, mask=mask, parts=parts)
    if budget.device_bytes is not None and memory.tile > budget.device_bytes:
        raise PlanError(
            f"a forward pass over a tile of {sizes.tile} needs {_gb(memory.tile)} and the "
            f"{budget.device} has {_gb(budget.device_bytes)}: use a smaller --tile"
        )
    if budget.memory_bytes is None or memory.total <= budget.memory_bytes:
        return
    raise PlanError(
        f"block {sizes.block} with tile {sizes.tile} needs {_gb(memory.total)} "
        f"({_gb(memory.base)} for the program and the model, {_gb(memory.tile)} for the forward "
        f"pass, {memory.tasks} times {_gb(memory.block)} for blocks in hand) and a worker has "
        f"{_gb(budget.memory_bytes)}: use a smaller --block, --tile or --shard, or more --memory "
        "(fewer --workers have more each; a cluster's jobs, what its TOML says)"
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:,.3f} GB" if size < ABSURD else f"{size / 1e9:.3g} GB"
