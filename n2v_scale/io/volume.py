"""What a volume is: an address that can be pickled, and how to read a box of it.

A :class:`Volume` holds no open file. It names an array (in a zarr store, a TIFF file or a folder
of TIFF planes), says what its axes mean, and which part of it is selected. Every process that
reads from it opens the array once, by its address.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape
from n2v_scale.io.arrays import opened_array
from n2v_scale.io.axes import spatial
from n2v_scale.io.messages import InputWarning
from n2v_scale.io.stored import fingerprint, stored_bytes
from n2v_scale.io.stores import StorageOptions, remember

__all__ = ["DTYPES", "Axis", "InputWarning", "Level", "Volume", "check_dtype", "native_name"]

DTYPES = ("uint8", "uint16", "int16", "float32")
"""The voxel types that can be trained on, predicted and written."""


@dataclass(frozen=True)
class Axis:
    """One axis of the stored array, as OME-Zarr names it."""

    name: str
    """One of ``t c z y x``."""
    unit: str | None = None
    """A UDUNITS name such as ``micrometer``, or None when the source has none."""
    scale: float = 1.0
    """Distance from voxel to voxel, in ``unit``."""
    translation: float = 0.0
    """Position of the centre of the first voxel, in ``unit``."""


@dataclass(frozen=True)
class Level:
    """One resolution of a multiscale image, or the only one."""

    path: str
    """The array's path inside the store ('' for a plain array)."""
    shape: tuple[int, ...]
    """Extent along the stored axes."""
    scale: tuple[float, ...]
    """Distance from voxel to voxel along the stored axes."""
    translation: tuple[float, ...] = ()
    """Position of the centre of the first voxel along the stored axes; () for the origin."""


@dataclass(frozen=True)
class Volume:
    """A selected image: where it is, what its axes are, how it is stored.

    ``axes`` is the order of the stored array, a subset of (t, c, z, y, x) in any order that holds
    at least y and x. Everything that a caller sees is in the order (t, c, z, y, x).
    """

    address: str
    """Absolute path, or URL."""
    kind: str
    """``zarr``, ``tiff`` (one file) or ``planes`` (a folder of TIFF planes)."""
    array_path: str
    """Path of the array inside a zarr store, '' for a plain array. For a TIFF file the number of
    the series, '' for the first; '' for a folder of planes."""
    axes: tuple[Axis, ...]
    stored_shape: tuple[int, ...]
    dtype: str
    timepoints: tuple[int, ...]
    """Stored indices along t that are selected; (0,) without such an axis."""
    channels: tuple[int, ...]
    """Stored indices along c that are selected; (0,) without such an axis."""
    chunk: Shape
    """What is decoded at once, along (z, y, x), for each of :attr:`chunk_images`."""
    shard: Shape | None
    """What is one file or object, along (z, y, x); None when not sharded."""
    codec: str
    """For people: ``blosc-zstd``, ``gzip``, ``none`` …"""
    format: str
    """For people: ``OME-Zarr 0.5``, ``zarr v2``, ``TIFF`` …"""
    chunk_images: int = 1
    """Time points times channels that one chunk spans."""
    name: str = ""
    levels: tuple[Level, ...] = ()
    """All resolutions that the source offers, the finest first."""
    omero: dict[str, Any] | None = field(default=None, hash=False, compare=False)
    """The source's rendering block, as it is."""
    multiscale_transforms: tuple[dict[str, Any], ...] = field(default=(), hash=False, compare=False)
    """coordinateTransformations of the multiscale itself, which apply after the dataset's."""
    digest: str = field(default="", compare=False)
    """Checksum of the array's metadata when it was opened."""
    storage: StorageOptions = field(default=StorageOptions(), repr=False, compare=False, hash=False)
    """What the store behind a URL needs to know, wherever the volume is read."""

    @property
    def axis_names(self) -> tuple[str, ...]:
        """Names of the stored axes, in stored order."""
        return tuple(axis.name for axis in self.axes)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Selected extent along (t, c, z, y, x)."""
        return len(self.timepoints), len(self.channels), *self.spatial_shape

    @property
    def spatial_shape(self) -> Shape:
        """Extent along (z, y, x); 1 along an axis that is not stored."""
        return spatial(self.stored_shape, self.axis_names)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Scale along (z, y, x), in the axes' own units; 1.0 where the source says nothing.

        The multiscale's own scale, which applies after the dataset's, is multiplied in.
        """
        size = {axis.name: axis.scale for axis in self.axes}
        for transform in self.multiscale_transforms:
            for name, factor in zip(self.axis_names, transform.get("scale", ()), strict=False):
                size[name] *= float(factor)
        return size.get("z", 1.0), size["y"], size["x"]

    @property
    def size_bytes(self) -> int:
        """Bytes of the selection in memory."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def axis(self, name: str) -> Axis | None:
        """The axis called ``name``, or None when it is not stored."""
        return next((axis for axis in self.axes if axis.name == name), None)

    def read(self, t: int, c: int, box: Box) -> np.ndarray:
        """The voxels of ``box`` at selected time point ``t`` and channel ``c``.

        Parameters
        ----------
        t, c
            Positions within the selection, not stored indices.
        box
            Inside the volume; its z is 0 to 1 where no z is stored.

        Returns
        -------
        numpy.ndarray
            C-contiguous, in (z, y, x) order whatever the stored one, in the native byte order,
            and nobody else's: it may be written to.

        Raises
        ------
        InputError
            When the box leaves the volume, when a chunk cannot be read or decoded, or when
            another array now lies at the address.
        """
        self._check_position(t, c, box)
        where = dict(zip("zyx", box.slices, strict=True))
        index = {"t": self.timepoints[t], "c": self.channels[c], **where}
        remember(self.address, self.storage)
        try:
            array = opened_array(self.kind, self.address, self.array_path, self.digest)
            self._check_unchanged(tuple(array.shape), array.dtype)
            voxels = np.asarray(array[tuple(index[name] for name in self.axis_names)])
        except (InputError, MemoryError):
            raise
        except Exception as exc:  # whatever a codec or a store raises
            raise InputError(
                f"{self.location}: cannot read box {box.start} to {box.stop}, t={index['t']}, "
                f"c={index['c']}: {type(exc).__name__}: {self.storage.redacted(str(exc))}"
            ) from exc
        return self._in_order(voxels)

    def identity(self) -> str:
        """A hash that changes when the data changes, wherever it lies.

        It covers shape, dtype and the array's metadata document, plus size and time of
        modification of at most 256 seeded chunk files (of the file, for TIFF and zip). It says
        nothing about the selection.
        """
        remember(self.address, self.storage)
        stamp = fingerprint(self.kind, self.address, self.array_path)
        return f"{self.dtype}-{'x'.join(map(str, self.stored_shape))}-{stamp}"

    @property
    def location(self) -> str:
        """Address and path inside it, for messages."""
        return f"{self.address}/{self.array_path}" if self.array_path else self.address

    def describe(self) -> dict[str, Any]:
        """What is known about the volume, as JSON can hold it."""
        return {
            "address": self.address,
            "array_path": self.array_path,
            "name": self.name,
            "format": self.format,
            "axes": [vars(axis) | {"size": n} for axis, n in self._stored_axes()],
            "shape": list(self.stored_shape),
            "shape_tczyx": list(self.shape),
            "dtype": self.dtype,
            "voxel_size_zyx": list(self.voxel_size),
            "timepoints": list(self.timepoints),
            "channels": list(self.channels),
            "levels": [
                {"path": v.path, "shape": list(v.shape), "scale": list(v.scale)}
                for v in self.levels
            ],
            "chunk_zyx": list(self.chunk),
            "shard_zyx": list(self.shard) if self.shard else None,
            "codec": self.codec,
            "size_bytes": self.size_bytes,
            "stored_bytes": stored_bytes(self.kind, self.address, self.array_path),
        }

    def _stored_axes(self) -> list[tuple[Axis, int]]:
        return list(zip(self.axes, self.stored_shape, strict=True))

    def _check_position(self, t: int, c: int, box: Box) -> None:
        if not (0 <= t < len(self.timepoints) and 0 <= c < len(self.channels)):
            raise InputError(
                f"{self.location}: no time point {t} or no channel {c} among the "
                f"{len(self.timepoints)} time points and {len(self.channels)} channels selected"
            )
        if not Box.whole(self.spatial_shape).contains(box):
            raise InputError(
                f"{self.location}: box {box.start} to {box.stop} leaves the volume "
                f"{self.spatial_shape}"
            )

    def _check_unchanged(self, shape: tuple[int, ...], dtype: Any) -> None:
        if (shape, native_name(dtype)) != (self.stored_shape, self.dtype):
            raise InputError(
                f"{self.location} was {self.dtype} {self.stored_shape} when it was opened and is "
                f"{native_name(dtype)} {shape} now: open it again"
            )

    def _in_order(self, voxels: np.ndarray) -> np.ndarray:
        """``voxels``, which lie in stored order, as (z, y, x)."""
        stored = [name for name in self.axis_names if name in "zyx"]
        ordered = voxels.transpose([stored.index(name) for name in "zyx" if name in stored])
        ordered = ordered if "z" in stored else ordered[None]
        return np.require(ordered, np.dtype(self.dtype), ["C", "W"])


def check_dtype(volume: Volume) -> None:
    """Refuse a volume whose voxel type is none of :data:`DTYPES`."""
    if volume.dtype in DTYPES:
        return
    remedies = {
        "bool": "convert it to uint8",
        "int8": "convert it to int16",
        "complex64": "take the magnitude as float32",
        "complex128": "take the magnitude as float32",
    }
    raise InputError(
        f"{volume.location} has voxels of type {volume.dtype}, and only {', '.join(DTYPES)} are "
        f"taken: {remedies.get(volume.dtype, 'convert it to float32, or to uint16 if it fits')}"
    )


def native_name(dtype: Any) -> str:
    """The name of a dtype, whatever its byte order.

    >>> native_name(np.dtype(">u2"))
    'uint16'
    """
    return str(getattr(dtype, "name", dtype))
