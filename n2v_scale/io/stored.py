"""What lies on the disk: fingerprints that change with the data, and sizes.

Nothing here grows with the volume: at most :data:`SAMPLES` chunks are looked at, and none is read.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import zarr
from zarr.core.sync import sync

from n2v_scale.errors import InputError
from n2v_scale.io.arrays import open_zarr_array
from n2v_scale.io.connections import CONCURRENCY, gathered
from n2v_scale.io.planes import plane_files
from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.remote_errors import MISSING
from n2v_scale.io.stores import Location, is_url, read_document

SAMPLES = 256
"""How many stored chunks are looked at."""

_TRIES = 4096
"""How many chunks are looked for, of which some may not be stored."""

_CHEAP = 100_000
"""Up to so many files, their sizes are added up."""


def digest(kind: str, address: str, path: str) -> str:
    """A checksum of the metadata alone: cheap, and enough to notice another array."""
    if kind == "zarr":
        return _checksum(_documents(Location(address, path)))
    if kind == "tiff":
        return _checksum(_file_state(Path(address)))
    return _checksum([file.name for file in plane_files(address)])


def fingerprint(kind: str, address: str, path: str) -> str:
    """A checksum of the metadata, and of size and time of a seeded sample of chunk files."""
    return _checksum([digest(kind, address, path), *_states(kind, address, path)])


def stored_bytes(kind: str, address: str, path: str) -> int | None:
    """Bytes on the disk; None where counting them would take long."""
    if kind == "planes":
        return sum(file.stat().st_size for file in plane_files(address))
    if not Path(address).is_dir():
        return Path(address).stat().st_size if Path(address).is_file() else None
    array = open_zarr_array(Location(address, path))
    grid = _grid(array)
    if prod(grid) > _CHEAP:
        return None
    indices = (_index(n, grid) for n in range(prod(grid)))
    states = (_file_state(Path(address, path, _key(array, index))) for index in indices)
    return sum(state[0] for state in states if state)


def _states(kind: str, address: str, path: str) -> Iterator[Any]:
    if kind == "planes":
        files = plane_files(address)
        chosen = random.Random(0).sample(range(len(files)), min(SAMPLES, len(files)))
        yield from (_file_state(files[i]) for i in chosen)
    elif not is_url(address) and not Path(address).is_dir():
        yield _file_state(Path(address))
    else:
        yield from _chunk_states(Location(address, path))


def _chunk_states(location: Location) -> Iterator[Any]:
    """States of chunks in a seeded order, until enough stored ones are seen."""
    array = open_zarr_array(location)
    grid = _grid(array)
    total = prod(grid)
    found = 0
    numbers = random.Random(total).sample(range(total), min(_TRIES, total))
    folder = f"{location.path}/" if location.path else ""
    keys = (f"{folder}{_key(array, _index(number, grid))}" for number in numbers)
    for number, state in zip(numbers, _key_states(location.root, keys), strict=True):
        yield [number, state]
        found += bool(state)
        if found == SAMPLES:
            return


def _key_states(root: str, keys: Iterator[str]) -> Iterator[list[Any]]:
    """What is known of each key, looked up as it is asked for, or some at once where that is far.

    Empty where there is no such key.
    """
    if not is_url(root):
        yield from (_file_state(root, key) for key in keys)
        return
    store = RemoteStore(root, error=InputError, read_only=True)
    while batch := list(islice(keys, CONCURRENCY)):
        yield from sync(gathered(_remote_state(store, key) for key in batch))


async def _remote_state(store: RemoteStore, key: str) -> list[str]:
    try:
        info = await store.info(key)
    except MISSING:
        return []
    return [str(info.get(name)) for name in ("size", "ETag", "etag", "LastModified", "mtime")]


def _documents(location: Location) -> list[str]:
    documents = (read_document(location, name) for name in ("zarr.json", ".zarray"))
    return [document.decode(errors="replace") for document in documents if document is not None]


def _grid(array: zarr.Array[Any]) -> tuple[int, ...]:
    """How many stored objects there are along each axis."""
    unit = array.shards or array.chunks
    return tuple(-(-n // u) for n, u in zip(array.shape, unit, strict=True))


def _index(number: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for extent in reversed(grid):
        number, rest = divmod(number, extent)
        index.append(rest)
    return tuple(reversed(index))


def _key(array: zarr.Array[Any], index: tuple[int, ...]) -> str:
    return array.metadata.encode_chunk_key(index)


def _file_state(folder: str | Path, name: str = "") -> list[int]:
    """Size and time of modification; empty where there is no such file."""
    try:
        state = Path(folder, name).stat()
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [state.st_size, state.st_mtime_ns]


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
