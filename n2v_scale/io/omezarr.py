"""OME-Zarr 0.1 to 0.5, and plain zarr arrays, as volumes.

Metadata is read leniently: what is odd but harmless is warned of, what would give wrong voxels is
an error. Formats: https://ngff.openmicroscopy.org
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import zarr

from n2v_scale.errors import InputError
from n2v_scale.io.arrays import open_zarr_array
from n2v_scale.io.axes import (
    check_names,
    default_names,
    known,
    normal_name,
    normal_unit,
    spatial,
)
from n2v_scale.io.hierarchy import Found, dataset_paths, find_image
from n2v_scale.io.messages import odd
from n2v_scale.io.stored import digest
from n2v_scale.io.stores import Location, locate
from n2v_scale.io.transforms import scale_and_translation, usable
from n2v_scale.io.volume import Axis, Level, Volume, native_name

_VERSIONS = ("0.1", "0.2", "0.3", "0.4", "0.5")


def zarr_volume(
    address: str, *, axes: str | None = None, level: str | int | None = None, series: int | None
) -> Volume:
    """The zarr image at ``address`` (normalised), with all its channels and time points."""
    found = find_image(locate(address), series)
    if not found.metadata:
        return _plain(found.location, axes, level)
    return _multiscale(found, axes, level)


def _plain(location: Location, axes: str | None, level: str | int | None) -> Volume:
    if level not in (None, 0, "", "0", location.path):
        raise InputError(f"{location} is one array without levels, and level {level!r} was asked")
    array = open_zarr_array(location)
    names = check_names(tuple(axes or _dimension_names(array)), array.ndim, str(location))
    made = tuple(Axis(name) for name in names)
    own = Level(location.path, tuple(array.shape), (1.0,) * array.ndim)
    return _volume(location, array, made, f"zarr v{array.metadata.zarr_format}", (own,))


def _multiscale(found: Found, axes: str | None, level: str | int | None) -> Volume:
    where, entry = str(found.location), _entry(found)
    dataset = _choose(found, level)
    array = _open_dataset(found, dataset)
    names, units = _axes(entry, axes, array.ndim, where)
    levels = _levels(found, entry, dataset, array)
    chosen = next(item for item in levels if item.path == _path(found, dataset))
    made = tuple(
        Axis(name, unit, scale, translation)
        for name, unit, scale, translation in zip(
            names, units, chosen.scale, chosen.translation, strict=True
        )
    )
    omero = found.metadata.get("omero")
    return _volume(
        Location(found.location.root, chosen.path),
        array,
        made,
        _format(found, entry),
        levels,
        name=str(entry.get("name") or ""),
        omero=omero if isinstance(omero, dict) else None,
        multiscale_transforms=usable(entry.get("coordinateTransformations"), array.ndim, where),
    )


def _volume(
    location: Location,
    array: zarr.Array[Any],
    axes: tuple[Axis, ...],
    form: str,
    levels: tuple[Level, ...],
    **more: Any,
) -> Volume:
    names = [axis.name for axis in axes]
    extent = dict(zip(names, array.shape, strict=True))
    return Volume(
        address=location.root,
        kind="zarr",
        array_path=location.path,
        axes=axes,
        stored_shape=tuple(array.shape),
        dtype=native_name(array.dtype),
        timepoints=tuple(range(extent.get("t", 1))),
        channels=tuple(range(extent.get("c", 1))),
        chunk=spatial(array.chunks, names),
        chunk_images=prod(n for n, name in zip(array.chunks, names, strict=True) if name in "tc"),
        shard=spatial(array.shards, names) if array.shards else None,
        codec=_codec(array),
        format=form,
        levels=levels,
        digest=digest("zarr", location.root, location.path),
        **more,
    )


def _entry(found: Found) -> dict[str, Any]:
    """The first multiscale."""
    multiscales = found.metadata["multiscales"]
    if not isinstance(multiscales, list) or not isinstance(multiscales[0], dict):
        raise InputError(f"{found.location}: multiscales is no list of objects: repair the file")
    if not dataset_paths(found.metadata):
        raise InputError(f"{found.location}: the multiscales entry names no dataset")
    if len(multiscales) > 1:
        odd(f"{found.location} has {len(multiscales)} multiscales: the first one is taken")
    return dict(multiscales[0])


def _choose(found: Found, level: str | int | None) -> str:
    """The dataset that ``level`` means: a name, or a position from 0, the finest.

    A string of digits that is no name is a position, unless the names are numbers themselves.
    """
    paths = dataset_paths(found.metadata)
    if level is None:
        return found.dataset if found.dataset is not None else paths[0]
    if found.dataset is not None:
        raise InputError(
            f"the address leads to level '{found.dataset}' already: leave out level={level!r}, or "
            f"give {found.location}"
        )
    if isinstance(level, str) and level in paths:
        return level
    numbered = all(path.isdecimal() for path in paths)
    by_position = isinstance(level, int) or (level.isdecimal() and not numbered)
    if by_position and 0 <= int(level) < len(paths):
        return paths[int(level)]
    names = ", ".join(f"{i}: '{path}'" for i, path in enumerate(paths))
    raise InputError(f"{found.location} has no level {level!r}; its levels are {names}")


def _path(found: Found, dataset: str) -> str:
    return "/".join(part for part in (found.location.path, dataset) if part)


def _open_dataset(found: Found, dataset: str) -> zarr.Array[Any]:
    try:
        return open_zarr_array(Location(found.location.root, _path(found, dataset)))
    except InputError as exc:
        raise InputError(
            f"{found.location} names dataset '{dataset}', which cannot be opened: {exc}"
        ) from exc


def _axes(
    entry: dict[str, Any], override: str | None, ndim: int, where: str
) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Names and units of the stored axes."""
    declared = entry.get("axes")
    raw = declared if isinstance(declared, list) else []
    if declared is not None and not raw and override is None:
        odd(f"{where}: axes is no list: {ndim} dimensions are taken as {default_names(ndim)}")
    found = [_name_of(item) for item in raw]
    if override is not None:
        names = check_names(tuple(override), ndim, where)
    elif not raw:
        names = default_names(ndim)
    else:
        names = check_names(_fit(found, ndim, where), ndim, where)
    units = {_name_of(item): item.get("unit") for item in raw if isinstance(item, dict)}
    return names, tuple(_unit(units.get(name), name, where) for name in names)


def _name_of(item: object) -> str:
    """An axis in 0.3 is a name; from 0.4 on it is an object, whose type may help."""
    if not isinstance(item, dict):
        return normal_name(item)
    name, kind = normal_name(item.get("name")), normal_name(item.get("type"))
    return kind if len(name) > 1 and kind in ("t", "c") else name


def _fit(names: list[str], ndim: int, where: str) -> tuple[str, ...]:
    if len(names) == ndim or not known(names):
        return tuple(names)
    fitted = tuple(names[-ndim:]) if ndim < len(names) else default_names(ndim)
    odd(
        f"{where}: the metadata names {len(names)} axes ({', '.join(names)}) and the array has "
        f"{ndim} dimensions: {', '.join(fitted)} is assumed (override it with axes=...)"
    )
    return fitted


def _unit(raw: object, name: str, where: str) -> str | None:
    unit, understood = normal_unit(raw, name)
    if not understood:
        odd(f"{where}: {raw!r} is no unit that OME-Zarr knows for axis {name}: it is dropped")
    return unit


def _levels(
    found: Found, entry: dict[str, Any], chosen: str, array: zarr.Array[Any]
) -> tuple[Level, ...]:
    """All levels that can be opened and have the chosen array's dimensions."""
    levels: list[Level] = []
    for item in entry["datasets"]:
        path = item.get("path") if isinstance(item, dict) else None
        if not isinstance(path, str):
            continue
        shape = tuple(array.shape)
        if (path := path.strip("/")) != chosen:
            try:
                shape = tuple(_open_dataset(found, path).shape)
            except InputError as exc:
                odd(f"{exc}; the level is left out")
                continue
        if len(shape) != array.ndim:
            odd(
                f"{found.location}: level '{path}' is left out: its shape {shape} has other "
                f"dimensions than level '{chosen}', {array.shape}"
            )
            continue
        levels.append(_level(found, item, path, shape, levels))
    return tuple(levels)


def _level(
    found: Found, item: dict[str, Any], path: str, shape: tuple[int, ...], finer: Sequence[Level]
) -> Level:
    where = f"{found.location}, level '{path}'"
    raw = item.get("coordinateTransformations")
    scale, translation = scale_and_translation(raw, len(shape), where)
    first = finer[0] if finer else None
    if scale is None:  # before 0.4 the shapes alone tell
        ratios = zip(first.shape, shape, first.scale, strict=True) if first else ()
        scale = tuple(max(1, round(a / b)) * s for a, b, s in ratios) or (1.0,) * len(shape)
    if first and any(a > b for a, b in zip(shape, first.shape, strict=True)):
        odd(f"{where} is larger than the first level, which should be the finest")
    return Level(_path(found, path), shape, scale, translation)


def _format(found: Found, entry: dict[str, Any]) -> str:
    version = found.metadata.get("version") or entry.get("version")
    if version is not None and str(version) not in _VERSIONS:
        odd(f"{found.location} is OME-Zarr {version}; {_VERSIONS[0]} to {_VERSIONS[-1]} are known")
    return f"OME-Zarr {version}" if version else "OME-Zarr"


def _dimension_names(array: zarr.Array[Any]) -> tuple[str, ...]:
    """The names that the array itself gives (v3, or as xarray writes them), or else the usual."""
    own = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    names = tuple(normal_name(name) for name in own) if isinstance(own, list | tuple) else ()
    usable_names = known(names) and len(names) == array.ndim
    return names if usable_names else default_names(array.ndim)


def _codec(array: zarr.Array[Any]) -> str:
    codecs = [_codec_name(codec) for codec in (*array.filters, *array.compressors)]
    return "+".join(codecs) or "none"


def _codec_name(codec: Any) -> str:
    if hasattr(codec, "to_dict"):
        found = codec.to_dict()
        name, settings = str(found["name"]), found.get("configuration") or {}
    else:
        settings = codec.get_config()
        name = str(settings["id"])
    return f"{name}-{settings['cname']}" if "cname" in settings else name
