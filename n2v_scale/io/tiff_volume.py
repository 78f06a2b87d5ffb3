"""TIFF files and folders of TIFF planes as volumes: what their axes and sizes are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from n2v_scale.errors import InputError
from n2v_scale.io.arrays import opened_array
from n2v_scale.io.axes import REMEDY, check_names, normal_unit, spatial
from n2v_scale.io.messages import odd
from n2v_scale.io.planes import check_names as check_plane_names
from n2v_scale.io.planes import plane_files
from n2v_scale.io.stored import digest
from n2v_scale.io.tiff import compression_name, open_tiff, pick_series
from n2v_scale.io.volume import Axis, Level, Volume, native_name

_LETTERS = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x"}

_OME_KEYS = {"z": "PhysicalSizeZ", "y": "PhysicalSizeY", "x": "PhysicalSizeX", "t": "TimeIncrement"}


@dataclass(frozen=True)
class _Page:
    """What the volume needs to know of the pages of a series."""

    format: str
    codec: str
    page: tuple[int, int]
    sizes: dict[str, tuple[float, object]]


def tiff_volume(path: str, *, axes: str | None = None, series: int | None = None) -> Volume:
    """One series of a TIFF file, with all its channels and time points."""
    with open_tiff(path) as tif:
        chosen = pick_series(tif, series or 0, path)
        names = tuple(axes) if axes else _names(chosen.axes, chosen.shape, path)
        page = _describe(tif, chosen, series or 0)
    return _volume("tiff", path, str(series) if series else "", names, page)


def planes_volume(folder: str, *, axes: str | None = None) -> Volume:
    """A folder of TIFF planes, which lie along z (or along the first of ``axes``)."""
    files = plane_files(folder)
    check_plane_names(files)
    with open_tiff(files[0]) as tif:
        first = pick_series(tif, 0, files[0])
        names = tuple(axes or ("zyxc" if first.axes == "YXS" else "zyx"))
        page = _describe(tif, first, 0)
    return _volume("planes", folder, "", names, page)


def _volume(kind: str, address: str, path: str, names: tuple[str, ...], page: _Page) -> Volume:
    checksum = digest(kind, address, path)
    array = opened_array(kind, address, path, checksum)
    check_names(names, len(array.shape), address)
    made = tuple(_axis(name, page.sizes, address) for name in names)
    extent = dict(zip(names, array.shape, strict=True))
    paged = {"y": page.page[0], "x": page.page[1]}
    return Volume(
        address=address,
        kind=kind,
        array_path=path,
        axes=made,
        stored_shape=tuple(array.shape),
        dtype=native_name(array.dtype),
        timepoints=tuple(range(extent.get("t", 1))),
        channels=tuple(range(extent.get("c", 1))),
        chunk=spatial([paged.get(name, 1) for name in names], names),
        shard=None,
        codec=page.codec,
        format=f"folder of {page.format} planes" if kind == "planes" else page.format,
        name=Path(address).stem,
        levels=(Level(path, tuple(array.shape), tuple(axis.scale for axis in made)),),
        digest=checksum,
    )


def _names(letters: str, shape: tuple[int, ...], path: str) -> tuple[str, ...]:
    """What the letters of tifffile mean: colour samples (S) are channels, one unnamed axis is z."""
    mapping = dict(_LETTERS)
    if "C" not in letters:
        mapping["S"] = "c"
    unnamed = [letter for letter in letters if letter not in mapping]
    if len(unnamed) == 1 and unnamed[0] in "QI" and "Z" not in letters:
        mapping[unnamed[0]] = "z"
    elif unnamed:
        raise InputError(
            f"{path} has axes {letters} {shape}, and what {', '.join(unnamed)} is cannot be told: "
            f"{REMEDY}"
        )
    return tuple(mapping[letter] for letter in letters)


def _axis(name: str, sizes: dict[str, tuple[float, object]], where: str) -> Axis:
    scale, raw = sizes.get(name, (1.0, None))
    unit, understood = normal_unit(raw, name)
    if not understood:
        odd(f"{where}: {raw!r} is no unit that OME-Zarr knows for axis {name}: it is dropped")
    if not (np.isfinite(scale) and scale > 0):
        odd(f"{where}: a voxel size of {scale} along {name} makes no sense: 1 is assumed")
        scale = 1.0
    return Axis(name, unit, scale)


def _describe(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, index: int) -> _Page:
    keyframe = series.keyframe
    form = "OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF"
    xml = tif.ome_metadata
    sizes = _ome_sizes(xml, index) if xml else _tag_sizes(tif, keyframe)
    return _Page(form, compression_name(series), (keyframe.imagelength, keyframe.imagewidth), sizes)


def _ome_sizes(xml: str, index: int) -> dict[str, tuple[float, object]]:
    """Sizes and units from OME-XML, whose default units are micrometer and second."""
    try:
        images = tifffile.xml2dict(xml)["OME"]["Image"]
        image = images[index] if isinstance(images, list) else images
        pixels: dict[str, Any] = image["Pixels"]
    except (KeyError, IndexError, TypeError, SyntaxError, ValueError):
        return {}
    return {
        name: (float(pixels[key]), pixels.get(f"{key}Unit", "s" if name == "t" else "um"))
        for name, key in _OME_KEYS.items()
        if isinstance(pixels.get(key), int | float)
    }


def _tag_sizes(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> dict[str, tuple[float, object]]:
    """Sizes from the resolution tags, and ImageJ's ``spacing``, ``unit`` and ``finterval``.

    A resolution in inches is one for printing (72 dpi) and says nothing about voxels.
    """
    notes: dict[str, Any] = dict(tif.imagej_metadata or (tif.shaped_metadata or ({},))[0])
    per_cm = page.tags.valueof("ResolutionUnit") == tifffile.RESUNIT.CENTIMETER
    unit = notes.get("unit")
    sizes: dict[str, tuple[float, object]] = {}
    for name, tag in (("y", "YResolution"), ("x", "XResolution")):
        pixels, per = page.tags.valueof(tag) or (0, 0)
        if not pixels or not per or not (per_cm or "unit" in notes or tif.is_imagej):
            continue
        in_cm = per_cm and unit in (None, "cm")
        sizes[name] = (1e4 * per / pixels, "micrometer") if in_cm else (per / pixels, unit)
    for name, key in (("z", "spacing"), ("t", "finterval")):
        if isinstance(notes.get(key), int | float):
            sizes[name] = abs(float(notes[key])), unit if name == "z" else "s"
    return sizes
