"""A blind mask from a file: offsets as JSON, or a small image of what is hidden."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from n2v_scale.blind_masks import listed_mask, parse_blind_mask
from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Shape, as_shape
from n2v_scale.io.tiff import is_tiff

LARGEST = 65**3
"""Voxels of an image."""
NPY = b"\x93NUMPY"
FORMS = (
    "give a JSON list of offsets from the voxel such as [[0, 0, -1], [0, 0, 1]] (z, y, x), or a "
    "TIFF or .npy image of odd shape that is not 0 where a voxel around its middle is hidden"
)


def blind_mask_of(text: str) -> str:
    """A blind mask that holds its offsets: ``text`` itself, or what the file at ``text`` holds.

    Offsets are completed by their mirror images (:func:`n2v_scale.blind_masks.listed_mask`). What
    is returned says all there is to know, wherever the file goes.

    Raises
    ------
    ConfigError
        When it is neither a mask nor a file with one.
    """
    try:
        parse_blind_mask(text)
    except ConfigError:
        if not Path(text).is_file():
            raise
        return listed_mask(_offsets(Path(text)))
    return text


def _offsets(file: Path) -> list[Shape]:
    try:
        with file.open("rb") as opened:
            start = opened.read(len(NPY))
        if is_tiff(file):
            found = _around_middle(_tiff(file), file)
        elif start == NPY:
            found = _around_middle(_checked(np.load(file, mmap_mode="r"), file), file)
        else:
            found = _listed(json.loads(file.read_text()))
    except ConfigError:
        raise
    except Exception as error:  # whatever a file that is something else makes a reader raise
        raise ConfigError(f"blind mask {file}: {error}: {FORMS}") from None
    if not {*found} - {(0, 0, 0)}:
        raise ConfigError(f"blind mask {file} hides nothing beside the voxel itself: {FORMS}")
    return found


def _listed(content: Any) -> list[Shape]:
    whole = isinstance(content, list) and all(
        isinstance(offset, list) and len(offset) == 3 and all(type(n) is int for n in offset)
        for offset in content
    )
    if not whole:
        raise ValueError("this is no list of three whole numbers each")
    return [as_shape(offset) for offset in content]


def _tiff(file: Path) -> npt.NDArray[Any]:
    with tifffile.TiffFile(file) as opened:
        series = opened.series[0]
        _check_shape(tuple(series.shape), file)
        return np.asarray(series.asarray())


def _checked(values: npt.NDArray[Any], file: Path) -> npt.NDArray[Any]:
    _check_shape(values.shape, file)
    return values


def _check_shape(shape: tuple[int, ...], file: Path) -> None:
    odd = all(n % 2 for n in shape)
    if len(shape) not in (2, 3) or not odd or not 0 < prod(shape) <= LARGEST:
        raise ConfigError(
            f"blind mask {file} has shape {shape}: it has two or three axes, (z), y and x, of an "
            f"odd number of voxels each, and at most {LARGEST} voxels"
        )


def _around_middle(values: npt.NDArray[Any], file: Path) -> list[Shape]:
    """Where an image is not 0, counted from its middle."""
    if values.dtype.kind not in "buif" or not np.isfinite(values).all():
        raise ConfigError(f"blind mask {file} holds {values.dtype}, NaN or infinity: {FORMS}")
    image = values.reshape((1,) * (3 - values.ndim) + values.shape)
    middle = [n // 2 for n in image.shape]
    return [as_shape((place - middle).tolist()) for place in np.argwhere(image)]
