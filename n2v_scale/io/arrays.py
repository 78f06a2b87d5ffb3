"""Arrays by address: each is opened once per process, and kept while it is in use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol, cast

import zarr

from n2v_scale.errors import InputError
from n2v_scale.io.planes import Planes
from n2v_scale.io.stores import Location, StorageOptions, open_store, options_for
from n2v_scale.io.tiff import open_series

_quiet_lock = Lock()


class ArrayLike(Protocol):
    """What is read from. An index (integers and slices, one an axis) gives voxels in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent along the stored axes."""

    @property
    def dtype(self) -> Any:
        """A numpy dtype, in the stored byte order."""

    def __getitem__(self, key: Any, /) -> Any: ...


@contextmanager
def quiet() -> Iterator[None]:
    """Silence zarr's remarks about other people's metadata; not for what this package says."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_zarr(location: Location) -> zarr.Array[Any] | zarr.Group:
    """The array or group at ``location``.

    Raises
    ------
    InputError
        When there is none, or when its metadata cannot be understood.
    """
    store = open_store(location.root)
    with quiet():
        try:
            return zarr.open_array(store=store, path=location.path, mode="r")
        except InputError:  # the store cannot be reached, and says why
            raise
        except Exception as exc:  # a foreign document can fail in any way
            array_error = exc
        try:
            return zarr.open_group(
                store=store, path=location.path, mode="r", use_consolidated=False
            )
        except InputError:
            raise
        except Exception as group_error:
            # FileNotFoundError: zarr found no document of that type
            causes = [e for e in (array_error, group_error) if not isinstance(e, FileNotFoundError)]
            if not causes:
                raise InputError(f"{location} holds no zarr array or group") from group_error
            raise InputError(
                f"{location} has zarr metadata that cannot be read: "
                f"{type(causes[0]).__name__}: {causes[0]}"
            ) from causes[0]


def open_zarr_array(location: Location) -> zarr.Array[Any]:
    """The array at ``location``; a group is an :class:`InputError`."""
    node = open_zarr(location)
    if isinstance(node, zarr.Group):
        raise InputError(f"{location} is a zarr group, and an array was expected there")
    return node


def opened_array(kind: str, address: str, path: str, digest: str) -> ArrayLike:
    """The array, opened on first use in this process.

    ``digest`` is a checksum of the array's metadata: an array that was replaced is opened again,
    and so is one whose storage options are others now.
    """
    return _open(kind, address, path, digest, os.getpid(), options_for(address))


@lru_cache(maxsize=64)
def _open(
    kind: str, address: str, path: str, digest: str, pid: int, options: StorageOptions
) -> ArrayLike:
    # the process is part of the key: a forked child must not share a file position
    del digest, pid, options
    if kind == "zarr":
        return cast("ArrayLike", open_zarr_array(Location(address, path)))
    if kind == "tiff":
        return open_series(address, int(path or 0))
    return Planes(address)
