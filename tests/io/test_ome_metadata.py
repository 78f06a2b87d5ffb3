"""Written metadata is what others read: ome-zarr-models, ome-zarr-py and this package."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ome_zarr_models
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from n2v_scale.errors import OutputError
from n2v_scale.io.ome_metadata import image_attributes, selected_omero
from n2v_scale.io.open import open_volume
from n2v_scale.io.transforms import along
from n2v_scale.io.volume import Axis, Level

SHAPE = {"t": 2, "c": 3, "z": 4, "y": 8, "x": 8}
UNITS = {"t": "seconds", "z": "µm", "y": "µm", "x": "µm"}
WINDOW = {"min": 0, "max": 255, "start": 3, "end": 99}
OMERO = {
    "channels": [{"label": n, "color": "00FF00", "window": WINDOW} for n in "abc"],
    "rdefs": {"model": "color"},
}


def axes_of(names: str) -> list[Axis]:
    return [Axis(name, UNITS.get(name)) for name in names]


def levels_of(names: str) -> list[Level]:
    spatial = [name in "yx" for name in names]
    shape = tuple(SHAPE[name] for name in names)
    fine = Level("0", shape, tuple(0.5 if s else 1.0 for s in spatial), (0.0,) * len(names))
    coarse = Level(
        "deep/1",
        tuple(n // 2 if s else n for n, s in zip(shape, spatial, strict=True)),
        (1.0,) * len(names),
        tuple(0.25 if s else 0.0 for s in spatial),
    )
    return [fine, coarse]


def write(path: Path, names: str, version: str, **more: Any) -> Path:
    """A small image with the attributes under test."""
    form = 2 if version == "0.4" else 3
    attributes = image_attributes(axes_of(names), levels_of(names), version=version, **more)
    group = zarr.create_group(str(path), zarr_format=form, attributes=attributes)
    for level in levels_of(names):
        options: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        if form == 3:
            options = {"dimension_names": list(names)}
        group.create_array(level.path, shape=level.shape, dtype="u2", chunks=level.shape, **options)
    return path


TRANSFORMS = [
    {"type": "scale", "scale": [0.1, 1, 1, 2, 2]},
    {"type": "translation", "translation": [0, 0, 1, 2, 3]},
]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("names", ["tczyx", "czyx", "tzyx", "zyx", "yx", "tcyx"])
def test_it_validates(tmp_path: Path, names: str, version: str) -> None:
    transforms = along(TRANSFORMS, "tczyx", names)
    write(tmp_path / "i.zarr", names, version, name="denoised", omero=OMERO,
          multiscale_transforms=transforms)  # fmt: skip
    group = zarr.open_group(str(tmp_path / "i.zarr"), mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = ome_zarr_models.open_ome_zarr(group, version=version)
    assert type(image).__name__ == "Image"
    assert type(image).__module__.endswith(version.replace("0.", "v0") + ".image")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_others_read_it(tmp_path: Path, version: str) -> None:
    write(tmp_path / "i.zarr", "czyx", version, name="denoised", omero=OMERO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        location = parse_url(tmp_path / "i.zarr")
        node = next(iter(Reader(location)()))
    assert [level.shape for level in node.data] == [(3, 4, 8, 8), (3, 4, 4, 4)]
    assert [axis["name"] for axis in node.metadata["axes"]] == list("czyx")
    scales = [t[0]["scale"] for t in node.metadata["coordinateTransformations"]]
    assert scales == [[1, 1, 0.5, 0.5], [1, 1, 1, 1]]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_this_package_reads_back_what_it_wrote(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "i.zarr", "tczyx", version, name="denoised", omero=OMERO,
                 multiscale_transforms=TRANSFORMS)  # fmt: skip
    volume = open_volume(path)
    assert (volume.format, volume.name) == (f"OME-Zarr {version}", "denoised")
    assert [axis.unit for axis in volume.axes] == ["second", None, *["micrometer"] * 3]
    assert [axis.scale for axis in volume.axes] == [1, 1, 1, 0.5, 0.5]
    assert volume.levels[1].translation == (0, 0, 0, 0.25, 0.25)
    assert volume.multiscale_transforms == tuple(TRANSFORMS)
    assert volume.voxel_size == (1, 1, 1)
    assert volume.omero is not None
    assert volume.omero["channels"] == OMERO["channels"]


def test_versions_differ_in_where_things_stand() -> None:
    new = image_attributes(axes_of("zyx"), levels_of("zyx"), omero=OMERO)
    assert list(new) == ["ome"]
    assert new["ome"]["version"] == "0.5"
    assert "version" not in new["ome"]["multiscales"][0]
    assert "version" not in new["ome"]["omero"]
    old = image_attributes(axes_of("zyx"), levels_of("zyx"), omero=OMERO, version="0.4")
    assert list(old) == ["multiscales", "omero"]
    assert old["multiscales"][0]["version"] == old["omero"]["version"] == "0.4"


def test_units_that_are_none_are_dropped_and_scales_kept() -> None:
    axes = [Axis("z", "pixel"), Axis("y", "furlong"), Axis("x", "um")]
    entry = image_attributes(axes, levels_of("zyx"))["ome"]["multiscales"][0]
    assert entry["axes"] == [
        {"name": "z", "type": "space"},
        {"name": "y", "type": "space"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    assert entry["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 0.5, 0.5]


def test_several_multiscale_transforms_become_one() -> None:
    twice = [
        {"type": "translation", "translation": [1, 1]},
        {"type": "scale", "scale": [2, 3]},
        {"type": "translation", "translation": [1, 0]},
    ]
    made = image_attributes(axes_of("yx"), levels_of("yx"), multiscale_transforms=twice)
    assert made["ome"]["multiscales"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": [2, 3]},
        {"type": "translation", "translation": [3, 3]},
    ]


@pytest.mark.parametrize(
    ("omero", "kept"),
    [
        ({"channels": [{"color": "#ff00ff", "window": WINDOW}]}, ["ff00ff"]),
        ({"channels": [{"window": WINDOW}, {"color": 3, "window": WINDOW}]}, ["FFFFFF"] * 2),
        ({"channels": [{"color": "00FF00"}]}, None),
        ({"channels": [{"color": "00FF00", "window": {"min": 0}}]}, None),
        ({"channels": "none"}, None),
        ({}, None),
    ],
)
def test_omero_is_repaired_or_left_out(omero: dict, kept: list[str] | None) -> None:
    made = image_attributes(axes_of("yx"), levels_of("yx"), omero=omero)["ome"]
    colors = [c["color"] for c in made["omero"]["channels"]] if "omero" in made else None
    assert colors == kept


def test_omero_of_the_selected_channels() -> None:
    chosen = selected_omero(OMERO, [2, 0])
    assert chosen is not None
    assert [channel["label"] for channel in chosen["channels"]] == ["c", "a"]
    assert chosen["rdefs"] == {"model": "color"}
    assert selected_omero(OMERO, [3]) is None
    assert selected_omero(None, [0]) is None


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("xyz", {}, "t, c, z, y, x is the order"),
        ("zy", {}, "t, c, z, y, x is the order"),
        ("zyx", {"version": "0.3"}, "0.3 cannot be written: choose 0.4 or 0.5"),
        ("zyx", {"multiscale_transforms": [{"type": "scale", "scale": [1]}]}, "needs 3 numbers"),
    ],
)
def test_what_cannot_be_written(names: str, options: dict, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        image_attributes(axes_of(names), levels_of(names), **options)


def test_levels_must_fit_the_axes() -> None:
    with pytest.raises(OutputError, match="level '0': one scale and translation per axis"):
        image_attributes(axes_of("zyx"), levels_of("yx"))
    with pytest.raises(OutputError, match="at least one level"):
        image_attributes(axes_of("zyx"), [])
