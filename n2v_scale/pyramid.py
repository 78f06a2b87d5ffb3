"""Lower resolutions: the 2× local mean, block by block, each level from the written one above."""

from __future__ import annotations

import os
import socket
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.blocks import BlockReport, as_dtype, writing
from n2v_scale.geometry import Box, Shape, as_shape
from n2v_scale.grids import Block
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import remember
from n2v_scale.io.writer import ArraySpec, read_output, write_box
from n2v_scale.ledger import Ledger, Marker
from n2v_scale.plan import PyramidLevel
from n2v_scale.processors import processor


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


def shrink_block(
    source: ArraySpec, level: PyramidLevel, storage: StorageOptions, block: Block
) -> BlockReport:
    """Make one block of a level from the level above it: the Dask task.

    Raises
    ------
    OutputError
        When a shard cannot be written.
    """
    spec = level.array
    remember(spec.store, storage)
    started = perf_counter()
    with writing(spec.store, f"pyramid level {spec.path}, block {block.number}"):
        mean = _mean(source, level, block)
        computed = perf_counter()
        stored = write_box(spec, block.t, block.c, block.write, mean)
        marker = Marker(block.number, stored.checksum, stored.size)
        Ledger(spec.store, spec.ome_version).mark(spec.path, marker)
    return BlockReport(
        marker=marker,
        voxels=block.write.size,
        skipped=0,
        read_s=computed - started,
        wait_s=0.0,
        compute_s=0.0,
        write_s=perf_counter() - computed,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        processor=processor("cpu"),
    )


def _mean(source: ArraySpec, level: PyramidLevel, block: Block) -> npt.NDArray[Any]:
    """The block's voxels, made slab by slab: one row of the source's chunks is in memory."""
    spec = level.array
    out = np.empty(block.write.shape, spec.dtype)
    height = max(1, source.spatial_chunk[0] // level.factors[0])
    for start in range(block.write.start[0], block.write.stop[0], height):
        stop = min(start + height, block.write.stop[0])
        slab = Box((start, *block.write.start[1:]), (stop, *block.write.stop[1:]))
        values = read_output(source, block.t, block.c, _above(slab, level, source.spatial_shape))
        mean = local_mean(values.astype(np.float32), level.factors)
        out[slab.slices_in(block.write)] = as_dtype(mean, spec.dtype)
    return out


def _above(box: Box, level: PyramidLevel, shape: Shape) -> Box:
    """What ``box`` is the mean of, in the level above, which has ``shape``."""
    pairs = list(zip(box.stop, level.factors, shape, strict=True))
    return Box(
        as_shape([a * f for a, f in zip(box.start, level.factors, strict=True)]),
        as_shape([min(b * f, n) for b, f, n in pairs]),
    )
