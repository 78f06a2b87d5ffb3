"""Where the image is in a zarr hierarchy: groups, series, plates, and paths into them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import zarr

from n2v_scale.errors import InputError
from n2v_scale.io.arrays import open_zarr, open_zarr_array, quiet
from n2v_scale.io.messages import odd
from n2v_scale.io.stores import Location, read_document

_SHOWN = 8
"""How many names an error lists."""


@dataclass(frozen=True)
class Found:
    """An image: the group that describes it, or an array that nothing describes."""

    location: Location
    """The group, or the array itself where no group describes it."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The group's OME-Zarr attributes (what stands under ``ome`` in 0.5); empty for an array."""
    dataset: str | None = None
    """The dataset, relative to the group, that the address itself leads to."""


def find_image(location: Location, series: int | None) -> Found:
    """The image at ``location``, which may be an image, a series of images, or an array in one.

    Raises
    ------
    InputError
        When there is no image or when there are several to choose from; it lists them.
    """
    node = open_zarr(location)
    if isinstance(node, zarr.Array):
        _refuse_series(location, series)
        return _parent_of(location) or Found(location)
    metadata = ome_attributes(node)
    if "bioformats2raw.layout" in metadata and not metadata.get("multiscales"):
        return _pick_series(location, node, series or 0)
    _refuse_series(location, series)
    if metadata.get("multiscales"):
        return Found(location, metadata)
    return _only_array(location, node, metadata)


def ome_attributes(group: zarr.Group) -> dict[str, Any]:
    """The OME-Zarr attributes: at the top up to 0.4, under ``ome`` from 0.5 on."""
    attributes = dict(group.attrs)
    inner = attributes.get("ome")
    return dict(inner) if isinstance(inner, dict) else attributes


def dataset_paths(metadata: dict[str, Any]) -> list[str]:
    """Paths of the datasets of the first multiscale; those that are none are left out."""
    multiscales = metadata.get("multiscales")
    entry = multiscales[0] if isinstance(multiscales, list) and multiscales else None
    datasets = entry.get("datasets") if isinstance(entry, dict) else None
    paths = [d.get("path") for d in datasets or [] if isinstance(d, dict)]
    return [path.strip("/") for path in paths if isinstance(path, str)]


def _parent_of(location: Location) -> Found | None:
    """The group above that names the array at ``location`` as one of its datasets."""
    parts = location.path.split("/") if location.path else []
    for n in range(len(parts) - 1, -1, -1):
        above = Location(location.root, "/".join(parts[:n]))
        if not any(read_document(above, name) for name in ("zarr.json", ".zgroup")):
            continue
        group = open_zarr(above)
        dataset = "/".join(parts[n:])
        if isinstance(group, zarr.Group) and dataset in dataset_paths(ome_attributes(group)):
            return Found(above, ome_attributes(group), dataset)
    return None


def _pick_series(location: Location, group: zarr.Group, series: int) -> Found:
    names = _series_names(location, group)
    if not 0 <= series < len(names):
        raise InputError(f"{location} has no series {series}; {_listed('its series are', names)}")
    return find_image(_below(location, names[series]), None)


def _series_names(location: Location, group: zarr.Group) -> list[str]:
    """The series in order: as ``OME`` lists them, or else the groups that are numbers."""
    try:
        ome = open_zarr(_below(location, "OME"))
    except InputError:
        listed = None
    else:
        listed = ome_attributes(ome).get("series") if isinstance(ome, zarr.Group) else None
    if isinstance(listed, list) and listed:
        return [str(name).strip("/") for name in listed]
    groups = [name for name, is_array in _children(group).items() if not is_array]
    return sorted((name for name in groups if name.isdecimal()), key=int)


def _only_array(location: Location, group: zarr.Group, metadata: dict[str, Any]) -> Found:
    """The one array in a group that describes no image."""
    if "plate" in metadata or "well" in metadata:
        what = "plate" if "plate" in metadata else "well"
        raise InputError(
            f"{location} is a {what} with many images: give the path of one, "
            f"such as {location}/{'A/1/0' if what == 'plate' else '0'}"
        )
    children = _children(group)
    arrays = [name for name, is_array in children.items() if is_array]
    if len(arrays) == 1:
        odd(f"{location} describes no image: its one array '{arrays[0]}' is opened as it is")
        below = _below(location, arrays[0])
        open_zarr_array(below)
        return Found(below)
    state = "an empty list of" if "multiscales" in metadata else "no"
    holds = _listed("it holds", list(children)) if children else "it holds nothing"
    raise InputError(
        f"{location} is a zarr group with {state} multiscales, and {holds}: "
        "give the path of an OME-Zarr image or of one array"
    )


def _children(group: zarr.Group) -> dict[str, bool]:
    """Names directly below ``group``, and whether each is an array."""
    with quiet():
        try:
            return {name: isinstance(node, zarr.Array) for name, node in sorted(group.members())}
        except Exception:  # a broken neighbour, or a store that cannot list
            return {}


def _refuse_series(location: Location, series: int | None) -> None:
    if series:
        raise InputError(f"{location} has no series {series}: it is a single image (series 0)")


def _below(location: Location, name: str) -> Location:
    return Location(location.root, f"{location.path}/{name}" if location.path else name)


def _listed(lead: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{lead} {', '.join(repr(name) for name in names[:_SHOWN])}{more}"
