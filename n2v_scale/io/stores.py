"""From an address to a zarr store.

An address is a path (``~`` is expanded) or a URL. It may lead into a zarr hierarchy, also into a
zipped one; the hierarchy's root is then found, so that metadata of the parents is seen.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from zarr.core.sync import sync
from zarr.storage import LocalStore, ZipStore

from n2v_scale.errors import InputError, OutputError
from n2v_scale.io.connections import (
    close_connections,
    filesystem,
    gathered,
    options_for,
    remember,
    replaces_in_one_step,
)
from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.remote_errors import explained, refuse_credentials
from n2v_scale.io.storage_options import StorageOptions

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "METADATA_NAMES",
    "Location",
    "StorageOptions",
    "close_connections",
    "inside",
    "is_node",
    "is_url",
    "locate",
    "normalise",
    "open_store",
    "options_for",
    "output_store",
    "read_document",
    "remember",
]

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup")
"""What makes a folder a node of a zarr hierarchy."""

_PARENTS = 5
"""How far above an address the root of its hierarchy is looked for."""


@dataclass(frozen=True)
class Location:
    """A node: the store that holds it, and its path inside ('' for the root)."""

    root: str
    path: str

    def __str__(self) -> str:
        return f"{self.root}/{self.path}" if self.path else self.root


def is_url(address: str) -> bool:
    """Whether ``address`` is read through fsspec.

    >>> is_url("s3://bucket/image.zarr"), is_url("/data/image.zarr")
    (True, False)
    """
    return "://" in address


def normalise(address: str | os.PathLike[str]) -> str:
    """``address`` as an absolute path, or as a URL without a slash at its end.

    Raises
    ------
    InputError
        When it is empty, or a URL that holds credentials.

    >>> normalise("file:///data/image.zarr/")
    '/data/image.zarr'
    """
    text = os.fspath(address)
    if text.startswith(("file:", "local:")):
        text = unquote(urlsplit(text).path)
    if is_url(text):
        refuse_credentials(text)
        return text.rstrip("/")
    if not text:
        raise InputError("the address is empty: give a path or a URL")
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 (keeps links, unknown users)


def locate(address: str) -> Location:
    """The root of the zarr hierarchy that ``address`` (normalised) leads into, and the rest."""
    if is_url(address):
        return _locate_remote(address)
    path = Path(address)
    archive = next((p for p in (path, *path.parents) if p.is_file()), None)
    if archive is not None:
        inner = path.relative_to(archive).as_posix()
        return Location(str(archive), "/".join(_parts(_zip_prefix(archive), inner)))
    ancestors = (path, *path.parents)[: _PARENTS + 1]
    return _split(address, [str(p) for p in ancestors if is_node(p)])


def is_node(folder: Path) -> bool:
    """Whether ``folder`` holds the metadata of a zarr array or group."""
    return any((folder / name).is_file() for name in METADATA_NAMES)


def open_store(root: str) -> Store:
    """The store at ``root``, for reading."""
    if is_url(root):
        return RemoteStore(root, error=InputError, read_only=True)
    if Path(root).is_dir():
        return LocalStore(root, read_only=True)
    if not Path(root).exists():
        raise InputError(f"{root} does not exist")
    try:
        return ZipStore(root, mode="r")
    except (zipfile.BadZipFile, OSError) as exc:
        raise InputError(f"{root} is not a readable zip file: {exc}") from exc


def output_store(address: str, *, read_only: bool = False) -> LocalStore | RemoteStore:
    """The store at ``address``, a path or a URL, that an output is written to.

    Raises
    ------
    OutputError
        When it is to be written to, and what is behind the URL cannot replace a key in one step.
    """
    if not is_url(address):
        return LocalStore(address, read_only=read_only)
    if not (read_only or replaces_in_one_step(address)):
        raise OutputError(
            f"{address} can be read from but not written to, as {address.partition('://')[0]} "
            "cannot replace a file in one step: use an object store (s3, gs, abfs) or a folder, "
            "such as one that the server is mounted at"
        )
    return RemoteStore(address, error=OutputError, read_only=read_only)


def read_document(location: Location, name: str) -> bytes | None:
    """The bytes of a metadata document beside a node, or None when there is none.

    Raises
    ------
    InputError
        When the store itself is gone, or cannot be read.
    """
    key = "/".join(_parts(location.path, name))
    if is_url(location.root):
        value = sync(RemoteStore(location.root, error=InputError, read_only=True).get(key))
        return None if value is None else value.to_bytes()
    if Path(location.root).is_dir():
        file = Path(location.root, key)
        return file.read_bytes() if file.is_file() else None
    try:
        with zipfile.ZipFile(location.root) as archive:
            return archive.read(key) if key in archive.NameToInfo else None
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{location.root} cannot be read: {error}") from error


def inside(path: str | os.PathLike[str], address: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is ``address`` itself or lies inside it; symbolic links are followed.

    >>> inside("/data/image.zarr/denoised", "/data/image.zarr")
    True
    >>> inside("/data/image.zarr-denoised", "/data/image.zarr")
    False
    """
    inner, outer = normalise(path), normalise(address)
    if is_url(inner) or is_url(outer):
        return f"{inner}/".startswith(f"{outer}/")
    return Path(inner).resolve().is_relative_to(Path(outer).resolve())


def _locate_remote(url: str) -> Location:
    """See :func:`locate`; what was remembered for ``url`` is remembered for the root."""
    options = options_for(url)
    fs, _ = filesystem(url, options)
    places = [url] if "::" in url else _url_ancestors(url)
    names = [(place, f"{fs._strip_protocol(place)}/{name}") for place in places
             for name in METADATA_NAMES]  # fmt: skip
    with explained(url, options, InputError):
        present = sync(gathered(_is_remote_file(fs, name) for _, name in names))
    nodes = [place for (place, _), there in zip(names, present, strict=True) if there]
    found = _split(url, nodes)
    remember(found.root, options)
    return found


async def _is_remote_file(fs: Any, path: str) -> bool:
    try:
        info = await fs._info(path)
    except (OSError, ValueError):
        return False  # the caller then opens the address itself, and reports
    return bool(info["type"] == "file")


def _url_ancestors(url: str) -> list[str]:
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    depth = max(1, len(parts) - _PARENTS)
    return [f"{scheme}://{'/'.join(parts[:n])}" for n in range(len(parts), depth - 1, -1)]


def _split(address: str, nodes: list[str]) -> Location:
    """``nodes``: the ancestors of ``address`` that are zarr nodes, the nearest first."""
    root = nodes[-1] if nodes else address
    return Location(root, address[len(root) :].strip("/"))


def _parts(*paths: str) -> list[str]:
    return [part for path in paths for part in path.split("/") if part not in ("", ".")]


@lru_cache(maxsize=16)
def _zip_prefix(archive: Path) -> str:
    """The folder that a zip file wraps around its hierarchy; '' when there is none."""
    try:
        with zipfile.ZipFile(archive) as content:
            names = content.NameToInfo
    except (zipfile.BadZipFile, OSError):
        return ""
    tops = {name.partition("/")[0] for name in names}
    wrapped = len(tops) == 1 and not any(name in names for name in METADATA_NAMES)
    return tops.pop() if wrapped else ""
