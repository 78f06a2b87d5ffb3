"""The keys of one image in its store, read-only, and nothing beside them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.stores import Location, open_store

PIECE = 4 << 20
"""Bytes that are in memory at once."""
_DOCUMENTS = (".json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")


@dataclass
class Tree:
    """A group or an array, with all that lies below it, in a folder, a zip file or behind a URL."""

    location: Location
    store: Store = field(init=False)
    _archive: zipfile.ZipFile | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.store = open_store(self.location.root)
        if not isinstance(self.store, RemoteStore) and Path(self.location.root).is_file():
            self._archive = zipfile.ZipFile(self.location.root)

    def size(self, key: str) -> int | None:
        """Bytes of a key; None where there is none, or where a link leads out of the tree."""
        whole = self._whole(key)
        if isinstance(self.store, RemoteStore):
            try:
                return sync(self.store.getsize(whole))
            except FileNotFoundError:
                return None
        if self._archive is not None:
            entry = self._archive.NameToInfo.get(whole)
            return None if entry is None else entry.file_size
        return self._file_size(whole)

    def read(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes ``start`` to ``stop`` of a key, in pieces."""
        for begin in range(start, stop, PIECE):
            part = RangeByteRequest(begin, min(stop, begin + PIECE))
            request = self.store.get(self._whole(key), default_buffer_prototype(), part)
            value = sync(request)
            if value is None:
                raise FileNotFoundError(key)
            yield value.to_bytes()

    def _whole(self, key: str) -> str:
        return f"{self.location.path}/{key}" if self.location.path else key

    def _file_size(self, whole: str) -> int | None:
        try:
            base = Path(self.location.root, self.location.path).resolve(strict=True)
            file = Path(self.location.root, whole).resolve(strict=True)
            inside = file.is_relative_to(base) and file.is_file()
            return file.stat().st_size if inside else None
        except OSError:  # absent, a name that is too long, a part that is a file
            return None


def key_of(path: str) -> str | None:
    """A store's key from the rest of a URL's path; None where that is no plain name below.

    >>> key_of("0/c/0/1/2"), key_of("../secret"), key_of("0%2f..%2f..%2fsecret"), key_of("")
    ('0/c/0/1/2', None, None, None)
    """
    parts = [unquote(part) for part in path.split("/")]
    if any(part in ("", ".", "..") or set(part) & set("/\\\0:") for part in parts):
        return None
    return "/".join(parts)


def content_type(key: str) -> str:
    """Of a document or of a chunk."""
    return "application/json" if key.endswith(_DOCUMENTS) else "application/octet-stream"
