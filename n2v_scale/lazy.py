"""Denoising as a step of somebody else's Dask pipeline: a lazy array in, a lazy array out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import delayed

from n2v_scale.blocks import as_dtype, opened, parts_of
from n2v_scale.config import Write
from n2v_scale.denoiser import Normalisation, OpenOptions, Region, TileBoxes, tile_boxes
from n2v_scale.errors import ConfigError, InputError
from n2v_scale.geometry import Box, Shape, as_shape, cells_touching, round_up
from n2v_scale.io.volume import DTYPES
from n2v_scale.model import Model
from n2v_scale.noise import NoiseModel
from n2v_scale.statistics import ChannelStatistics

SAMPLED_CHUNKS = 64
MOST_TILE = 128


def denoise(
    array: da.Array,
    model: str | PathLike[str] | Model,
    *,
    axes: str | None = None,
    normalisation: Normalisation | None = None,
    noise: Sequence[NoiseModel] | None = None,
    tile: Sequence[int] | None = None,
    write: Write = "mean",
    device: str = "cpu",
    threads: int | None = None,
) -> da.Array:
    """A lazy denoised array with the chunks and the dtype of ``array``.

    The result equals one forward pass over the whole array. Each output chunk is a few tasks, with
    the chunks within the model's reach as their inputs.

    Parameters
    ----------
    array
        Two to five dimensions; uint8, uint16, int16 or float32.
    model
        A folder that :func:`n2v_scale.train` wrote, or the model opened from it.
    axes
        The array's axes, a subset of ``tczyx`` in this order; by default its last ones are z, y
        and x, (y, x) in two dimensions.
    normalisation
        One offset and scale a channel. By default sampled, lazily, from the finite voxels of at
        most 64 chunks a channel: then the first result waits for those.
    noise
        By channel, in the array's units: puts each voxel's own value back, where the model predicts
        it without having seen it. By default the prediction stays as it is.
    tile
        Voxels (z, y, x) that one forward pass keeps.
    write
        ``mean,std`` gives a float32 array with one more axis in front: the mean and the standard
        deviation, for models that know it.
    device, threads
        Where and with how many torch threads a forward pass runs.

    Raises
    ------
    InputError
        When the axes do not fit the array, or its dtype is not taken.
    ConfigError
        When noise, or standard deviations, are asked of a model that cannot use or give them.
    """
    names = _axes(array, axes)
    if array.dtype.name not in DTYPES:
        raise InputError(
            f"the array holds {array.dtype}, and only {', '.join(DTYPES)} are taken: "
            'convert it, with .astype("float32") for example'
        )
    parts = len(write.split(","))
    opened_model = _model(model, None if noise is None else tuple(noise), std=parts > 1)
    _check_std(opened_model, write)
    source = _canonical(array, names)  # (t, c, z, y, x)
    if noise is not None and len(noise) != source.shape[1]:
        raise ConfigError(f"noise is given for {len(noise)} of {source.shape[1]} channels")
    cut = _tile(source, opened_model, tile)
    constants: Any = normalisation or _sampled_normalisation(source)
    chunks = source.to_delayed()
    task = delayed(_denoise_chunk, pure=True)
    bounds = [np.cumsum([0, *sizes]).tolist() for sizes in source.chunks]
    dtype = array.dtype if parts == 1 else np.dtype("float32")
    out = np.empty((1, *chunks.shape), dtype=object)
    for index in np.ndindex(*chunks.shape):
        place = _Place(index, bounds, cut, opened_model)
        needed = place.neighbours()
        out[(0, *index)] = da.from_delayed(
            task(
                [chunks[i] for i in needed],
                [place.box(i) for i in needed],
                place.job(device, threads, parts),
                constants,
                dtype.name,
            ),
            shape=(parts, *place.shape),
            dtype=dtype,
        )
    joined = da.block(out.tolist())  # (part, t, c, z, y, x)
    if parts == 1:
        return _original(joined[0], names)
    both: da.Array = da.stack([_original(part, names) for part in joined])
    return both


class _Place:
    """One chunk of the array: what it needs and what it gives."""

    def __init__(
        self, index: tuple[int, ...], bounds: list[list[int]], tile: Shape, model: Model
    ) -> None:
        self.index, self.bounds, self.tile, self.model = index, bounds, tile, model
        self.volume = as_shape([b[-1] for b in bounds[2:]])
        self.write = self.box(index)

    def box(self, index: tuple[int, ...]) -> Box:
        """The spatial box of a chunk."""
        pairs = list(zip(self.bounds[2:], index[2:], strict=True))
        return Box(as_shape([b[i] for b, i in pairs]), as_shape([b[i + 1] for b, i in pairs]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the chunk, five-dimensional."""
        return tuple(b[i + 1] - b[i] for b, i in zip(self.bounds, self.index, strict=True))

    def tiles(self) -> list[TileBoxes]:
        """The tiles that touch the chunk, whole."""
        model = self.model
        return [
            tile_boxes(core, model.halo, model.stride, self.volume)
            for core in cells_touching(self.write, self.tile, self.volume)
        ]

    def neighbours(self) -> list[tuple[int, ...]]:
        """The chunks, of the same times and channels, that these tiles read."""
        read = self.read_box()
        ranges = [
            [i for i in range(len(b) - 1) if b[i] < stop and b[i + 1] > start]
            for b, start, stop in zip(self.bounds[2:], read.start, read.stop, strict=True)
        ]
        return [(*self.index[:2], *i) for i in product(*ranges)]

    def read_box(self) -> Box:
        """What all tiles need."""
        first, *rest = (tile.data for tile in self.tiles())
        for box in rest:
            first = first.union(box)
        return first

    def job(self, device: str, threads: int | None, parts: int) -> partial[npt.NDArray[Any]]:
        """The work, without its data."""
        return partial(
            _denoise_box,
            str(self.model.folder),
            replace(self.model.options, normalisation=None, device=device, threads=threads),
            self.tiles(),
            self.read_box(),
            self.write,
            self.volume,
            self.bounds[1][self.index[1]],
            parts,
        )


def _denoise_chunk(
    chunks: list[npt.NDArray[Any]],
    boxes: list[Box],
    job: partial[npt.NDArray[Any]],
    normalisation: Normalisation,
    dtype: str,
) -> npt.NDArray[Any]:
    """The task: join the neighbours (t, c, z, y, x), denoise each time and channel.

    (part, t, c, z, y, x): the mean, and the standard deviation if there are two parts.
    """
    read: Box = job.args[3]
    t, c = chunks[0].shape[:2]
    joined = np.empty((t, c, *read.shape), np.float32)
    for chunk, box in zip(chunks, boxes, strict=True):
        common = box.intersect(read)
        joined[(..., *common.slices_in(read))] = chunk[(..., *common.slices_in(box))]
    denoised = [[job(joined[i, k], k, normalisation) for k in range(c)] for i in range(t)]
    return as_dtype(np.moveaxis(np.asarray(denoised), 2, 0), dtype)


def _denoise_box(
    folder: str,
    options: OpenOptions,
    tiles: list[TileBoxes],
    read: Box,
    write: Box,
    volume: Shape,
    first_channel: int,
    parts: int,
    values: npt.NDArray[np.float32],
    channel: int,
    normalisation: Normalisation,
) -> npt.NDArray[Any]:
    denoiser = opened(folder, replace(options, normalisation=normalisation))
    out = np.empty((parts, *write.shape), np.float32)
    for tile in tiles:
        region = Region(0, first_channel + channel, tile.core, volume)
        estimate = denoiser.denoise(values[tile.data.slices_in(read)], region)
        kept = tile.core.intersect(write)
        for layer, part in zip(out, parts_of(estimate, parts), strict=True):
            layer[kept.slices_in(write)] = part[kept.slices_in(tile.core)]
    return out


def _model(
    model: str | PathLike[str] | Model, noise: tuple[NoiseModel, ...] | None, *, std: bool
) -> Model:
    """The model, opened so that its halo is the one that is needed.

    Raises
    ------
    ConfigError
        When there is noise to use, and the model has seen the voxels it predicts.
    """
    folder = model.folder if isinstance(model, Model) else Path(model)
    options = model.options if isinstance(model, Model) else OpenOptions()
    found = Model(folder, replace(options, noise=noise, std=std))
    if noise is not None and not found.blind:
        raise ConfigError(
            f"{folder} sees the voxels it predicts, so their own values cannot be put back: leave "
            "out noise"
        )
    return found


def _check_std(model: Model, write: Write) -> None:
    """Refuse standard deviations that nobody knows."""
    if write == "mean" or model.knows_std:
        return
    remedy = (
        "pass the noise" if model.blind else "train with linear, n2s or ssdn, and pass the noise"
    )
    raise ConfigError(
        f"{model.folder} gives no standard deviations as it is opened: {remedy}, or leave out write"
    )


def _axes(array: da.Array, axes: str | None) -> str:
    names = axes or {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}.get(array.ndim, "")
    if len(names) != array.ndim or names not in _subsets() or not names.endswith("yx"):
        raise InputError(
            f"axes {names!r} do not fit an array of {array.ndim} dimensions: name one letter each, "
            "in the order tczyx, the last two y and x"
        )
    return names


def _subsets() -> set[str]:
    return {
        "".join(a for a, keep in zip("tczyx", kept, strict=True) if keep)
        for kept in product((False, True), repeat=5)
    }


def _canonical(array: da.Array, names: str) -> da.Array:
    index = tuple(slice(None) if a in names else None for a in "tczyx")
    canonical: da.Array = array[index]
    return canonical


def _original(array: da.Array, names: str) -> da.Array:
    original: da.Array = array[tuple(slice(None) if a in names else 0 for a in "tczyx")]
    return original


def _tile(source: da.Array, model: Model, tile: Sequence[int] | None) -> Shape:
    wish = tile or [min(MOST_TILE, max(sizes)) for sizes in source.chunks[2:]]
    return as_shape([round_up(t, s) for t, s in zip(wish, model.stride, strict=True)])


def _sampled_normalisation(source: da.Array) -> Any:
    """A delayed :class:`Normalisation` from evenly spaced chunks of each channel."""
    chunks = source.to_delayed()
    task, join = delayed(_chunk_statistics), delayed(_join_statistics)
    groups = []
    for k in range(chunks.shape[1]):
        flat = chunks[:, k].ravel()
        count = min(len(flat), SAMPLED_CHUNKS)
        groups.append([task(flat[i * len(flat) // count]) for i in range(count)])
    return join(groups)


def _chunk_statistics(chunk: npt.NDArray[Any]) -> list[ChannelStatistics]:
    return [_of_finite(chunk[:, c].astype(np.float64)) for c in range(chunk.shape[1])]


def _of_finite(values: npt.NDArray[np.float64]) -> ChannelStatistics:
    finite = values[np.isfinite(values)]
    missing = values.size - finite.size
    if not finite.size:
        return ChannelStatistics(0, 0.0, 0.0, np.inf, -np.inf, missing)
    return ChannelStatistics(
        finite.size,
        float(finite.mean()),
        float(finite.std()),
        float(finite.min()),
        float(finite.max()),
        missing,
    )


def _join_statistics(groups: list[list[list[ChannelStatistics]]]) -> Normalisation:
    from n2v_scale.statistics import normalisation_from

    channels = []
    for group in groups:  # one chunk along c holds one or more channels
        for parts in zip(*group, strict=True):
            merged = parts[0]
            for part in parts[1:]:
                merged = merged.merge(part)
            channels.append(merged)
    return normalisation_from(tuple(channels), "the array")
