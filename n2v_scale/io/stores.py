"""From an address to a zarr store that is read from.

An address is a path (``~`` is expanded) or a URL. A path may lead into a zarr hierarchy, also into
a zipped one; the hierarchy's root is then found, so that metadata of the parents is seen.
"""

from __future__ import annotations

import importlib
import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from zarr.storage import FsspecStore, LocalStore, ZipStore

from n2v_scale.errors import InputError

if TYPE_CHECKING:
    from zarr.abc.store import Store

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

    >>> normalise("file:///data/image.zarr/")
    '/data/image.zarr'
    """
    text = os.fspath(address)
    if text.startswith("file:"):
        text = unquote(urlsplit(text).path)
    if is_url(text):
        return text.rstrip("/")
    if not text:
        raise InputError("the address is empty: give a path or a URL")
    return os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 (keeps links, unknown users)


def locate(address: str) -> Location:
    """The root of the zarr hierarchy that ``address`` (normalised) leads into, and the rest."""
    if is_url(address):
        return _split(address, [p for p in _url_ancestors(address) if _is_remote_node(p)])
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
        return _open_remote(root)
    if Path(root).is_dir():
        return LocalStore(root, read_only=True)
    if not Path(root).exists():
        raise InputError(f"{root} does not exist")
    try:
        return ZipStore(root, mode="r")
    except (zipfile.BadZipFile, OSError) as exc:
        raise InputError(f"{root} is not a readable zip file: {exc}") from exc


def read_document(location: Location, name: str) -> bytes | None:
    """The bytes of a metadata document beside a node, or None when there is none."""
    key = "/".join(_parts(location.path, name))
    if is_url(location.root):
        fs, path = filesystem(location.root)
        try:
            content: bytes = fs.cat_file(f"{path}/{key}")
        except FileNotFoundError:
            return None
        return content
    if Path(location.root).is_dir():
        file = Path(location.root, key)
        return file.read_bytes() if file.is_file() else None
    with zipfile.ZipFile(location.root) as archive:
        return archive.read(key) if key in archive.NameToInfo else None


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


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of ``url``, and the path of ``url`` on it."""
    try:
        fsspec = importlib.import_module("fsspec")
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as exc:
        raise InputError(f"{url} needs {_package(url)}: pip install {_package(url)}") from exc
    except ValueError as exc:
        raise InputError(f"{url} cannot be opened: {exc}") from exc
    return fs, path


def _open_remote(url: str) -> Store:
    filesystem(url)  # says what is not installed
    try:
        return FsspecStore.from_url(url, read_only=True)
    except (ImportError, ValueError, TypeError, OSError) as exc:
        raise InputError(f"{url} cannot be opened: {exc}") from exc


def _package(url: str) -> str:
    packages = {"s3": "s3fs", "gs": "gcsfs", "http": "'fsspec[http]'", "https": "'fsspec[http]'"}
    return packages.get(url.partition("://")[0], "fsspec")


def _url_ancestors(url: str) -> list[str]:
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    depth = max(1, len(parts) - _PARENTS)
    return [f"{scheme}://{'/'.join(parts[:n])}" for n in range(len(parts), depth - 1, -1)]


def _is_remote_node(url: str) -> bool:
    fs, path = filesystem(url)
    try:
        return any(fs.isfile(f"{path}/{name}") for name in METADATA_NAMES)
    except (OSError, ValueError):
        return False  # the caller then opens the address itself, and reports


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
