"""The attributes of an OME-Zarr image group, version 0.4 or 0.5, from what an output is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from n2v_scale.errors import OutputError
from n2v_scale.io.axes import AXES, known, normal_unit
from n2v_scale.io.volume import Axis, Level

VERSIONS = ("0.4", "0.5")

_TYPES = {"t": "time", "c": "channel"}


def image_attributes(
    axes: Sequence[Axis],
    levels: Sequence[Level],
    *,
    version: str = "0.5",
    name: str = "",
    omero: Mapping[str, Any] | None = None,
    multiscale_transforms: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The group's attributes, complete: they replace what stands there.

    Parameters
    ----------
    axes
        The output's axes, in the order t, c, z, y, x. Only their names and units are used.
    levels
        The datasets, the finest first, each with its path relative to the group, and its scale and
        translation along ``axes``.
    version
        ``"0.5"`` (zarr v3; everything under ``ome``) or ``"0.4"`` (zarr v2).
    name
        Of the image; left out when empty.
    omero
        Rendering block; what the format does not allow is repaired or left out.
    multiscale_transforms
        Transformations along ``axes`` that apply after those of every level.

    Raises
    ------
    OutputError
        When the axes or levels cannot stand in an OME-Zarr.
    """
    _check(axes, levels, version)
    entry: dict[str, Any] = {"name": name} if name else {}
    if version == "0.4":
        entry["version"] = version
    entry["axes"] = [_axis(axis) for axis in axes]
    entry["datasets"] = [_dataset(level) for level in levels]
    if multiscale_transforms:
        entry["coordinateTransformations"] = _scale_first(multiscale_transforms, len(axes))
    content: dict[str, Any] = {"multiscales": [entry]}
    rendering = _omero(omero) if omero else None
    if rendering:
        content["omero"] = rendering | ({"version": version} if version == "0.4" else {})
    return content if version == "0.4" else {"ome": {"version": version, **content}}


def selected_omero(
    omero: Mapping[str, Any] | None, channels: Sequence[int]
) -> dict[str, Any] | None:
    """A source's rendering block for the selected stored ``channels`` only.

    None where it describes fewer channels than that.
    """
    listed = (omero or {}).get("channels")
    if not isinstance(listed, list) or max(channels) >= len(listed):
        return None
    return {**(omero or {}), "channels": [listed[channel] for channel in channels]}


def _check(axes: Sequence[Axis], levels: Sequence[Level], version: str) -> None:
    names = [axis.name for axis in axes]
    if version not in VERSIONS:
        raise OutputError(f"OME-Zarr {version} cannot be written: choose {' or '.join(VERSIONS)}")
    if not known(names) or sorted(names, key=AXES.index) != names:
        raise OutputError(f"axes {names} cannot stand in an OME-Zarr: t, c, z, y, x is the order")
    for level in levels:
        if {len(names), len(level.translation or names)} != {len(level.scale)}:
            raise OutputError(f"level '{level.path}': one scale and translation per axis {names}")
    if not levels:
        raise OutputError("an OME-Zarr image needs at least one level")


def _axis(axis: Axis) -> dict[str, str]:
    described = {"name": axis.name, "type": _TYPES.get(axis.name, "space")}
    unit, _ = normal_unit(axis.unit, axis.name)
    return described | ({"unit": unit} if unit else {})


def _dataset(level: Level) -> dict[str, Any]:
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(level.scale)}]
    if any(level.translation):
        transforms.append({"type": "translation", "translation": list(level.translation)})
    return {"path": level.path, "coordinateTransformations": transforms}


def _scale_first(transforms: Sequence[Mapping[str, Any]], ndim: int) -> list[dict[str, Any]]:
    """As the format wants it: one scale, then at most one translation."""
    scale, shift = [1.0] * ndim, [0.0] * ndim
    for transform in transforms:
        factors = transform.get("scale", [1.0] * ndim)
        offsets = transform.get("translation", [0.0] * ndim)
        if not len(factors) == len(offsets) == ndim:
            raise OutputError(f"multiscale transformation {dict(transform)} needs {ndim} numbers")
        scale = [a * b for a, b in zip(scale, factors, strict=True)]
        shift = [a * b + c for a, b, c in zip(shift, factors, offsets, strict=True)]
    result: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    return [*result, {"type": "translation", "translation": shift}] if any(shift) else result


def _omero(omero: Mapping[str, Any]) -> dict[str, Any] | None:
    """``omero`` as the format allows it, or None when a channel lacks its window."""
    channels = omero.get("channels")
    if not isinstance(channels, list) or not all(_has_window(channel) for channel in channels):
        return None
    kept = {key: value for key, value in omero.items() if key != "version"}
    return kept | {"channels": [{**channel, "color": _color(channel)} for channel in channels]}


def _has_window(channel: object) -> bool:
    window = channel.get("window") if isinstance(channel, Mapping) else None
    return isinstance(window, Mapping) and all(
        isinstance(window.get(key), int | float) for key in ("min", "max", "start", "end")
    )


def _color(channel: Mapping[str, Any]) -> str:
    color = str(channel.get("color", "")).lstrip("#")
    return color if re.fullmatch("[0-9A-Fa-f]{6}", color) else "FFFFFF"
