"""TIFF files as arrays that are read box by box."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
import tifffile
import zarr

from n2v_scale.errors import InputError
from n2v_scale.io.messages import odd

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_SMALL_STRIP_BYTES = 1 << 16
"""Below this, a strip costs more to schedule than to decode: whole pages are decoded instead."""


class MappedArray:
    """Uncompressed voxels that lie one after the other: read without decoding anything."""

    def __init__(self, mapped: np.ndarray) -> None:
        self._mapped = mapped
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype = mapped.dtype

    def __getitem__(self, key: tuple[int | slice, ...]) -> np.ndarray:
        return np.array(self._mapped[key])


class StripedArray:
    """Voxels in strips or tiles, decoded as they are needed; closes its file when it goes."""

    def __init__(self, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
        keyframe = series.keyframe
        small = prod(keyframe.chunks) * series.dtype.itemsize < _SMALL_STRIP_BYTES
        store = series.aszarr(level=0, chunkmode=2 if small else 0)
        self._array = zarr.open_array(store=store, mode="r")
        self.shape: tuple[int, ...] = self._array.shape
        self.dtype = self._array.dtype
        weakref.finalize(self, tif.close)

    def __getitem__(self, key: tuple[int | slice, ...]) -> np.ndarray:
        return np.asarray(self._array[key])


def is_tiff(path: Path) -> bool:
    """Whether the file begins as a TIFF or BigTIFF does."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def open_tiff(path: str | Path) -> tifffile.TiffFile:
    """The TIFF file; its images are not read."""
    with ExitStack() as on_error:
        with _strictly(path):
            tif = on_error.enter_context(tifffile.TiffFile(path))
        on_error.pop_all()
    return tif


def pick_series(tif: tifffile.TiffFile, index: int, path: str | Path) -> tifffile.TiffPageSeries:
    """Series ``index`` of a file."""
    series = all_series(tif, path)
    if not series:
        raise InputError(f"{path} holds no image")
    if not 0 <= index < len(series):
        held = "; ".join(f"{i}: {s.axes} {s.shape}" for i, s in enumerate(series))
        raise InputError(f"{path} has no series {index}; it holds {held}")
    return series[index]


def all_series(tif: tifffile.TiffFile, path: str | Path) -> list[tifffile.TiffPageSeries]:
    """Every series of a file."""
    with _strictly(path):
        return list(tif.series)


@contextmanager
def _strictly(path: str | Path) -> Iterator[None]:
    """Refuse what tifffile puts up with.

    Where the end of a file is missing, it logs an error and goes on with fewer planes: that is an
    :class:`InputError`. What else it logs as an error becomes a warning.
    """
    with _errors_logged() as errors:
        try:
            yield
        except (tifffile.TiffFileError, ValueError, KeyError, IndexError) as exc:
            raise InputError(f"{path} is not a readable TIFF file: {exc}") from exc
    for message in errors:
        if "corrupted" in message or "offset" in message:
            raise InputError(
                f"{path} is damaged or cut short ({message}): copy it again, or save it anew"
            )
        odd(f"{path}: {message}")


@contextmanager
def _errors_logged() -> Iterator[list[str]]:
    """What tifffile logs as errors in this thread, while inside."""
    messages: list[str] = []
    own, logger = get_ident(), logging.getLogger("tifffile")

    def take(record: logging.LogRecord) -> bool:
        mine = record.thread == own and record.levelno >= logging.ERROR
        if mine:
            messages.append(record.getMessage())
        return not mine

    logger.addFilter(take)
    try:
        yield messages
    finally:
        logger.removeFilter(take)


def open_series(path: str, index: int) -> MappedArray | StripedArray:
    """Series ``index`` as an array that reads only what it is asked for."""
    tif = open_tiff(path)
    try:
        series = pick_series(tif, index, path)
        offset = None if series.is_multifile else series.dataoffset
        if offset is None:
            check_decoder(series, path)
            return StripedArray(tif, series)
        array = _mapped(path, offset, series.shape, series.dtype.newbyteorder(tif.byteorder))
    except BaseException:
        tif.close()
        raise
    tif.close()
    return array


def _mapped(path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> MappedArray:
    end, size = offset + prod(shape) * dtype.itemsize, Path(path).stat().st_size
    if end > size:
        raise InputError(f"{path} is cut short: {size:,} bytes of {end:,}; copy it again")
    return MappedArray(np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape))


def check_decoder(series: tifffile.TiffPageSeries, path: str | Path) -> None:
    """Refuse a compression that nothing installed can decode."""
    try:
        tifffile.TIFF.DECOMPRESSORS[series.keyframe.compression]
    except KeyError as exc:
        raise InputError(
            f"{path} is compressed with {compression_name(series)}, which needs imagecodecs: "
            "pip install imagecodecs"
        ) from exc


def compression_name(series: tifffile.TiffPageSeries) -> str:
    """The compression, in lower case; ``none`` without one."""
    compression = series.keyframe.compression
    if compression == 1:
        return "none"
    return str(getattr(compression, "name", compression)).lower()
