"""Folders of TIFF planes, one file each, as arrays that are read box by box."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2v_scale.errors import InputError
from n2v_scale.io.messages import odd
from n2v_scale.io.tiff import check_decoder, open_tiff, pick_series


class Planes:
    """A stack of TIFF files of one plane each, along a first axis; one plane is decoded at once."""

    def __init__(self, folder: str) -> None:
        self.files = plane_files(folder)
        shape, self.dtype = self._layout(self.files[0])
        self.shape: tuple[int, ...] = (len(self.files), *shape)
        if self._layout(self.files[-1]) != (shape, self.dtype):
            self._refuse(self.files[-1], *self._layout(self.files[-1]))

    def __getitem__(self, key: tuple[int | slice, ...]) -> np.ndarray:
        first, rest = key[0], key[1:]
        if not isinstance(first, slice):
            return self._plane(self.files[first])[rest]
        return np.stack([self._plane(file)[rest] for file in self.files[first]])

    def _plane(self, file: Path) -> np.ndarray:
        with open_tiff(file) as tif:
            series = pick_series(tif, 0, file)
            check_decoder(series, file)
            plane = series.asarray()
        if (plane.shape, plane.dtype.newbyteorder("=")) != (self.shape[1:], self.dtype):
            self._refuse(file, plane.shape, plane.dtype)
        return plane

    def _layout(self, file: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with open_tiff(file) as tif:
            series = pick_series(tif, 0, file)
            if series.axes not in ("YX", "YXS") or len(tif.series) > 1:
                raise InputError(
                    f"{file} holds {series.axes} {series.shape} ({len(tif.series)} series): in a "
                    "folder of TIFF planes every file is one plane; open one stack, or split it"
                )
            return series.shape, series.dtype.newbyteorder("=")

    def _refuse(self, file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        raise InputError(
            f"plane {file} is {dtype.name} {shape}, but {self.files[0].name} is "
            f"{self.dtype.name} {self.shape[1:]}: all planes must be alike"
        )


def tiff_files(folder: Path) -> list[Path]:
    """The TIFF files of a folder in natural order (z2 before z10); hidden ones are left out."""
    names = [
        p.name
        for p in folder.iterdir()
        if p.suffix.lower() in (".tif", ".tiff") and not p.name.startswith(".")
    ]
    return [folder / name for name in tifffile.natural_sorted(names)]


@lru_cache(maxsize=8)
def _listing(folder: str, modified_ns: int) -> tuple[Path, ...]:
    del modified_ns  # part of the key only: a folder that changed is listed again
    return tuple(tiff_files(Path(folder)))


def plane_files(folder: str) -> tuple[Path, ...]:
    """The planes of a folder, the first along z first."""
    try:
        files = _listing(folder, Path(folder).stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    if not files:
        raise InputError(f"{folder} holds no TIFF file any more")
    return files


def check_names(files: tuple[Path, ...]) -> None:
    """Refuse planes of several channels or positions in one folder; warn of gaps.

    In a stack one number in the names differs from plane to plane. Where every number repeats,
    the files span a grid (channels, tiles, times), and their order along z is not known.
    """
    if len({re.sub(r"\d+", "#", file.name) for file in files}) > 1:
        odd(
            f"the planes in {files[0].parent} do not follow one naming pattern "
            f"({files[0].name}, {files[-1].name}): they are taken in natural order"
        )
    numbers = [tuple(map(int, re.findall(r"\d+", file.name))) for file in files]
    if len(files) < 2 or len({len(n) for n in numbers}) > 1 or not numbers[0]:
        return
    counting = [c for c in zip(*numbers, strict=True) if len(set(c)) == len(files)]
    if not counting:
        raise InputError(
            f"{files[0].parent}: no number in the names differs from file to file "
            f"({files[0].name}, {files[1].name}, …), so they are several channels, tiles or times: "
            "put the planes of each into a folder of its own"
        )
    _warn_of_gaps(sorted(counting[-1]), files[0].parent)


def _warn_of_gaps(numbers: list[int], folder: Path) -> None:
    steps = np.diff(numbers)
    missing = int(steps.sum() - len(steps))
    if 0 < missing <= len(steps) // 2:
        odd(
            f"{folder}: {missing} plane(s) between {numbers[0]} and {numbers[-1]} are missing; "
            "the others are taken as neighbours"
        )
