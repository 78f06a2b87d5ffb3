"""Which parts of an input are stored at all: what is not there reads as the fill value.

One listing of the store tells, and no voxel is read. It takes memory for one listing and one truth
value a stored object, and is not made where that would be many.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.sync import sync

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, ceil_div
from n2v_scale.io.arrays import open_zarr_array
from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.stores import METADATA_NAMES, Location, is_url, remember
from n2v_scale.io.volume import Volume

MOST_OBJECTS = 2**24
"""So many are listed in a folder or zip file: some minutes."""
MOST_REMOTE = 2**17
"""So many are listed behind a URL, a thousand a request."""


@dataclass(frozen=True, eq=False)
class StoredCells:
    """Which objects (shards, or chunks without them) of an array existed when it was listed."""

    stored: npt.NDArray[np.bool_]
    """One element an object, along (t, c, z, y, x)."""
    extent: tuple[int, ...]
    """Voxels of one object along (t, c, z, y, x)."""
    timepoints: tuple[int, ...]
    """Stored indices that the volume selects."""
    channels: tuple[int, ...]
    fill_value: float
    """What the voxels of an absent object are."""

    def empty(self, t: int, c: int, box: Box) -> bool:
        """Whether no stored object holds a voxel of ``box``: all of it is the fill value.

        ``t`` and ``c`` are positions within the volume's selection.
        """
        time, channel, *size = self.extent
        places: list[Any] = [self.timepoints[t] // time, self.channels[c] // channel]
        for a, b, e in zip(box.start, box.stop, size, strict=True):
            places.append(slice(a // e, ceil_div(b, e)))
        return not self.stored[tuple(places)].any()


def stored_cells(volume: Volume) -> StoredCells | None:
    """Which objects of ``volume`` exist, from one listing of its store.

    None where it cannot be known cheaply: for TIFF, for more than 16 million objects (131,072
    behind a URL), and where the store does not list what it holds, as most web servers do not.

    Raises
    ------
    InputError
        When the array is no longer there.
    """
    if volume.kind != "zarr":
        return None
    remember(volume.address, volume.storage)
    location = Location(volume.address, volume.array_path)
    array = open_zarr_array(location)
    grid = tuple(ceil_div(n, e) for n, e in zip(array.shape, _extent(array), strict=True))
    if prod(grid) > (MOST_REMOTE if is_url(location.root) else MOST_OBJECTS):
        return None
    try:
        stored = _mark(_listing(location, array), array, grid)
    except (InputError, OSError, NotImplementedError):  # not allowed to list, or not able to
        return None
    return None if stored is None else _arranged(volume, array, stored)


def _extent(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Voxels of one stored object along the stored axes."""
    return tuple(array.shards or array.chunks)


def _listing(location: Location, array: zarr.Array[Any]) -> Iterable[str]:
    """The keys below the array, among them its metadata document's."""
    if is_url(location.root):
        store = RemoteStore(location.root, error=InputError, read_only=True)
        return _below(sync(store.sizes(location.path)), location.path)
    if Path(location.root).is_dir():
        depth = array.metadata.encode_chunk_key((0,) * array.ndim).count("/")
        return _files(Path(location.root, location.path), depth)
    with zipfile.ZipFile(location.root) as archive:
        return _below(archive.NameToInfo, location.path)


def _below(keys: Iterable[str], path: str) -> Iterator[str]:
    prefix = f"{path}/" if path else ""
    return (key.removeprefix(prefix) for key in keys if key.startswith(prefix))


def _files(folder: Path, depth: int) -> Iterator[str]:
    """Relative paths of the files in ``folder`` and up to ``depth`` levels below it.

    Links to folders are followed: a time point may be one.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield entry.name
            elif depth:
                below = _files(Path(entry.path), depth - 1)
                yield from (f"{entry.name}/{name}" for name in below)


def _mark(
    keys: Iterable[str], array: zarr.Array[Any], grid: tuple[int, ...]
) -> npt.NDArray[np.bool_] | None:
    """The objects among ``keys``, or None when not even the array's own metadata is listed."""
    first = array.metadata.encode_chunk_key((0,) * array.ndim)  # such as c/0/0/0 or 0.0.0
    prefix, separator = first[: 1 - 2 * array.ndim], first[-2]
    stored = np.zeros(grid, bool)
    listed = False
    for key in keys:
        listed = listed or key in METADATA_NAMES
        parts = key.removeprefix(prefix).split(separator)
        if len(parts) == len(grid) and key.startswith(prefix) and all(map(str.isdecimal, parts)):
            index = tuple(map(int, parts))
            if all(i < n for i, n in zip(index, grid, strict=True)):  # others: a larger past
                stored[index] = True
    return stored if listed else None


def _arranged(volume: Volume, array: zarr.Array[Any], stored: npt.NDArray[np.bool_]) -> StoredCells:
    """In the order (t, c, z, y, x), with one element along an axis that is not stored."""
    names = volume.axis_names
    extent = dict(zip(names, _extent(array), strict=True))
    present = [names.index(name) for name in "tczyx" if name in names]
    absent = [i for i, name in enumerate("tczyx") if name not in names]
    fill = array.fill_value
    return StoredCells(
        np.expand_dims(stored.transpose(present), absent),
        tuple(extent.get(name, 1) for name in "tczyx"),
        volume.timepoints,
        volume.channels,
        0.0 if fill is None else float(fill),
    )
