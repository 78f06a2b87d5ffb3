"""The keys of one image in its store, read-only, and nothing beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote
from zipfile import ZipFile

from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.stores import Location, is_url, open_store

PIECE = 4 << 20
"""Bytes that are in memory at once."""
_DOCUMENTS = (".json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")


@dataclass
class Tree:
    """A group or an array, with all that lies below it, in a folder, a zip file or behind a URL."""

    location: Location
    _store: Store | ZipFile = field(init=False)

    def __post_init__(self) -> None:
        root = self.location.root
        zipped = not is_url(root) and Path(root).is_file()
        self._store = ZipFile(root) if zipped else open_store(root)

    def size(self, key: str) -> int | None:
        """Bytes of a key; None where there is none, or where a link leads out of the tree."""
        whole = self._whole(key)
        if isinstance(self._store, ZipFile):
            entry = self._store.NameToInfo.get(whole)
            return None if entry is None else entry.file_size
        if isinstance(self._store, RemoteStore):
            try:
                return sync(self._store.getsize(whole))
            except FileNotFoundError:
                return None
        return self._file_size(whole)

    def read(self, key: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes ``start`` to ``stop`` of a key, in pieces."""
        whole = self._whole(key)
        parts = ((begin, min(stop, begin + PIECE)) for begin in range(start, stop, PIECE))
        if isinstance(self._store, ZipFile):
            with self._store.open(whole) as file:
                file.seek(start)
                for begin, end in parts:
                    yield file.read(end - begin)
            return
        for begin, end in parts:
            part = RangeByteRequest(begin, end)
            value = sync(self._store.get(whole, default_buffer_prototype(), part))
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
