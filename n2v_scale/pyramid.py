"""Lower resolutions: the 2× local mean, block by block, each level from the written one above."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import numpy.typing as npt
from distributed import Client

from n2v_scale.blocks import as_dtype, collect
from n2v_scale.errors import OutputError
from n2v_scale.geometry import Box, Shape, as_shape, grid_cell, grid_indices
from n2v_scale.io.writer import ArraySpec, read_output, write_box
from n2v_scale.ledger import Ledger, Marker
from n2v_scale.plan import Plan, PyramidLevel
from n2v_scale.progress import Progress
from n2v_scale.window import run_window


@dataclass(frozen=True)
class PyramidBlock:
    """One shard of one level."""

    number: int
    t: int
    c: int
    write: Box


def local_mean(values: npt.NDArray[np.float32], factors: Shape) -> npt.NDArray[np.float32]:
    """The mean over cells of ``factors`` voxels; a cell cut by the end averages what there is.

    ``values`` is (z, y, x) and starts on a cell's border; the result has ceil(n / f) voxels.
    """
    for axis, factor in enumerate(factors):
        starts = np.arange(0, values.shape[axis], factor)
        counts = np.minimum(starts + factor, values.shape[axis]) - starts
        sums: npt.NDArray[np.float32] = np.add.reduceat(values, starts, axis=axis)
        shape = [-1 if a == axis else 1 for a in range(3)]
        values = sums / counts.astype(np.float32).reshape(shape)
    return values


def pyramid_blocks(level: PyramidLevel, times: int, channels: int) -> Iterator[PyramidBlock]:
    """Every shard of a level, in C order of (t, c, z, y, x)."""
    spec = level.array
    places = (
        (t, c, index)
        for t, c in product(range(times), range(channels))
        for index in grid_indices(spec.spatial_shape, spec.spatial_shard)
    )
    for number, (t, c, index) in enumerate(places):
        write = grid_cell(index, spec.spatial_shard, spec.spatial_shape)
        yield PyramidBlock(number, t, c, write)


def shrink_block(source: ArraySpec, level: PyramidLevel, block: PyramidBlock) -> int:
    """Make one shard from the level above: the Dask task; returns its voxels."""
    above = Box(
        as_shape([a * f for a, f in zip(block.write.start, level.factors, strict=True)]),
        as_shape(
            [
                min(b * f, n)
                for b, f, n in zip(
                    block.write.stop, level.factors, source.spatial_shape, strict=True
                )
            ]
        ),
    )
    values = read_output(source, block.t, block.c, above).astype(np.float32)
    spec = level.array
    try:
        mean = as_dtype(local_mean(values, level.factors), spec.dtype)
        checksum = write_box(spec, block.t, block.c, block.write, mean)
        Ledger(spec.store, spec.ome_version).mark(spec.path, Marker(block.number, checksum))
    except OSError as error:
        raise OutputError(
            f"{spec.store}: pyramid level {spec.path}, block {block.number} cannot be written: "
            f"{error}"
        ) from error
    return block.write.size


def run_pyramid(plan: Plan, client: Client, progress: Progress) -> dict[int, str]:
    """Every missing block of every level, one level after the other; reasons of those that failed.

    A level is begun when the one above it is whole.
    """
    times, channels = plan.volume.shape[:2]
    source = plan.output
    for level in plan.levels:
        spec = level.array
        done = Ledger(spec.store, spec.ome_version).done(spec.path)
        blocks = [b for b in pyramid_blocks(level, times, channels) if b.number not in done]
        _, failed = collect(
            run_window(client, partial(shrink_block, source, level), blocks),
            progress,
            f"pyramid level {spec.path}",
            sum(block.write.size for block in blocks),
            lambda block: block.write.size,
        )
        if failed:
            return failed
        source = spec
    return {}
