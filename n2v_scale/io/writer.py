"""Writing: whole shards, encoded in memory, replacing their key by one atomic ``set``.

Nothing is deleted first and nothing is read back, so a worker that was given up for dead and its
twin can write the same shard at the same time, and a torn shard from before does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore

from n2v_scale.geometry import Box, Shape, as_shape, cells_touching
from n2v_scale.io.array_spec import ArraySpec
from n2v_scale.io.codecs import check_codec, compressor
from n2v_scale.io.connections import gathered
from n2v_scale.io.keys import (
    PROVENANCE,
    delete_keys,
    get,
    get_attributes,
    is_empty,
    keys_under,
    names,
    naming,
    put,
    put_if_absent,
    remove_output,
    set_attributes,
    sizes_under,
    sweep_partial_files,
)
from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.remote_errors import MISSING
from n2v_scale.io.stores import METADATA_NAMES, output_store

__all__ = [
    "PROVENANCE",
    "ArraySpec",
    "Stored",
    "array_exists",
    "check_codec",
    "create_array",
    "delete_keys",
    "get",
    "get_attributes",
    "is_empty",
    "keys_under",
    "names",
    "open_output",
    "put",
    "put_if_absent",
    "read_output",
    "remove_output",
    "set_attributes",
    "sizes_under",
    "stored_checksum",
    "stored_size",
    "sweep_partial_files",
    "write_box",
]


class Stored(NamedTuple):
    """What lies in the store of a box's shards; a shard that is absent as it is all zero adds 0."""

    checksum: int
    """CRC-32 of the stored bytes, shard by shard in order."""
    size: int
    """Total in bytes."""


NOTHING = Stored(0, 0)


def create_array(
    spec: ArraySpec,
    *,
    store: Any = None,
    shape: tuple[int, ...] | None = None,
    write_zeros: bool = False,
) -> Any:
    """An empty array; in ``store`` and of ``shape`` where these are given.

    With ``write_zeros``, what is handed back does not look for chunks that are all zero.
    """
    v3 = spec.zarr_format == 3
    sharded = v3 and spec.shard != spec.chunk
    keys: dict[str, Any] = {"name": "default" if v3 else "v2", "separator": "/"}
    with naming(spec.store, spec.path):
        return zarr.create_array(
            store=output_store(spec.store) if store is None else store,
            name=spec.path,
            shape=shape or spec.shape,
            chunks=spec.chunk,
            shards=spec.shard if sharded else None,
            dtype=spec.dtype,
            compressors=compressor(spec.codec, spec.codec_level, spec.zarr_format),
            fill_value=0,
            zarr_format=3 if v3 else 2,
            chunk_key_encoding=keys,
            dimension_names=spec.axes if v3 else None,
            overwrite=False,
            config={"write_empty_chunks": write_zeros},
        )


def array_exists(spec: ArraySpec) -> bool:
    """Whether the array's metadata is there."""
    name = "zarr.json" if spec.zarr_format == 3 else ".zarray"
    return get(spec.store, f"{spec.path}/{name}") is not None


def open_output(spec: ArraySpec) -> Any:
    """The array, for reading."""
    return zarr.open_array(output_store(spec.store, read_only=True), path=spec.path, mode="r")


def read_output(spec: ArraySpec, t: int, c: int, box: Box) -> npt.NDArray[Any]:
    """A box of the array, (z, y, x)."""
    index = [{"t": t, "c": c}.get(a, 0) for a in spec.axes]
    slices = dict(zip("zyx", box.slices, strict=True))
    selection = tuple(slices.get(a, i) for a, i in zip(spec.axes, index, strict=True))
    values: npt.NDArray[Any] = np.asarray(open_output(spec)[selection]).reshape(box.shape)
    return values


def write_box(
    spec: ArraySpec,
    t: int,
    c: int,
    box: Box,
    values: npt.NDArray[Any],
    *,
    before: Stored = NOTHING,
) -> Stored:
    """Write whole shards; returns what was stored.

    Parameters
    ----------
    box
        In volume coordinates; starts on a shard's border, and ends on one or at the volume's end.
    values
        (z, y, x) of ``box``, in the array's dtype.
    before
        What was stored of the block's other channels: checksum and size go on from there.

    Raises
    ------
    OutputError
        When the box cuts a shard: it would have a second writer. When the store is behind a URL
        and fails.
    OSError
        When the store is a folder and fails; it names the file.
    """
    checksum, size = before
    target = output_store(spec.store)
    for shard in spec.shards_in(box):
        key = spec.key(t, c, shard)
        encoded = _encode(spec, values[shard.slices_in(box)])
        with naming(spec.store, key):
            if encoded is None:  # all zero: an absent key reads as zeros
                sync(target.delete(key))
                continue
            sync(target.set(key, encoded))
        content = encoded.to_bytes()
        checksum, size = crc32(content, checksum), size + len(content)
    return Stored(checksum, size)


def stored_size(
    spec: ArraySpec, t: int, c: int, box: Box, *, sizes: Mapping[str, int] | None = None
) -> int:
    """Total bytes of the box's shards as they are now; one that is absent adds 0.

    Nothing is read: the store is asked for each shard, or not at all where ``sizes``, what
    :func:`sizes_under` says of the array, are given.
    """
    keys = [spec.key(t, c, shard) for shard in spec.shards_in(box)]
    if sizes is not None:
        return sum(sizes.get(key, 0) for key in keys)
    target = output_store(spec.store, read_only=True)
    with naming(spec.store, spec.path):
        return sum(sync(gathered(_size(target, key) for key in keys)))


async def _size(target: LocalStore | RemoteStore, key: str) -> int:
    try:
        return await target.getsize(key)
    except MISSING:
        return 0


def stored_checksum(
    spec: ArraySpec, t: int, c: int, box: Box, *, before: Stored = NOTHING
) -> Stored:
    """What :func:`write_box` would have returned for the shards as they are now, which are read."""
    checksum, size = before
    for shard in spec.shards_in(box):
        content = get(spec.store, spec.key(t, c, shard)) or b""
        checksum, size = crc32(content, checksum), size + len(content)
    return Stored(checksum, size)


def _encode(spec: ArraySpec, values: npt.NDArray[Any]) -> Buffer | None:
    """The bytes of one shard, padded with zeros past the volume's end; None when all zero."""
    objects: dict[str, Buffer] = {}
    whole = _whole(values, spec.spatial_shard)
    dense = _has_no_empty_chunk(whole, spec.spatial_chunk)  # zarr's own search takes a fifth
    array = create_array(spec, store=MemoryStore(objects), shape=spec.shard, write_zeros=dense)
    array[...] = whole.reshape(spec.shard)
    stored = [key for key in objects if not key.endswith((*METADATA_NAMES, ".zattrs"))]
    return objects[stored[0]] if stored else None


def _whole(values: npt.NDArray[Any], shard: Shape) -> npt.NDArray[Any]:
    """``values`` with zeros behind them up to the extent of a shard."""
    padding = [(0, whole - part) for whole, part in zip(shard, values.shape, strict=True)]
    return np.pad(values, padding) if np.any(padding) else values


def _has_no_empty_chunk(values: npt.NDArray[Any], chunk: Shape) -> bool:
    shape = as_shape(values.shape)
    cells = cells_touching(Box.whole(shape), chunk, shape)
    return all(values[cell.slices].any() for cell in cells)
