"""A volume as it is shown: its resolutions, a region of a slice of each, and a gray scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape
from n2v_scale.io.hierarchy import find_image
from n2v_scale.io.open import open_volume
from n2v_scale.io.stores import locate
from n2v_scale.io.volume import Volume
from n2v_scale.pyramid import local_mean
from n2v_scale.viewing.chunk_cache import ChunkCache, Voxels
from n2v_scale.viewing.levels import ShownLevel, shown_levels
from n2v_scale.viewing.tree import Tree

SENT = {"bool": "uint8", "float16": "float32", "float64": "float32", "int64": "float32",
        "uint64": "float32"}  # fmt: skip
"""Voxel types that a browser has no array of, or none that it can compute with."""
KEPT_CHUNK = 64 << 20
"""Bytes of a decoded chunk that is still kept as a whole."""
SAMPLES = 3
"""Boxes along each axis that a gray scale is taken from, where a level is large."""
SAMPLED = 64
"""Their edge in voxels."""


@dataclass(frozen=True)
class Region:
    """A rectangle of one slice of one level."""

    level: int
    t: int
    c: int
    axis: int
    """The slice's normal: 0 for z, 1 for y, 2 for x."""
    index: int
    """Of the slice."""
    start: tuple[int, int]
    stop: tuple[int, int]
    """Along the other two axes, in the order z, y, x; half-open."""

    def box(self) -> Box:
        """The region as a box of the level, one voxel thick."""
        start, stop = list(self.start), list(self.stop)
        start.insert(self.axis, self.index)
        stop.insert(self.axis, self.index + 1)
        return Box(as_shape(start), as_shape(stop))


@dataclass
class ShownVolume:
    """One volume under a name that stands in URLs."""

    name: str
    volume: Volume
    role: str
    """``noisy``, ``denoised`` or ``volume``."""
    cache: ChunkCache
    levels: tuple[ShownLevel, ...] = field(init=False)
    tree: Tree | None = field(init=False, default=None)
    """What other viewers read; None for a TIFF."""
    _group: str = field(init=False, default="")
    _opened: dict[int, Volume] = field(init=False, default_factory=dict)
    _windows: dict[tuple[int, int], dict[str, float]] = field(init=False, default_factory=dict)
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        if np.dtype(self.volume.dtype).kind not in "buif":
            raise InputError(
                f"{self.volume.location} has voxels of type {self.volume.dtype}, which cannot be "
                "shown: convert it to float32"
            )
        self.levels = shown_levels(self.volume)
        if self.volume.kind == "zarr":
            place = find_image(locate(self.volume.location), None).location
            self.tree, self._group = Tree(place), place.path

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values that :meth:`tile` gives: little-endian, of a type that a browser has."""
        return np.dtype(SENT.get(self.volume.dtype, self.volume.dtype)).newbyteorder("<")

    def tile(self, region: Region) -> Voxels:
        """The values of a region, (rows, columns).

        Raises
        ------
        InputError
            When it leaves the level, or cannot be read.
        """
        if not 0 <= region.level < len(self.levels):
            raise InputError(f"{self.name} has no level {region.level}")
        level, box = self.levels[region.level], region.box()
        whole = Box.whole(level.shape)
        if not whole.contains(box) or box.size == 0:
            raise InputError(f"the region {box.start} to {box.stop} is not in {level.shape}")
        volume = self._stored(level.stored)
        inner = _enlarged(box, level.factors, volume.spatial_shape, region.axis)
        values = self._assembled(level.stored, volume, region, inner)
        if level.factors != (1, 1, 1):
            thin = list(level.factors)
            thin[region.axis] = 1
            means = local_mean(values.astype(np.float32), as_shape(thin))
            values = means if self.dtype.kind == "f" else np.rint(means)
        return np.ascontiguousarray(values.squeeze(region.axis), self.dtype)

    def window(self, t: int, c: int) -> dict[str, float]:
        """A gray scale: ``low`` and ``high``, the 0.2nd and 99.9th percentile, ``min``, ``max``.

        From the coarsest stored level, of which a sample is read where it is large.
        """
        if (t, c) not in self._windows:  # twice at worst, with the same result
            self._windows[t, c] = self._measured(t, c)
        return self._windows[t, c]

    def describe(self) -> dict[str, Any]:
        """What a page needs to know, as JSON."""
        axis = self.volume.axis("x")
        return {
            "name": self.name,
            "role": self.role,
            "dtype": self.dtype.name,
            "stored_dtype": self.volume.dtype,
            "format": self.volume.format,
            "unit": axis.unit if axis else None,
            "timepoints": len(self.volume.timepoints),
            "channels": self._channel_names(),
            "data": None if self.tree is None else f"data/{self.name}",
            "levels": [
                {"shape": level.shape, "scale": level.scale, "origin": level.origin,
                 "made": level.factors != (1, 1, 1)}
                for level in self.levels
            ],
        }  # fmt: skip

    def _channel_names(self) -> list[str]:
        listed = (self.volume.omero or {}).get("channels")
        named = dict(enumerate(listed if isinstance(listed, list) else []))
        found = [named.get(c) for c in self.volume.channels]
        labels = [entry.get("label") if isinstance(entry, dict) else None for entry in found]
        numbers = self.volume.channels
        return [str(a or f"channel {c}") for a, c in zip(labels, numbers, strict=True)]

    def _stored(self, position: int) -> Volume:
        """A stored level, opened on first use; with the selection of this volume."""
        if len(self.volume.levels) < 2 or self.tree is None:
            return self.volume
        with self._lock:
            if position not in self._opened:
                path = self.volume.levels[position].path
                inner = path.removeprefix(self._group).strip("/")
                opened = open_volume(
                    str(self.tree.location),
                    axes="".join(self.volume.axis_names),
                    level=inner,
                    any_dtype=True,
                    storage_options=self.volume.storage,
                )
                self._opened[position] = replace(
                    opened, timepoints=self.volume.timepoints, channels=self.volume.channels
                )
            return self._opened[position]

    def _assembled(self, position: int, volume: Volume, region: Region, box: Box) -> Voxels:
        """The voxels of ``box``, chunk by chunk out of the cache."""
        t, c = region.t, region.c
        size = np.dtype(volume.dtype).itemsize * int(np.prod(volume.chunk))
        if size > KEPT_CHUNK:
            return volume.read(t, c, box)
        values = np.empty(box.shape, volume.dtype)
        for chunk in _chunks(box, volume.chunk, volume.spatial_shape):
            key = (self.name, position, t, c, chunk.start)
            found = self.cache.get(key, partial(volume.read, t, c, chunk))
            part = chunk.intersect(box)
            values[part.slices_in(box)] = found[part.slices_in(chunk)]
        return values

    def _measured(self, t: int, c: int) -> dict[str, float]:
        volume = self._stored(max(level.stored for level in self.levels))
        parts = [volume.read(t, c, box).ravel() for box in _sample(volume.spatial_shape)]
        return _gray_scale(np.concatenate(parts))


def _enlarged(box: Box, factors: Shape, shape: Shape, normal: int) -> Box:
    """What ``box`` of a made level is the mean of; along the normal, its middle voxel."""
    start = [a * f for a, f in zip(box.start, factors, strict=True)]
    stop = [min(b * f, n) for b, f, n in zip(box.stop, factors, shape, strict=True)]
    middle = min(start[normal] + factors[normal] // 2, shape[normal] - 1)
    start[normal], stop[normal] = middle, middle + 1
    return Box(as_shape(start), as_shape(stop))


def _chunks(box: Box, chunk: Shape, shape: Shape) -> Iterator[Box]:
    """The chunks that ``box`` touches, as boxes of a volume of ``shape``."""
    ranges = [range(a // n * n, b, n) for a, b, n in zip(box.start, box.stop, chunk, strict=True)]
    for corner in product(*ranges):
        stop = [min(a + n, m) for a, n, m in zip(corner, chunk, shape, strict=True)]
        yield Box(as_shape(list(corner)), as_shape(stop))


def _sample(shape: Shape) -> Iterator[Box]:
    """The whole of a small volume, or boxes that are spread over it."""
    if np.prod(shape) <= (SAMPLES * SAMPLED) ** 3:
        yield Box.whole(shape)
        return
    edges = [min(n, SAMPLED) for n in shape]
    places = [
        sorted({(n - e) * (2 * k + 1) // (2 * SAMPLES) for k in range(SAMPLES)})
        for n, e in zip(shape, edges, strict=True)
    ]
    for corner in product(*places):
        stop = [a + e for a, e in zip(corner, edges, strict=True)]
        yield Box(as_shape(list(corner)), as_shape(stop))


def _gray_scale(values: npt.NDArray[Any]) -> dict[str, float]:
    values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        values = np.zeros(1)
    low, high = np.percentile(values, [0.2, 99.9]).tolist()
    return {
        "low": low,
        "high": max(high, low + 1e-6 * max(1.0, abs(low))),
        "min": float(values.min()),
        "max": float(values.max()),
    }
