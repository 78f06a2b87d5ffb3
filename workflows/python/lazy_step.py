"""Denoise as one lazy step between a filter and a measurement, computed once.

Voxels that outshine their neighbours (hot pixels) are replaced by a median of dask-image, the rest
is denoised by ``n2v_scale.denoise``, and every object that is brighter than a threshold is
measured, across chunks. Nothing is computed before the table is asked for, and then each chunk
once. (The filter is no smoothing one: from smoothed noise a model cannot tell what noise is.)

Run: python workflows/python/lazy_step.py volume.zarr model.n2v objects.csv

With ``--threshold`` a chunk is forgotten once it is measured. Without, dask holds the denoised
volume in memory until it knows its mean and spread. What is denoised already is measured with
``--denoised``.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask_image import ndfilters
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

import n2v_scale

SPREADS = 2.0
"""Standard deviations above the mean at which an object begins, where no threshold is given."""


class Part(NamedTuple):
    """What one chunk knows of the objects in it."""

    sums: npt.NDArray[np.float64]
    """One row an object; columns: voxels, brightness, z, y, x."""
    faces: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    """By axis, the labels (row + 1, or 0) in its first plane and in its last."""


def opened(address: str, channel: int) -> da.Array:
    """One channel of the first time point of a zarr or OME-Zarr, lazily, as (z, y, x)."""
    volume = n2v_scale.open_volume(address)
    if volume.kind != "zarr":
        raise SystemExit(f"{address} is no zarr: n2v-scale import {address} volume.zarr makes one")
    sizes = dict(zip("zyx", volume.shard or volume.chunk, strict=True))
    stored = da.from_zarr(
        volume.address,
        component=volume.array_path or None,
        chunks=tuple(sizes.get(name, 1) for name in volume.axis_names),
    )
    chosen = {"t": 0, "c": channel}
    image = stored[tuple(chosen.get(name, slice(None)) for name in volume.axis_names)]
    return image if image.ndim == 3 else image[None]


def without_hot_pixels(noisy: da.Array, times: float) -> da.Array:
    """Voxels above so many times the median of their 27 neighbours become that median."""
    median = ndfilters.median_filter(noisy, size=3)
    return da.where(noisy > times * median, median, noisy)


def objects(image: da.Array, threshold: float | None) -> Any:
    """A delayed table of what is brighter: voxels, mean, z, y, x; one row an object."""
    chunks = image.to_delayed()
    level = threshold
    if threshold is None:
        level = dask.delayed(usual_level)([dask.delayed(moments)(c) for c in chunks.flat])
    starts = [np.cumsum([0, *sizes])[:-1].tolist() for sizes in image.chunks]
    parts = [
        dask.delayed(measured)(
            chunks[index], level, [s[i] for s, i in zip(starts, index, strict=True)]
        )
        for index in np.ndindex(*chunks.shape)
    ]
    return dask.delayed(joined)(parts, chunks.shape)


def moments(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Number, sum and sum of squares."""
    wide = values.astype(np.float64)
    return np.array([wide.size, wide.sum(), (wide**2).sum()])


def usual_level(found: Sequence[npt.NDArray[np.float64]]) -> float:
    """Two standard deviations above the mean."""
    number, total, squares = np.sum(found, axis=0)
    mean = total / number
    return float(mean + SPREADS * np.sqrt(squares / number - mean**2))


def measured(values: npt.NDArray[Any], level: float, start: Sequence[int]) -> Part:
    """The objects of one chunk, which begins at ``start``."""
    labels, number = ndimage.label(values > level)
    where = np.nonzero(labels)
    places = [inside + first for inside, first in zip(where, start, strict=True)]
    columns = [np.ones(len(where[0])), values[where], *places]
    rows = labels[where] - 1
    sums = [np.bincount(rows, weights=column, minlength=number) for column in columns]
    faces = [(labels.take(0, axis), labels.take(-1, axis)) for axis in range(3)]
    return Part(np.stack(sums, axis=1), faces)


def joined(parts: Sequence[Part], grid: tuple[int, int, int]) -> list[tuple[float, ...]]:
    """The table: objects of neighbouring chunks that touch are one."""
    sums = np.concatenate([part.sums for part in parts])
    if not len(sums):
        return []
    first, second = touching(parts, grid)
    links = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(sums), len(sums)))
    number, rows = connected_components(links, directed=False)
    whole = np.zeros((number, sums.shape[1]))
    np.add.at(whole, rows, sums)
    means = whole[:, 1:] / whole[:, :1]
    return [
        (int(voxels), *(round(float(m), 3) for m in row))
        for voxels, row in zip(whole[:, 0], means, strict=True)
    ]


def touching(parts: Sequence[Part], grid: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """(2, pairs): rows of all chunks' objects that share a face between two chunks."""
    offsets = np.cumsum([0, *(len(part.sums) for part in parts)])
    numbers = np.arange(len(parts)).reshape(grid)
    pairs = [np.empty((2, 0), np.int64)]
    for axis, n in enumerate(grid):
        before, after = numbers.take(range(n - 1), axis), numbers.take(range(1, n), axis)
        for a, b in zip(before.flat, after.flat, strict=True):
            last, first = parts[a].faces[axis][1], parts[b].faces[axis][0]
            both = (last > 0) & (first > 0)
            pairs.append(np.stack([last[both] - 1 + offsets[a], first[both] - 1 + offsets[b]]))
    return np.concatenate(pairs, axis=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the graph, compute it once, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", help="zarr or OME-Zarr")
    parser.add_argument("model", help="folder that `n2v-scale train` wrote")
    parser.add_argument("table", type=Path, help="CSV file to write")
    parser.add_argument("--channel", type=int, default=0)
    parser.add_argument("--hot", type=float, default=4.0, help="times the median (default: 4)")
    parser.add_argument("--threshold", type=float, help="default: mean + 2 standard deviations")
    parser.add_argument("--smallest", type=int, default=8, help="voxels of an object (default: 8)")
    parser.add_argument("--denoised", action="store_true", help="the volume is: measure only")
    given = parser.parse_args(arguments)

    image = opened(given.volume, given.channel)
    if not given.denoised:
        # One torch thread a task: dask runs as many tasks as there are cores.
        image = n2v_scale.denoise(without_hot_pixels(image, given.hot), given.model, threads=1)
    table = objects(image, given.threshold).compute()

    with given.table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["voxels", "mean", "z", "y", "x"])
        writer.writerows(row for row in table if row[0] >= given.smallest)


if __name__ == "__main__":
    main()
