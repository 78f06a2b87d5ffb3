"""Empty space: what of a block needs no forward pass, and what a denoiser says to a constant.

Decided for whole cells of the output's chunk grid, in volume coordinates, from the input alone::

    cells     |  kept   |constant |    c    |    c    |constant |   every cell is one of three
    input     |? ? ? ? ?|5 5 5 5 5|5 5 7 6 8|9 8 7 5 5|5 5 5 5 5|
    halo              <-|         |->                               must be 5 as well
    tiles     |    a    |    b    |    c    |   ...                 a and b are not run

kept
    Outside the foreground, or nothing but the declared no-data value: the output is the input.
constant
    One finite value in the cell and in the halo around it, all of it inside the volume: the output
    is what the denoiser says to that value. At a face the network sees the face, so cells whose
    halo leaves the volume are computed.
computed
    All others. A tile that holds a voxel of one is run whole; kept and constant cells are then
    written over it. So neither blocks nor, but for rounding, tiles change the result.

NaN and infinity are never constant. Where a tile is run, they are the caller's to judge in what the
tile reads; a kept cell that no tile reads may hold them and keeps them. Which tiles are run does
not depend on the blocks: those that hold a voxel of a computed cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.denoiser import Denoiser, Estimate, FloatArray, Region, TileBoxes, tile_boxes
from n2v_scale.errors import PlanError
from n2v_scale.geometry import Box, Halo, Shape, as_shape, cells_touching, round_up

COMPARED = 2**20
"""Voxels that are compared at once: bounds the memory that this takes, and ends early."""


@dataclass(frozen=True)
class Cells:
    """The cells of a block that need no forward pass, in C order; no two share a voxel."""

    kept: tuple[Box, ...] = ()
    """The output is the input."""
    constant: tuple[tuple[Box, float], ...] = ()
    """The output is the denoiser's response to this value."""

    @property
    def boxes(self) -> tuple[Box, ...]:
        """All of them."""
        return *self.kept, *(box for box, _ in self.constant)

    @property
    def voxels(self) -> int:
        """How many voxels they hold."""
        return sum(box.size for box in self.boxes)


def classify(
    values: npt.NDArray[Any],
    read_box: Box,
    write_box: Box,
    *,
    cell: Shape,
    halo: Halo,
    shape: Shape,
    nodata: float | None = None,
    outside: Callable[[Box], bool] | None = None,
) -> Cells:
    """The cells of ``write_box`` that need no forward pass; the same under every blocking.

    Parameters
    ----------
    values
        The input as stored, (z, y, x) of ``read_box``.
    read_box
        Holds the write box and as much of the halo around it as lies in the volume.
    write_box
        Whole cells.
    cell
        The output's chunk; its grid is anchored at the origin and clipped to the volume.
    halo
        The denoiser's own.
    shape
        The volume's.
    nodata
        A cell of nothing but this value, rounded to the input's type if that is a float, is kept;
        NaN means NaN.
    outside
        Whether a cell holds no foreground; such a cell is kept.

    Raises
    ------
    PlanError
        When the boxes are not as described: the result would depend on the blocks.
    """
    cells = list(cells_touching(write_box, cell, shape))
    _check_boxes(read_box, write_box, cells, write_box.expand(halo).intersect(Box.whole(shape)))
    empty = None if nodata is None else _as_voxel(nodata, values.dtype)
    kept: list[Box] = []
    others: list[Box] = []
    for box in cells:
        keep = (outside is not None and outside(box)) or (
            empty is not None and _holds_only(values[box.slices_in(read_box)], empty)
        )
        (kept if keep else others).append(box)
    return Cells(tuple(kept), tuple(_constants(values, read_box, others, cell, halo, shape)))


def tiles_to_run(tiles: list[TileBoxes], write: Box, cells: Cells) -> list[TileBoxes]:
    """The tiles that some computed cell of the write box has a voxel in."""
    if not cells.boxes:
        return list(tiles)
    starts = np.array([box.start for box in cells.boxes])  # (n, 3)
    stops = np.array([box.stop for box in cells.boxes])

    def covered(part: Box) -> bool:
        lengths = np.minimum(stops, part.stop) - np.maximum(starts, part.start)
        return int(lengths.clip(0).prod(axis=1).sum()) == part.size

    return [tile for tile in tiles if not covered(tile.core.intersect(write))]


@lru_cache(maxsize=256)
def constant_response(denoiser: Denoiser, value: float, channel: int) -> Estimate:
    """What a denoiser says to a volume that is ``value`` everywhere, far from its faces.

    Computed once a denoiser, value and channel; in the input's units, float32, not writeable. Its
    standard deviation is the denoiser's own, where there is one: that a region holds one value
    does not make its denoised value certain.

    Both have the shape of the denoiser's stride: element (0, 0, 0) is the answer at positions that
    are multiples of the stride, and so on; :func:`repeated` continues it. Networks that pool
    answer alike at all of them, but for rounding; those that fold cells of voxels into channels
    have learned one answer for each.
    """
    stride = denoiser.stride
    low = [round_up(a, s) for (a, _), s in zip(denoiser.halo, stride, strict=True)]
    high = [round_up(b, s) for (_, b), s in zip(denoiser.halo, stride, strict=True)]
    core = Box(as_shape(low), as_shape([a + s for a, s in zip(low, stride, strict=True)]))
    shape = as_shape([b + h for b, h in zip(core.stop, high, strict=True)])
    data = tile_boxes(core, denoiser.halo, stride, shape).data
    tile = np.full(data.shape, value, np.float32)
    found = denoiser.denoise(tile, Region(0, channel, core, shape))
    return Estimate(_frozen(found.mean), None if found.std is None else _frozen(found.std))


def _frozen(values: FloatArray) -> FloatArray:
    copy = np.array(values, np.float32)
    copy.setflags(write=False)
    return copy


def repeated(response: FloatArray, box: Box) -> FloatArray:
    """A response, repeated all over the volume, as far as it lies in ``box``."""
    where = [
        np.arange(a, b) % n for a, b, n in zip(box.start, box.stop, response.shape, strict=True)
    ]
    return response[np.ix_(*where)]


def _check_boxes(read_box: Box, write_box: Box, cells: list[Box], needed: Box) -> None:
    if not read_box.contains(needed):
        raise PlanError(
            f"block {write_box.start}..{write_box.stop} reads {read_box.start}..{read_box.stop}, "
            f"and with its halo it needs {needed.start}..{needed.stop}"
        )
    cut = next((box for box in cells if not write_box.contains(box)), None)
    if cut is not None:
        raise PlanError(
            f"block {write_box.start}..{write_box.stop} cuts cell {cut.start}..{cut.stop} of the "
            "chunk grid: blocks are whole chunks"
        )


def _constants(
    values: npt.NDArray[Any],
    read_box: Box,
    cells: list[Box],
    cell: Shape,
    halo: Halo,
    shape: Shape,
) -> list[tuple[Box, float]]:
    whole = Box.whole(shape)
    inner = [(box, around) for box in cells if whole.contains(around := box.expand(halo))]
    if not inner:
        return []
    bricks = _Bricks(values, read_box, cell)
    found = [(box, bricks.only_value(box, around)) for box, around in inner]
    return [(box, value) for box, value in found if value is not None]


class _Bricks:
    """A read box cut by the cells' grid, and which of these bricks hold one value only.

    The halos of neighbouring cells overlap; each voxel of a brick is compared once here, however
    many halos it lies in. A few voxels of every brick are compared first: with noise in it, it is
    never looked at again.
    """

    def __init__(self, values: npt.NDArray[Any], box: Box, cell: Shape) -> None:
        self.box, self.cell = box, cell
        self.dtype = values.dtype
        self.bits = values.view(f"u{values.dtype.itemsize}")  # tells -0.0 from 0.0, and NaN is NaN
        self.first = [a // c for a, c in zip(box.start, cell, strict=True)]
        cuts = [
            np.arange(i * c, round_up(b, c) + 1, c).clip(a, b) - a
            for a, b, c, i in zip(box.start, box.stop, cell, self.first, strict=True)
        ]
        self.value, self.uniform = _probe(self.bits, cuts)
        for index in np.argwhere(self.uniform):
            brick = tuple(slice(e[i], e[i + 1]) for e, i in zip(cuts, index, strict=True))
            where = tuple(index)
            self.uniform[where] = _all_equal(self.bits[brick], self.value[where])

    def only_value(self, box: Box, around: Box) -> float | None:
        """The one finite value of ``around``, a cell with its halo; None when it has others."""
        own = self._index(box.start)
        if not self.uniform[own]:
            return None
        value = self.value[own].view(self.dtype)
        if not np.isfinite(value) or (value == 0 and np.signbit(value)):
            return None  # -0.0 is another value that 0.0 is equal to: no response could be its own
        return float(value) if self._fills(self.value[own], around) else None

    def _fills(self, value: Any, around: Box) -> bool:
        start, last = self._index(around.start), self._index(tuple(b - 1 for b in around.stop))
        window = tuple(slice(a, b + 1) for a, b in zip(start, last, strict=True))
        fits = self.uniform[window] & (self.value[window] == value)
        return all(
            _all_equal(self.bits[part.slices_in(self.box)], value)
            for index in np.argwhere(~fits)
            for part in [self._brick(index + start).intersect(around)]
        )

    def _index(self, voxel: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(a // c - i for a, c, i in zip(voxel, self.cell, self.first, strict=True))

    def _brick(self, index: npt.NDArray[Any]) -> Box:
        start = (index + self.first) * self.cell
        return Box(as_shape(start.tolist()), as_shape((start + self.cell).tolist()))


def _probe(
    bits: npt.NDArray[Any], cuts: list[npt.NDArray[np.int_]]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The first voxel of every brick, and whether its 27 corners and middles are equal to it."""
    places = [np.stack([e[:-1], (e[:-1] + e[1:]) // 2, e[1:] - 1], axis=1) for e in cuts]
    probes = bits[np.ix_(*(p.ravel() for p in places))]
    z, y, x = (len(p) for p in places)
    probes = probes.reshape(z, 3, y, 3, x, 3)
    first = probes[:, :1, :, :1, :, :1]
    return first.reshape(z, y, x), (probes == first).all(axis=(1, 3, 5))


def _as_voxel(value: float, dtype: np.dtype[Any]) -> Any:
    """``value`` in the input's type; None when no voxel of that type can hold it."""
    with np.errstate(all="ignore"):
        voxel = np.float64(value).astype(dtype)
    held = np.isinf(voxel) == np.isinf(value) if dtype.kind == "f" else voxel == value
    return voxel if held else None


def _holds_only(values: npt.NDArray[Any], voxel: Any) -> bool:
    if not np.isnan(voxel):
        return _all_equal(values, voxel)
    return bool(np.isnan(values[0, 0, 0])) and bool(np.isnan(values).all())


def _all_equal(values: npt.NDArray[Any], value: Any) -> bool:
    if values[0, 0, 0] != value:
        return False
    step = max(1, COMPARED // max(1, values[0].size))
    return all(bool((values[z : z + step] == value).all()) for z in range(0, len(values), step))
