"""OME-Zarr metadata: every version, and what people make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import zarr

from n2v_scale.errors import InputError
from n2v_scale.io.axes import normal_unit
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import InputWarning


def write(path: Path, attributes: dict[str, Any], *arrays: tuple[str, tuple[int, ...]]) -> Path:
    zarr.create_group(str(path), zarr_format=3 if "ome" in attributes else 2, attributes=attributes)
    for name, shape in arrays:
        zarr.create_array(str(path / name), shape=shape, dtype="u2", chunks=shape,
                          zarr_format=3 if "ome" in attributes else 2)  # fmt: skip
    return path


def entry(axes: object = None, **more: Any) -> dict[str, Any]:
    made = {"datasets": [{"path": "0"}, {"path": "1"}], **more}
    return made if axes is None else {"axes": axes, **made}


def dicts(axes: str, unit: str = "micrometer") -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    return [
        {"name": n, "type": kinds.get(n, "space")} | ({"unit": unit} if n in "zyx" else {})
        for n in axes
    ]


FOUR, HALF = (2, 8, 9, 10), (2, 4, 5, 5)

VERSIONS = [
    ("0.1", {"multiscales": [entry(version="0.1")]}, ("c", "z", "y", "x")),
    ("0.2", {"multiscales": [entry(version="0.2")]}, ("c", "z", "y", "x")),
    ("0.3", {"multiscales": [entry(["t", "z", "y", "x"], version="0.3")]}, ("t", "z", "y", "x")),
    ("0.4", {"multiscales": [entry(dicts("czyx"), version="0.4")]}, ("c", "z", "y", "x")),
    ("0.5", {"ome": {"version": "0.5", "multiscales": [entry(dicts("tzyx"))]}},
     ("t", "z", "y", "x")),
]  # fmt: skip


@pytest.mark.parametrize(("version", "attributes", "axes"), VERSIONS)
def test_versions(tmp_path: Path, version: str, attributes: dict, axes: tuple) -> None:
    volume = open_volume(write(tmp_path / "i.zarr", attributes, ("0", FOUR), ("1", HALF)))
    assert volume.format == f"OME-Zarr {version}"
    assert volume.axis_names == axes
    # without transformations the shapes tell the scale
    assert [level.scale for level in volume.levels] == [(1, 1, 1, 1), (1, 2, 2, 2)]
    assert [level.shape for level in volume.levels] == [FOUR, HALF]


def test_five_dimensions_without_axes_are_tczyx(tmp_path: Path) -> None:
    attributes = {"multiscales": [{"datasets": [{"path": "0"}]}]}
    volume = open_volume(write(tmp_path / "i.zarr", attributes, ("0", (2, 3, 4, 5, 6))))
    assert volume.shape == (2, 3, 4, 5, 6)
    assert volume.format == "OME-Zarr"


def test_scales_and_translations_are_applied_in_order(tmp_path: Path) -> None:
    transforms = [
        {"type": "translation", "translation": [1, 1, 1]},
        {"type": "scale", "scale": [2, 0.5, 0.5]},
        {"type": "translation", "translation": [0.25, 0, 0]},
        {"type": "identity"},
    ]
    outer = [
        {"type": "scale", "scale": [10, 10, 10]},
        {"type": "translation", "translation": [7, 0, 0]},
    ]
    datasets = [{"path": "0", "coordinateTransformations": transforms}]
    made = {"axes": dicts("zyx"), "datasets": datasets, "coordinateTransformations": outer}
    volume = open_volume(write(tmp_path / "i.zarr", {"multiscales": [made]}, ("0", (4, 5, 6))))
    assert [axis.scale for axis in volume.axes] == [2, 0.5, 0.5]
    assert [axis.translation for axis in volume.axes] == [2.25, 0.5, 0.5]
    assert volume.multiscale_transforms == tuple(outer)
    assert volume.voxel_size == (20, 5, 5)

    other = open_volume(tmp_path / "i.zarr", voxel_size=(40, 10, 10))
    assert other.voxel_size == (40, 10, 10)
    assert other.multiscale_transforms == ()
    assert [axis.translation for axis in other.axes] == [59, 10, 10]  # (2.25 * 10 + 7) * 2


def test_long_axis_names(tmp_path: Path) -> None:
    axes = [
        {"name": "time", "type": "time", "unit": "seconds"},
        {"name": "Channel", "type": "channel"},
        {"name": "laser", "type": "channel"},
        {"name": "Y", "type": "space", "unit": "µm"},
        {"name": "X", "type": "space", "unit": "microns"},
    ]
    made = {"axes": [*axes[:2], *axes[3:]], "datasets": [{"path": "0"}]}
    volume = open_volume(write(tmp_path / "i.zarr", {"multiscales": [made]}, ("0", (2, 3, 4, 5))))
    assert volume.axis_names == ("t", "c", "y", "x")
    assert [axis.unit for axis in volume.axes] == ["second", None, "micrometer", "micrometer"]
    made = {"axes": [axes[0], *axes[2:]], "datasets": [{"path": "0"}]}
    named = write(tmp_path / "j.zarr", {"multiscales": [made]}, ("0", (2, 3, 4, 5)))
    assert open_volume(named).axis_names == ("t", "c", "y", "x")


ODD = [
    ("axes", "zyx", "axes is no list", ("z", "y", "x")),
    ("axes", dicts("czyx"), r"4 axes \(c, z, y, x\).*3 dimensions: z, y, x", ("z", "y", "x")),
    ("axes", dicts("yx"), r"2 axes \(y, x\).*3 dimensions: z, y, x", ("z", "y", "x")),
    ("axes", dicts("zyx", unit="furlong"), "'furlong' is no unit", ("z", "y", "x")),
    ("version", "0.9", "OME-Zarr 0.9; 0.1 to 0.5 are known", ("z", "y", "x")),
    ("coordinateTransformations", 3, "is no list and is ignored", ("z", "y", "x")),
    ("coordinateTransformations", [{"type": "scale", "scale": [1]}], "3 numbers", ("z", "y", "x")),
    ("coordinateTransformations", [{"type": "affine"}], "is ignored", ("z", "y", "x")),
    ("coordinateTransformations", [{"type": "scale", "scale": [1, 0, 1]}], "above 0",
     ("z", "y", "x")),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::n2v_scale.io.volume.InputWarning")
@pytest.mark.parametrize(("key", "value", "message", "axes"), ODD)
def test_odd_metadata_is_warned_of(
    tmp_path: Path, key: str, value: object, message: str, axes: tuple
) -> None:
    made = {"axes": dicts("zyx"), "datasets": [{"path": "0"}], key: value}
    path = write(tmp_path / "i.zarr", {"multiscales": [made]}, ("0", (4, 5, 6)))
    with pytest.warns(InputWarning, match=message):
        volume = open_volume(path)
    assert volume.axis_names == axes
    assert volume.voxel_size == (1, 1, 1)


def test_a_missing_level_and_a_second_image_are_warned_of(tmp_path: Path) -> None:
    made = {"axes": dicts("zyx"), "datasets": [{"path": "0"}, {"path": "gone"}, {"path": 5}, 7]}
    path = write(tmp_path / "i.zarr", {"multiscales": [made, made]}, ("0", (4, 5, 6)))
    with pytest.warns(InputWarning) as caught:
        volume = open_volume(path)
    messages = [str(w.message) for w in caught]
    assert any("'gone', which cannot be opened" in m and "left out" in m for m in messages)
    assert any("2 multiscales: the first one" in m for m in messages)
    assert [level.path for level in volume.levels] == ["0"]


def test_a_finer_level_behind_the_first_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path / "i.zarr", {"multiscales": [entry()]}, ("0", (4, 4)), ("1", (8, 8)))
    with pytest.warns(InputWarning, match="level '1' is larger than the first"):
        open_volume(path)


BROKEN = [
    ({"multiscales": "none"}, "multiscales is no list"),
    ({"multiscales": ["a"]}, "multiscales is no list of objects"),
    ({"multiscales": [{}]}, "names no dataset"),
    ({"multiscales": [{"datasets": [{}]}]}, "names no dataset"),
    ({"multiscales": [{"axes": ["a", "y", "x"], "datasets": [{"path": "0"}]}]},
     r"axes \(a, y, x\) make no sense.*axes='tczyx'"),
    ({"multiscales": [{"axes": ["z", "z", "x"], "datasets": [{"path": "0"}]}]}, "make no sense"),
    ({"multiscales": [{"axes": [1, {}, None], "datasets": [{"path": "0"}]}]}, "make no sense"),
    ({"multiscales": [{"datasets": [{"path": "1"}]}]}, "names dataset '1', which cannot be"),
    ({"multiscales": [{"datasets": [{"path": "labels"}]}]}, "is a zarr group"),
]  # fmt: skip


@pytest.mark.parametrize(("attributes", "message"), BROKEN)
def test_metadata_that_gives_no_image_is_an_error(
    tmp_path: Path, attributes: dict, message: str
) -> None:
    path = write(tmp_path / "i.zarr", attributes, ("0", (4, 5, 6)))
    zarr.create_group(str(path / "labels"), zarr_format=2)
    with pytest.raises(InputError, match=message):
        open_volume(path)


def test_axes_that_make_no_sense_can_be_overridden(tmp_path: Path) -> None:
    made = {"axes": ["a", "y", "x"], "datasets": [{"path": "0"}]}
    path = write(tmp_path / "i.zarr", {"multiscales": [made]}, ("0", (4, 5, 6)))
    assert open_volume(path, axes="tyx").shape == (4, 1, 1, 5, 6)


@pytest.mark.parametrize(
    ("raw", "name", "unit"),
    [
        ("um", "z", "micrometer"), ("\u00b5m", "y", "micrometer"), ("\u03bcm", "x", "micrometer"),
        ("Micron", "x", "micrometer"), ("micrometres", "x", "micrometer"), ("nm", "z", "nanometer"),
        ("millimeter", "z", "millimeter"), ("inches", "x", "inch"), ("feet", "x", "foot"),
        ("seconds", "t", "second"), ("s", "t", "second"), ("ms", "t", "millisecond"),
        ("min", "t", "minute"), ("pixel", "x", None), (None, "x", None), ("", "z", None),
        ("second", "c", None), ("\\u00B5m", "x", "micrometer"),
    ],
)  # fmt: skip
def test_units_get_the_names_that_ome_zarr_wants(
    raw: str | None, name: str, unit: str | None
) -> None:
    assert normal_unit(raw, name) == (unit, True)


@pytest.mark.parametrize(("raw", "name"), [("second", "x"), ("micrometer", "t"), ("banana", "z")])
def test_units_of_another_kind_are_dropped(raw: str, name: str) -> None:
    assert normal_unit(raw, name) == (None, False)


def test_every_unit_of_the_format_is_known() -> None:
    from ome_zarr.axes import KNOWN_SPATIAL_UNITS, KNOWN_TEMPORAL_UNITS

    assert all(normal_unit(unit, "x") == (unit, True) for unit in KNOWN_SPATIAL_UNITS)
    assert all(normal_unit(unit, "t") == (unit, True) for unit in KNOWN_TEMPORAL_UNITS)
