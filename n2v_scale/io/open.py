"""``open_volume``: any address that can be read, as a :class:`Volume`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from n2v_scale.errors import InputError
from n2v_scale.io.axes import check_names
from n2v_scale.io.omezarr import zarr_volume
from n2v_scale.io.planes import tiff_files
from n2v_scale.io.stores import (
    METADATA_NAMES,
    StorageOptions,
    is_node,
    is_url,
    locate,
    normalise,
    options_for,
    remember,
)
from n2v_scale.io.tiff import is_tiff
from n2v_scale.io.tiff_volume import planes_volume, tiff_volume
from n2v_scale.io.transforms import scale_and_translation
from n2v_scale.io.volume import Axis, Volume, check_dtype

MODEL_CARD = "model.json"
"""What a model folder has: it stands here where the two were swapped."""


def open_volume(
    address: str | os.PathLike[str],
    *,
    axes: str | None = None,
    level: str | int | None = None,
    channels: Sequence[int] | None = None,
    timepoints: Sequence[int] | slice | None = None,
    series: int | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    any_dtype: bool = False,
    storage_options: StorageOptions | Mapping[str, Any] | None = None,
) -> Volume:
    """The image at ``address``; nothing of it is read but its metadata.

    Parameters
    ----------
    address
        Path or URL of an OME-Zarr (0.1 to 0.5), of a zarr array, or of a group or array inside
        one, zipped or not; path of a TIFF file or of a folder of TIFF planes.
    axes
        The stored axes in stored order, such as ``"tczyx"``; overrides what the metadata says.
        Where neither says, 2 dimensions are yx, 3 are zyx, 4 are czyx and 5 are tczyx.
    level
        Name or position of the resolution. Default: the first, which is the finest.
    channels, timepoints
        Stored indices to select, in that order. Default: all.
    series
        Which image of a file or store with several. Default: the first.
    voxel_size
        Scale along (z, y, x) to use instead of the stored one; micrometers where no unit is known.
    any_dtype
        Also accept voxel types that can be looked at but not denoised.
    storage_options
        What the store behind a URL needs to know, as fsspec names it: ``key``, ``secret``,
        ``endpoint_url``, ``anon``, ... The volume takes them along to every process that reads it;
        they are never shown. Default: what was remembered for the address, or else what the
        store's own package finds in the environment.

    Returns
    -------
    Volume
        It holds no open file and can be pickled.

    Raises
    ------
    InputError
        When there is no image, when it cannot be understood, or when there is no such level,
        channel, time point or series; the message lists what exists.
    ConfigError
        When a storage option is no option.

    Warns
    -----
    InputWarning
        When the metadata is odd and something had to be assumed.
    """
    where = normalise(address)
    remember(where, StorageOptions.of(storage_options))
    if axes is not None:
        axes = axes.lower()
        check_names(tuple(axes), len(axes), f"axes={axes!r}")
    try:
        volume = _open(where, axes, level, series)
    except OSError as exc:
        raise InputError(f"{where} cannot be read: {exc}") from exc
    if not any_dtype:
        check_dtype(volume)
    volume = replace(
        volume,
        channels=_select("channel", channels, volume.channels, volume),
        timepoints=_select("time point", timepoints, volume.timepoints, volume),
        storage=options_for(volume.address),
    )
    return volume if voxel_size is None else with_voxel_size(volume, voxel_size)


def with_voxel_size(volume: Volume, voxel_size: tuple[float, float, float]) -> Volume:
    """``volume`` with another scale along (z, y, x); its first voxel keeps its place in voxels.

    The multiscale's own transformations are folded into the axes.
    """
    if len(voxel_size) != 3 or not all(0 < float(size) < float("inf") for size in voxel_size):
        raise InputError(f"a voxel size is three lengths above 0 along z, y, x, not {voxel_size}")
    ndim = len(volume.axes)
    outer, shift = scale_and_translation(list(volume.multiscale_transforms), ndim, volume.location)
    wanted = dict(zip("zyx", map(float, voxel_size), strict=True))
    axes = []
    for axis, factor, offset in zip(volume.axes, outer or (1.0,) * ndim, shift, strict=True):
        scale, origin = axis.scale * factor, axis.translation * factor + offset
        new = wanted.get(axis.name, scale)
        unit = axis.unit or ("micrometer" if axis.name in wanted else None)
        axes.append(Axis(axis.name, unit, new, origin * new / scale))
    return replace(volume, axes=tuple(axes), multiscale_transforms=())


def _open(where: str, axes: str | None, level: str | int | None, series: int | None) -> Volume:
    path = Path(where)
    if is_url(where) or _leads_into_zarr(path):
        return zarr_volume(where, axes=axes, level=level, series=series)
    if not path.exists():
        raise InputError(f"{where} does not exist")
    folder = path.is_dir()
    if folder and not tiff_files(path):
        raise InputError(_no_image(path))
    if level not in (None, 0, "0"):
        raise InputError(f"{where} has one level, 0, and level {level!r} was asked for")
    if folder:
        if series:
            raise InputError(f"{where} is a folder of planes and has no series {series}")
        return planes_volume(where, axes=axes)
    if is_tiff(path):
        return tiff_volume(where, axes=axes, series=series)
    raise InputError(_no_image(path))


def _leads_into_zarr(path: Path) -> bool:
    """Whether ``path`` is a zarr node, or lies below one or in a zip file."""
    if path.is_file():
        return is_zipfile(path)
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if archive is not None:
        return is_zipfile(archive)
    if is_node(path):
        return True
    above = locate(str(path)).path != ""
    return above and not (path.is_dir() and tiff_files(path))


def _no_image(path: Path) -> str:
    if path.is_file():
        if path.name in (*METADATA_NAMES, ".zattrs"):
            return f"{path} is metadata of a zarr: give the folder {path.parent}"
        return f"{path} is neither a zarr nor a TIFF file: convert it to OME-Zarr or TIFF"
    if not any(path.iterdir()):
        return f"{path} is an empty folder"
    if (path / MODEL_CARD).is_file():
        return f"{path} is a model: the volume comes first, then the model"
    return (
        f"{path} is neither a zarr (it holds none of {', '.join(METADATA_NAMES)}) "
        "nor a folder of TIFF planes"
    )


def _select(
    what: str, wanted: Sequence[int] | slice | None, stored: tuple[int, ...], volume: Volume
) -> tuple[int, ...]:
    """``wanted`` out of ``stored``, as a tuple of stored indices."""
    if wanted is None:
        return stored
    chosen: Any = stored[wanted] if isinstance(wanted, slice) else tuple(wanted)
    held = f"it has {len(stored)}: 0 to {len(stored) - 1}" if len(stored) > 1 else "it has only 0"
    if not chosen:
        raise InputError(f"{volume.location}: no {what} is selected; {held}")
    unknown = [index for index in chosen if index not in stored]
    if unknown:
        raise InputError(f"{volume.location} has no {what} {unknown[0]}; {held}")
    if len(set(chosen)) < len(chosen):
        raise InputError(f"{volume.location}: a {what} is selected twice in {list(chosen)}")
    return tuple(int(index) for index in chosen)
