"""A foreground mask of any coarser resolution: where it is empty, the input is kept.

Along one axis of ``n`` voxels, a mask of ``m`` voxels covers the same extent::

    volume   |0  |1  |2  |3  |4  |5  |6  |        n = 7
    mask     |0     |1     |2     |3     |        m = 4: voxel i covers [i·n/m, (i + 1)·n/m)
    or       |0      |1      |2      |3      |    halved: [2i, 2i + 2)

A mask may as well come from downsampling by a whole factor, which drops the rest or keeps it in a
last voxel that sticks out. Extents do not tell these apart, and they differ by less than one voxel
of the mask. A box is outside only if it is so in every such reading, for powers of two and for the
whole numbers next to ``n/m``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape, ceil_div
from n2v_scale.io.open import open_volume
from n2v_scale.io.stores import StorageOptions, normalise
from n2v_scale.io.volume import Volume


@dataclass(frozen=True)
class Foreground:
    """A mask that lies over a volume: an address, like a volume; nothing of it is in memory."""

    address: str
    """What :func:`open_foreground` opens again."""
    volume: Volume
    """The mask itself, with a time point and a channel for each of the volume's."""
    shape: Shape
    """Of the volume that it lies over, along (z, y, x)."""
    key: str
    """A hash of the mask's identity, when it was opened."""

    def outside(self, t: int, c: int, box: Box) -> bool:
        """Whether no foreground overlaps ``box``, which is in the volume's voxels and not empty.

        ``t`` and ``c`` are positions within the volume's selection. For many boxes of one region
        :meth:`over` reads once.

        Raises
        ------
        InputError
            When the mask cannot be read.
        """
        return self.over(t, c, box)(box)

    def over(self, t: int, c: int, region: Box) -> Callable[[Box], bool]:
        """:meth:`outside` for boxes inside ``region``, whose part of the mask is read here."""
        read = self.mask_box(region)
        present = _present(self.volume.read(t, c, read))
        return lambda box: not present[self.mask_box(box).slices_in(read)].any()

    def mask_box(self, box: Box) -> Box:
        """The voxels of the mask that overlap ``box``."""
        sides = zip(box.start, box.stop, self.shape, self.volume.spatial_shape, strict=True)
        spans = [_span(*side) for side in sides]
        return Box(as_shape([a for a, _ in spans]), as_shape([b for _, b in spans]))

    def memory_bytes(self, region: Box) -> int:
        """What :meth:`over` holds at its peak, beside the chunks that are being decoded."""
        return self.mask_box(region).size * (np.dtype(self.volume.dtype).itemsize + 3)


def open_foreground(
    address: str | os.PathLike[str],
    volume: Volume,
    *,
    storage_options: StorageOptions | None = None,
) -> Foreground:
    """The mask at ``address``, laid over ``volume``.

    Parameters
    ----------
    address
        Anything that :func:`n2v_scale.io.open.open_volume` opens, of any type of number: what is
        neither 0 nor NaN nor infinite is foreground. It covers the same extent with as many
        voxels or fewer; without a z axis it holds for every z.
    volume
        With the time points and channels that are selected. A mask has one time point, which
        holds for all, or as many as the volume stores; so with channels.

    Raises
    ------
    InputError
        When there is no such mask, or it does not fit; the message holds both extents.
    """
    where = normalise(address)
    mask = open_volume(where, any_dtype=True, storage_options=storage_options)
    if _kind(mask.dtype) not in "buif":
        raise InputError(
            f"the mask {where} has voxels of type {mask.dtype}: store truth values, labels or "
            "other real numbers"
        )
    _check_extent(mask, volume)
    laid = replace(
        mask,
        timepoints=_selected(mask, volume, "t", "time points"),
        channels=_selected(mask, volume, "c", "channels"),
    )
    identity = f"{mask.identity()} {mask.array_path}"
    key = hashlib.sha256(identity.encode()).hexdigest()
    return Foreground(where, laid, volume.spatial_shape, key)


def _kind(dtype: str) -> str:
    try:
        return np.dtype(dtype).kind
    except TypeError:  # a type of zarr's own
        return "?"


def _check_extent(mask: Volume, volume: Volume) -> None:
    sizes = zip(mask.voxel_size, volume.voxel_size, strict=True)
    extents = zip(mask.spatial_shape, volume.spatial_shape, strict=True)
    for name, (m, n), (coarse, fine) in zip("zyx", extents, sizes, strict=True):
        if m > n:
            raise InputError(
                f"the mask {mask.location} is finer than the volume along {name}: {m} voxels, and "
                f"the volume has {n}; give one of at most that many, such as a coarser level"
            )
        ratio = coarse / fine
        if _units_agree(mask, volume, name) and abs(m * ratio - n) > ratio * (1 + 1e-6):
            raise InputError(
                f"the mask {mask.location} has {m} voxels of {coarse:g} along {name}, which is "
                f"{m * coarse:g}, and the volume {n} of {fine:g}, which is {n * fine:g}: a mask "
                "covers the extent of the volume; if it does, correct its voxel size"
            )


def _units_agree(mask: Volume, volume: Volume, name: str) -> bool:
    """Whether both say how large their voxels are, in the same unit: else nothing is known."""
    ours, theirs = mask.axis(name), volume.axis(name)
    return bool(ours and theirs and ours.unit and ours.unit == theirs.unit)


def _selected(mask: Volume, volume: Volume, axis: str, what: str) -> tuple[int, ...]:
    """The mask's stored index for each selected one of the volume."""
    wanted = volume.timepoints if axis == "t" else volume.channels
    have, need = _extent(mask, axis), _extent(volume, axis)
    if have == 1:
        return (0,) * len(wanted)
    if have != need:
        raise InputError(
            f"the mask {mask.location} has {have} {what} and the volume stores {need}: give a mask "
            f"with one for all, or with {need}"
        )
    return wanted


def _extent(volume: Volume, axis: str) -> int:
    names = volume.axis_names
    return volume.stored_shape[names.index(axis)] if axis in names else 1


def _span(a: int, b: int, n: int, m: int) -> tuple[int, int]:
    """First and last + 1 of ``m`` voxels that may overlap [a, b) of ``n``, in any reading."""
    widths = _widths(n, m)
    stop = max(ceil_div(b * parts, extent) for extent, parts in widths)
    return min(a * parts // extent for extent, parts in widths), min(m, stop)


@lru_cache(maxsize=16)
def _widths(n: int, m: int) -> tuple[tuple[int, int], ...]:
    """How wide a voxel of the mask may be, as fractions (extent, parts).

    >>> _widths(8, 4), _widths(7, 4), _widths(9, 3)
    (((8, 4), (2, 1)), ((7, 4), (2, 1)), ((9, 3), (3, 1), (4, 1)))
    """
    low, high = n // m, ceil_div(n, m)
    halvings = {2 ** (low.bit_length() - 1), 2 ** (high - 1).bit_length()}
    whole = [f for f in sorted({low, high} | halvings) if m in (n // f, ceil_div(n, f))]
    return (n, m), *((f, 1) for f in whole)


def _present(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if values.dtype.kind == "b":
        return values
    present: npt.NDArray[np.bool_] = values != 0
    return present & np.isfinite(values) if values.dtype.kind == "f" else present
