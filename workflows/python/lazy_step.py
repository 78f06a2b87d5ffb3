"""Denoise as one lazy step between a filter and a measurement, computed once.

Voxels that outshine their neighbours (hot pixels) are replaced by a median of dask-image, the rest
is denoised by ``n2v_scale.denoise``, what is brighter than a threshold is labelled across chunks by
dask-image, and every object is measured. Nothing is computed before the last line, and then each
chunk once; of a smoothing filter before the denoising step the model could not tell noise.

Run: python workflows/python/lazy_step.py volume.zarr model.n2v objects.csv

The labels of an object that crosses chunks are known when all chunks are: dask holds the denoised
volume until then. What does not fit in memory is predicted first (``n2v-scale predict``), and this
is run on its output with ``--denoised``.
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
from dask_image import ndfilters, ndmeasure

import n2v_scale

SPREADS = 2.0
"""Standard deviations above the mean at which an object begins, where no threshold is given."""


class Part(NamedTuple):
    """What one chunk knows of the objects in it; one row an object."""

    labels: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]
    """Columns: voxels, brightness, z, y, x."""


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
    """A delayed table of what is brighter: label, voxels, mean, z, y, x; one row an object."""
    level = image.mean() + SPREADS * image.std() if threshold is None else threshold
    labels, _ = ndmeasure.label(image > level)
    starts = [np.cumsum([0, *sizes])[:-1].tolist() for sizes in image.chunks]
    chunks, values = labels.to_delayed(), image.to_delayed()
    parts = [
        dask.delayed(measured)(
            chunks[index], values[index], [s[i] for s, i in zip(starts, index, strict=True)]
        )
        for index in np.ndindex(*chunks.shape)
    ]
    return dask.delayed(joined)(parts)


def measured(labels: npt.NDArray[Any], values: npt.NDArray[Any], start: list[int]) -> Part:
    """The objects of one chunk, which begins at ``start``."""
    where = np.nonzero(labels)
    found, rows = np.unique(labels[where], return_inverse=True)
    places = [inside + first for inside, first in zip(where, start, strict=True)]
    columns = [np.ones(len(rows)), values[where], *places]
    sums = [np.bincount(rows, weights=column, minlength=len(found)) for column in columns]
    return Part(found.astype(np.int64), np.stack(sums, axis=1))


def joined(parts: Sequence[Part]) -> list[tuple[float, ...]]:
    """The table, from what the chunks know."""
    labels, rows = np.unique(np.concatenate([p.labels for p in parts]), return_inverse=True)
    sums = np.zeros((len(labels), 5))
    np.add.at(sums, rows, np.concatenate([p.sums for p in parts]))
    means = sums[:, 1:] / sums[:, :1]
    return [
        (int(label), int(voxels), *(round(float(m), 3) for m in row))
        for label, voxels, row in zip(labels, sums[:, 0], means, strict=True)
    ]


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
        writer.writerow(["label", "voxels", "mean", "z", "y", "x"])
        writer.writerows(row for row in table if row[1] >= given.smallest)


if __name__ == "__main__":
    main()
