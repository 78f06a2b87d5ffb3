"""File systems behind URLs: with which options they are reached, and their connections.

A connection is opened once a process, place and set of options, for zarr's own event loop. Nothing
is remembered of listings: what another process has written since is seen.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from zarr.core.sync import sync

from n2v_scale.errors import InputError
from n2v_scale.io.remote_errors import explained, refuse_credentials
from n2v_scale.io.storage_options import StorageOptions

CONCURRENCY = 64
"""So many small requests are under way at once."""

_registry: dict[str, StorageOptions] = {}
_connections: dict[tuple[int, str, StorageOptions], tuple[Any, str]] = {}


def remember(address: str, options: StorageOptions) -> None:
    """Use ``options`` for ``address`` and for all below it, in this process, from now on.

    Empty options, and options for a path, change nothing.
    """
    if options and "://" in address:
        _registry[address.rstrip("/")] = options


def options_for(url: str) -> StorageOptions:
    """The options of the longest remembered address that ``url`` is or lies below."""
    prefix = url.rstrip("/")
    while prefix not in _registry:
        prefix, slash, _ = prefix.rpartition("/")
        if not slash or prefix.endswith("/"):  # nothing but the scheme is left
            return StorageOptions()
    return _registry[prefix]


def filesystem(url: str, options: StorageOptions | None = None) -> tuple[Any, str]:
    """An asynchronous fsspec file system for ``url``, and the path of ``url`` on it.

    Raises
    ------
    InputError
        When the URL holds credentials, or when what reads it is not installed.
    """
    refuse_credentials(url)
    options = options_for(url) if options is None else options
    with explained(url, options, InputError):
        try:
            return _connection(url, options)
        except ImportError as exc:
            raise InputError(f"{url} needs {_package(url)}: pip install {_package(url)}") from exc
        except (ValueError, TypeError) as exc:
            raise InputError(f"{url} cannot be opened: {options.redacted(str(exc))}") from None


def _connection(url: str, options: StorageOptions) -> tuple[Any, str]:
    chained = "::" in url
    scheme, _, rest = url.partition("://")
    place = url if chained else f"{scheme}://{rest.partition('/')[0]}"
    key = os.getpid(), place, options  # a forked child has no event loop of its parent's
    if key not in _connections:
        _connections.setdefault(key, _connect(url, options))
    fs, path = _connections[key]
    return fs, path if chained else fs._strip_protocol(url).rstrip("/")


def _connect(url: str, options: StorageOptions) -> tuple[Any, str]:
    fsspec = importlib.import_module("fsspec")
    kind = fsspec.get_filesystem_class(url.partition("://")[0].partition("::")[0])
    keywords = {**options.keywords(), "skip_instance_cache": True}
    if kind.async_impl:
        keywords |= {"asynchronous": True, "use_listings_cache": False}
    fs, path = fsspec.core.url_to_fs(url, **keywords)
    if not fs.async_impl:
        wrapper = importlib.import_module("fsspec.implementations.asyn_wrapper")
        fs = wrapper.AsyncFileSystemWrapper(fs, asynchronous=True)
    return fs, path


def _package(url: str) -> str:
    packages = {"s3": "s3fs", "gs": "gcsfs", "http": "'fsspec[http]'", "https": "'fsspec[http]'"}
    return packages.get(url.partition("://")[0], "fsspec")


def close_connections() -> None:
    """Close what is open in this process; the next access connects again."""
    for (pid, *_), (fs, _) in list(_connections.items()):
        if pid == os.getpid():
            with suppress(Exception):  # at the end of the process nothing can be done about it
                sync(_close(fs), timeout=2)


async def _close(fs: Any) -> None:
    client, session = getattr(fs, "_s3creator", None), getattr(fs, "_session", None)
    if client is not None:
        await client.__aexit__(None, None, None)
    if session is not None:
        fs._session = None
        await session.close()


atexit.register(close_connections)


def replaces_in_one_step(url: str) -> bool:
    """Whether a key behind ``url`` is replaced as a whole, so that nobody sees a part of it."""
    scheme = url.partition("://")[0]
    fs, _ = filesystem(url)
    wrapped = type(fs).__name__ == "AsyncFileSystemWrapper"
    return scheme == "memory" or not (wrapped or scheme in ("http", "https"))


async def gathered(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """All results, in order, of at most :data:`CONCURRENCY` requests at once."""
    results: list[Any] = []
    waiting = iter(work)
    while batch := list(islice(waiting, CONCURRENCY)):
        results += await asyncio.gather(*batch)
    return results
