"""Writing: whole shards, encoded in memory, replacing their key by one atomic ``set``.

Nothing is deleted first and nothing is read back, so a worker that was given up for dead and its
twin can write the same shard at the same time, and a torn shard from before does no harm.
"""

from __future__ import annotations

import gzip
import shutil
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import zarr
from numcodecs import Blosc, GZip, Zstd
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from n2v_scale.errors import ConfigError, OutputError
from n2v_scale.geometry import Box, Shape, as_shape, cells_touching
from n2v_scale.io.stores import METADATA_NAMES

STALE_S = 600.0

PROVENANCE = "n2v_scale"
"""The subgroup that holds what the output was made from, and the ledger."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of an output, in the order of its own axes (t, c, z, y, x without those it lacks).

    ``shard`` equals ``chunk`` where the format has no shards.
    """

    store: str
    path: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    dtype: str
    codec: str
    codec_level: int
    ome_version: str

    @property
    def zarr_format(self) -> int:
        """3 for OME-Zarr 0.5, 2 for 0.4."""
        return 3 if self.ome_version == "0.5" else 2

    @property
    def spatial_shape(self) -> Shape:
        """Extent along (z, y, x)."""
        return _spatial(self.axes, self.shape)

    @property
    def spatial_shard(self) -> Shape:
        """One stored object's extent along (z, y, x)."""
        return _spatial(self.axes, self.shard)


def _spatial(axes: tuple[str, ...], extents: tuple[int, ...]) -> Shape:
    z, y, x = (extents[axes.index(a)] if a in axes else 1 for a in "zyx")
    return z, y, x


def check_codec(codec: str, level: int) -> None:
    """Raise a ConfigError when ``codec`` has no such level."""
    highest = {"blosc-zstd": 9, "zstd": 22, "gzip": 9, "none": 22}[codec]
    if level > highest:
        raise ConfigError(f"codec level {level}: {codec} goes up to {highest}")


def create_array(
    spec: ArraySpec, *, store: Any = None, shape: tuple[int, ...] | None = None
) -> Any:
    """An empty array; in ``store`` and of ``shape`` where these are given."""
    v3 = spec.zarr_format == 3
    sharded = v3 and spec.shard != spec.chunk
    keys: dict[str, Any] = {"name": "default" if v3 else "v2", "separator": "/"}
    return zarr.create_array(
        store=LocalStore(spec.store) if store is None else store,
        name=spec.path,
        shape=shape or spec.shape,
        chunks=spec.chunk,
        shards=spec.shard if sharded else None,
        dtype=spec.dtype,
        compressors=_compressor(spec),
        fill_value=0,
        zarr_format=3 if v3 else 2,
        chunk_key_encoding=keys,
        dimension_names=spec.axes if v3 else None,
        overwrite=False,
    )


def array_exists(spec: ArraySpec) -> bool:
    """Whether the array's metadata is there."""
    name = "zarr.json" if spec.zarr_format == 3 else ".zarray"
    return get(spec.store, f"{spec.path}/{name}") is not None


def open_output(spec: ArraySpec) -> Any:
    """The array, for reading."""
    return zarr.open_array(LocalStore(spec.store, read_only=True), path=spec.path, mode="r")


def read_output(spec: ArraySpec, t: int, c: int, box: Box) -> npt.NDArray[Any]:
    """A box of the array, (z, y, x)."""
    index = [{"t": t, "c": c}.get(a, 0) for a in spec.axes]
    slices = dict(zip("zyx", box.slices, strict=True))
    selection = tuple(slices.get(a, i) for a, i in zip(spec.axes, index, strict=True))
    values: npt.NDArray[Any] = np.asarray(open_output(spec)[selection]).reshape(box.shape)
    return values


def write_box(spec: ArraySpec, t: int, c: int, box: Box, values: npt.NDArray[Any]) -> int:
    """Write whole shards; returns a checksum of what was stored.

    Parameters
    ----------
    box
        In volume coordinates; starts on a shard's border, and ends on one or at the volume's end.
    values
        (z, y, x) of ``box``, in the array's dtype.

    Raises
    ------
    OutputError
        When the box cuts a shard: it would have a second writer.
    """
    shards = list(cells_touching(box, spec.spatial_shard, spec.spatial_shape))
    if not all(box.contains(shard) for shard in shards):
        raise OutputError(f"box {box} cuts shards of {spec.spatial_shard}")
    checksum = 0
    target = LocalStore(spec.store)
    for shard in shards:
        key = _key(spec, t, c, shard)
        encoded = _encode(spec, values[shard.slices_in(box)])
        if encoded is None:  # all zero: an absent key reads as zeros
            sync(target.delete(key))
            continue
        sync(target.set(key, encoded))
        checksum = crc32(encoded.to_bytes(), checksum)
    return checksum


def _key(spec: ArraySpec, t: int, c: int, shard: Box) -> str:
    start = dict(zip("zyx", shard.start, strict=True)) | {"t": t, "c": c}
    index = [str(start[a] // s) for a, s in zip(spec.axes, spec.shard, strict=True)]
    return "/".join([spec.path, *(["c"] if spec.zarr_format == 3 else []), *index])


def _encode(spec: ArraySpec, values: npt.NDArray[Any]) -> Buffer | None:
    """The bytes of one shard, padded with zeros past the volume's end; None when all zero."""
    objects: dict[str, Buffer] = {}
    array = create_array(spec, store=MemoryStore(objects), shape=spec.shard)
    whole = np.zeros(_spatial(spec.axes, spec.shard), spec.dtype)
    whole[Box.whole(as_shape(values.shape)).slices] = values
    array[...] = whole.reshape(spec.shard)
    stored = [key for key in objects if not key.endswith((*METADATA_NAMES, ".zattrs"))]
    return objects[stored[0]] if stored else None


def _compressor(spec: ArraySpec) -> Any:
    level = spec.codec_level
    if spec.codec == "none":
        return None
    if spec.zarr_format == 3:
        return {
            "blosc-zstd": lambda: BloscCodec(cname="zstd", clevel=level, shuffle="bitshuffle"),
            "zstd": lambda: ZstdCodec(level=level),
            "gzip": lambda: _TimelessGzipCodec(level=level),
        }[spec.codec]()
    return {
        "blosc-zstd": lambda: Blosc("zstd", clevel=level, shuffle=Blosc.BITSHUFFLE),
        "zstd": lambda: Zstd(level=level),
        "gzip": lambda: _TimelessGzip(level=level),
    }[spec.codec]()


class _TimelessGzip(GZip):
    """gzip without the time in its header: whoever writes a shard writes the same bytes."""

    def encode(self, buf: Any) -> bytes:
        return gzip.compress(np.ascontiguousarray(buf).tobytes(), self.level, mtime=0)


class _TimelessGzipCodec(GzipCodec):
    """The same for zarr v3."""

    @cached_property
    def _gzip_codec(self) -> GZip:
        return _TimelessGzip(self.level)


def set_attributes(store: str, path: str, attributes: dict[str, Any], ome_version: str) -> None:
    """Create the group ``path`` if need be and replace its attributes."""
    group = zarr.open_group(
        store, path=path, mode="a", zarr_format=3 if ome_version == "0.5" else 2
    )
    group.attrs.put(attributes)


def get_attributes(store: str, path: str) -> dict[str, Any] | None:
    """The attributes of the group ``path``, or None when there is none."""
    try:
        return dict(zarr.open_group(store, path=path, mode="r").attrs)
    except (FileNotFoundError, KeyError, ValueError):
        return None


def put(store: str, key: str, data: bytes) -> None:
    """Set a key atomically."""
    sync(LocalStore(store).set(key, default_buffer_prototype().buffer.from_bytes(data)))


def get(store: str, key: str) -> bytes | None:
    """The value of a key, or None."""
    try:
        value = sync(LocalStore(store, read_only=True).get(key, default_buffer_prototype()))
    except FileNotFoundError:  # there is no store yet
        return None
    return None if value is None else value.to_bytes()


def keys_under(store: str, prefix: str) -> list[str]:
    """All keys that begin with ``prefix/``."""

    async def collect() -> list[str]:
        return [key async for key in LocalStore(store, read_only=True).list_prefix(prefix + "/")]

    return sorted(sync(collect()))


def delete_keys(store: str, keys: list[str]) -> None:
    """Delete keys; those that are gone already do not matter."""
    target = LocalStore(store)
    for key in keys:
        sync(target.delete(key))


def sweep_partial_files(store: str) -> int:
    """Delete what writers that died left behind; returns how many files that were.

    What is younger than ten minutes may be of a writer that lives.
    """
    count = 0
    for path in Path(store).rglob("*.partial"):
        try:
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()
                count += 1
        except FileNotFoundError:  # its writer was alive and has renamed it
            continue
    return count


def remove_output(store: str) -> None:
    """Delete an output that this package wrote, and nothing else.

    Raises
    ------
    OutputError
        When the folder is something else.
    """
    path = Path(store)
    if not path.exists():
        return
    if get_attributes(store, PROVENANCE) is None:
        raise OutputError(
            f"{store} was not written by n2v-scale: it is not deleted; choose another name"
        )
    shutil.rmtree(path)
