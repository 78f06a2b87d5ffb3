"""The output as a whole: metadata, provenance, what is taken up again and what is refused."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr
from distributed import Client
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

import n2v_scale
from n2v_scale.api import import_volume, plan_prediction, predict
from n2v_scale.errors import ConfigError, OutputError, PlanError
from n2v_scale.execution import Summary
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.io.writer import get_attributes
from n2v_scale.ledger import Ledger

SHAPE = (2, 3, 6, 20, 24)
SCALE = (3.0, 1.0, 2.0, 0.5, 0.25)
START = (10.0, 0.0, 1.0, 2.0, 3.0)
MULTISCALE = [
    {"type": "scale", "scale": [0.1, 1.0, 2.0, 2.0, 2.0]},
    {"type": "translation", "translation": [0.0, 0.0, 5.0, 6.0, 7.0]},
]
COLORS = ("FF0000", "00FF00", "0000FF")
OMERO = {
    "channels": [
        {
            "label": label,
            "color": color,
            "active": label != "b",
            "window": {"min": 0, "max": 9, "start": 1, "end": 2},
        }
        for label, color in zip("abc", COLORS, strict=True)
    ],
    "rdefs": {"model": "color"},
}
STORAGE: dict[str, Any] = {"chunk": (2, 8, 8), "shard": (6, 8, 24)}


def image_of(shape: tuple[int, ...] = SHAPE, dtype: str = "uint16") -> np.ndarray:
    """Each channel in a range of its own."""
    values = np.random.default_rng(0).normal(100, 10, shape)
    if len(shape) == 5:
        values += 1000 * np.arange(shape[1])[:, None, None, None]
    return values.astype(dtype)


@pytest.fixture
def volume(tmp_path: Path, write_volume: Callable[..., Volume]) -> Volume:
    return write_volume(
        tmp_path / "v.zarr",
        image_of(),
        scale=SCALE,
        translation=START,
        multiscale=MULTISCALE,
        omero=OMERO,
        chunk=(1, 1, 3, 5, 8),
    )


@pytest.fixture
def copy(tmp_path: Path, client: Client) -> Callable[..., Summary]:
    """Import into ``o.zarr``."""

    def call(volume: Volume | Path, **options: Any) -> Summary:
        return import_volume(volume, tmp_path / "o.zarr", client=client, **{**STORAGE, **options})

    return call


def multiscale_of(path: Path) -> dict[str, Any]:
    attributes = zarr.open_group(str(path), mode="r").attrs.asdict()
    entry: dict[str, Any] = attributes.get("ome", attributes)["multiscales"][0]
    return entry


def omero_of(path: Path) -> dict[str, Any]:
    attributes = zarr.open_group(str(path), mode="r").attrs.asdict()
    block: dict[str, Any] = attributes.get("ome", attributes)["omero"]
    return block


# Metadata


def test_a_denoised_volume_is_called_so(
    tmp_path: Path, write_volume: Callable[..., Volume], tiny_model: Path, client: Client
) -> None:
    """Viewers show it beside the noisy one; where that has no name, they show the file's."""
    values = np.random.default_rng(0).normal(100, 9, (8, 32, 32)).astype("u2")
    noisy = write_volume(tmp_path / "v.zarr", values, "zyx")
    predict(noisy, tiny_model, tmp_path / "o.zarr", client=client, device="cpu")
    assert multiscale_of(tmp_path / "o.zarr")["name"] == "image, denoised"
    nameless = replace(open_volume(noisy.address), name="")
    predict(nameless, tiny_model, tmp_path / "n.zarr", client=client, device="cpu")
    assert "name" not in multiscale_of(tmp_path / "n.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_metadata_carries_over(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary], version: str
) -> None:
    copy(volume, ome_version=version)
    entry = multiscale_of(tmp_path / "o.zarr")
    assert entry["name"] == "image"
    assert [axis["name"] for axis in entry["axes"]] == list("tczyx")
    assert [axis["type"] for axis in entry["axes"]] == ["time", "channel", *["space"] * 3]
    assert [axis.get("unit") for axis in entry["axes"][2:]] == ["micrometer"] * 3
    assert entry["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": list(SCALE)},
        {"type": "translation", "translation": list(START)},
    ]
    assert entry["coordinateTransformations"] == MULTISCALE
    again = open_volume(tmp_path / "o.zarr")
    assert again.axes == volume.axes
    assert again.voxel_size == volume.voxel_size == (4.0, 1.0, 0.5)
    assert again.format == f"OME-Zarr {version}"
    assert again.dtype == volume.dtype


def test_channels_keep_names_and_colours_and_get_windows(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    copy(volume)
    block = omero_of(tmp_path / "o.zarr")
    assert block["rdefs"] == {"model": "color"}
    assert [c["label"] for c in block["channels"]] == list("abc")
    assert [c["color"] for c in block["channels"]] == list(COLORS)
    assert [c["active"] for c in block["channels"]] == [True, False, True]
    for number, channel in enumerate(block["channels"]):
        window = channel["window"]
        assert (window["min"], window["max"]) == (0, 65535)
        low = 100 + 1000 * number - 50
        assert low < window["start"] < window["end"] < low + 100


def test_windows_come_from_the_coarsest_level(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    copy(volume)
    entry = multiscale_of(tmp_path / "o.zarr")
    coarsest = zarr.open_array(str(tmp_path / "o.zarr" / entry["datasets"][-1]["path"]), mode="r")
    for number, channel in enumerate(omero_of(tmp_path / "o.zarr")["channels"]):
        low, high = np.percentile(coarsest[0, number], [1, 99.8])
        assert channel["window"]["start"] == pytest.approx(low)
        assert channel["window"]["end"] == pytest.approx(high)


@pytest.mark.parametrize(
    "omero",
    [
        None,
        {},
        {"channels": None},
        {"channels": "abc"},
        {"channels": [None, 3, {"label": "c"}]},
        {"channels": [{"label": "a", "color": 5}]},
    ],
)
def test_odd_rendering_blocks_do_no_harm(
    tmp_path: Path,
    write_volume: Callable[..., Volume],
    copy: Callable[..., Summary],
    omero: Any,
) -> None:
    copy(write_volume(tmp_path / "v.zarr", image_of(), omero=omero))
    channels = omero_of(tmp_path / "o.zarr")["channels"]
    assert len(channels) == 3
    for number, channel in enumerate(channels):
        assert channel["window"]["start"] > 1000 * number
        assert len(channel["color"]) == 6
        assert channel["label"]


def test_windows_of_data_with_nan_and_infinity(
    tmp_path: Path, write_volume: Callable[..., Volume], copy: Callable[..., Summary]
) -> None:
    image = image_of((6, 20, 24), "float32")
    image[0, 0, :3] = [np.nan, np.inf, -np.inf]
    copy(write_volume(tmp_path / "v.zarr", image))
    text = (tmp_path / "o.zarr/zarr.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # NaN is no JSON
    window = omero_of(tmp_path / "o.zarr")["channels"][0]["window"]
    assert 50 < window["min"] <= window["start"] < window["end"] <= window["max"] < 150


@pytest.mark.parametrize("fill", [0.0, 7.0, np.nan])
def test_windows_of_a_constant(
    tmp_path: Path, write_volume: Callable[..., Volume], copy: Callable[..., Summary], fill: float
) -> None:
    copy(write_volume(tmp_path / "v.zarr", np.full((6, 20, 24), fill, np.float32)))
    json.loads((tmp_path / "o.zarr/zarr.json").read_text(), parse_constant=pytest.fail)
    window = omero_of(tmp_path / "o.zarr")["channels"][0]["window"]
    assert window["start"] < window["end"]


def test_stored_axes_in_another_order_come_out_in_the_usual_one(
    tmp_path: Path, write_volume: Callable[..., Volume], copy: Callable[..., Summary]
) -> None:
    image, order = image_of(), "xzyct"
    where = ["tczyx".index(a) for a in order]
    volume = write_volume(
        tmp_path / "v.zarr",
        image.transpose(where),
        order,
        scale=[SCALE[i] for i in where],
        translation=[START[i] for i in where],
        multiscale=[
            {**t, t["type"]: [t[t["type"]][i] for i in where]}  # type: ignore[index]
            for t in MULTISCALE
        ],
        omero=OMERO,
    )
    copy(volume)
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "o.zarr/0"), mode="r"), image)
    entry = multiscale_of(tmp_path / "o.zarr")
    assert [axis["name"] for axis in entry["axes"]] == list("tczyx")
    assert entry["datasets"][0]["coordinateTransformations"] == [
        {"type": "scale", "scale": list(SCALE)},
        {"type": "translation", "translation": list(START)},
    ]
    assert entry["coordinateTransformations"] == MULTISCALE


@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "tzyx", "czyx", "tczyx"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_written_validates_and_opens_elsewhere(
    tmp_path: Path,
    write_volume: Callable[..., Volume],
    copy: Callable[..., Summary],
    axes: str,
    version: str,
) -> None:
    shape = tuple(SHAPE["tczyx".index(a)] for a in axes)
    image = image_of(shape, "uint8")
    copy(write_volume(tmp_path / "v.zarr", image, axes), ome_version=version)
    path = tmp_path / "o.zarr"
    np.testing.assert_array_equal(zarr.open_array(str(path / "0"), mode="r"), image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations
        group = zarr.open_group(str(path), mode="r")
        validated = ome_zarr_models.open_ome_zarr(group, version=version)
        nodes = list(Reader(parse_url(str(path)))())
        data = [np.asarray(level) for level in nodes[0].data]
    assert type(validated).__module__.endswith(version.replace("0.", "v0") + ".image")
    np.testing.assert_array_equal(data[0], image)
    assert len(data) == len(multiscale_of(path)["datasets"]) > 1


def test_a_selection_is_what_comes_out(
    tmp_path: Path, write_volume: Callable[..., Volume], copy: Callable[..., Summary]
) -> None:
    image = image_of((7, 3, 2, 8, 8))
    write_volume(tmp_path / "v.zarr", image, scale=SCALE, translation=START, omero=OMERO)
    copy(open_volume(tmp_path / "v.zarr", channels=[2, 0], timepoints=slice(1, 7, 2)))
    path = tmp_path / "o.zarr"
    found = zarr.open_array(str(path / "0"), mode="r")[...]
    np.testing.assert_array_equal(found, image[1::2][:, [2, 0]])
    channels = omero_of(path)["channels"]
    assert [c["label"] for c in channels] == ["c", "a"]
    assert [c["color"] for c in channels] == ["0000FF", "FF0000"]
    assert channels[0]["window"]["start"] > 2000 > channels[1]["window"]["end"]
    time = open_volume(path).axes[0]
    assert (time.scale, time.translation) == (6.0, 13.0)


@pytest.mark.parametrize("timepoints", [[2, 0], [3, 2, 1], [0, 1, 3], [2]])
def test_selected_times_leave_a_scale_that_can_be_read(
    tmp_path: Path,
    write_volume: Callable[..., Volume],
    copy: Callable[..., Summary],
    timepoints: list[int],
) -> None:
    image = image_of((4, 1, 2, 8, 8))
    write_volume(tmp_path / "v.zarr", image, scale=SCALE)
    copy(open_volume(tmp_path / "v.zarr", timepoints=timepoints))
    again = open_volume(tmp_path / "o.zarr")
    assert again.axes[0].scale > 0
    assert again.axes[0].translation == 3.0 * timepoints[0]
    assert again.voxel_size == (2.0, 0.5, 0.25)
    np.testing.assert_array_equal(
        zarr.open_array(str(tmp_path / "o.zarr/0"), mode="r"), image[timepoints]
    )


# Provenance


def test_an_output_says_where_it_comes_from(
    tmp_path: Path, volume: Volume, client: Client, write_model: Callable[..., Path]
) -> None:
    model = write_model(tmp_path / "model")
    # What would be chosen for the workers there are, which are others here and there.
    chosen = {"block": (6, 16, 24), "threads": 1}
    options = {"device": "cpu", "tile": (4, 8, 8), **chosen, **STORAGE}
    summary = predict(volume, model, tmp_path / "o.zarr", client=client, **options)
    record = (get_attributes(str(tmp_path / "o.zarr"), "n2v_scale") or {})["run"]
    plan = plan_prediction(volume, model, tmp_path / "p.zarr", **options)
    assert record["package_version"] == n2v_scale.__version__
    assert record["complete"] is True
    assert record["key"] == plan.key
    assert record["plan"]["input"]["address"] == volume.address
    assert record["plan"]["input"]["identity"] == volume.identity()
    assert record["plan"]["denoiser"]["address"] == str(model)
    assert record["plan"]["tile"] == [4, 8, 8]
    assert record["plan"]["normalisation"] == plan.normalisation.to_dict()
    assert record["complete"]
    assert Ledger(str(tmp_path / "o.zarr"), "0.5").done("0", plan.blocks).all()
    assert summary.blocks == plan.blocks


# Resuming


def forget(path: Path, level: str, numbers: list[int] | None) -> None:
    """As if these blocks had never been done."""
    Ledger(str(path), "0.5").unmark(level, numbers)


def contents(path: Path) -> dict[str, bytes]:
    """Without the journal, which tells of times."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and "journal" not in file.parts
    }


def unfinish(path: Path) -> None:
    """As it was just before the end: every block done, the record open."""
    Ledger(str(path), "0.5").update(complete=False)


def test_a_resume_computes_what_has_no_marker(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    first = copy(volume)
    path = tmp_path / "o.zarr"
    assert first.computed == first.blocks > 10
    before = contents(path)
    unfinish(path)
    forget(path, "0", [3, 4, 5])
    forget(path, "1", [0])
    (path / "0/c/0/1/0/1/0").write_bytes(b"torn")  # block 4's
    (path / "0/c/0/1/0/2/0").unlink()
    half = path / "0/c/0/1/0/2/0.77.partial"
    half.write_bytes(b"half")
    os.utime(half, (1, 1))
    second = copy(volume)
    assert second.blocks == first.blocks
    assert second.computed == 3
    assert contents(path) == before


def test_a_finished_output_is_left_alone(
    tmp_path: Path,
    volume: Volume,
    copy: Callable[..., Summary],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy(volume)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "o.zarr").rglob("*") if f.is_file()}
    monkeypatch.setattr("n2v_scale.execution.run_level", pytest.fail)
    summary = copy(volume)
    assert summary.computed == 0
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "o.zarr").rglob("*") if f.is_file()} == (
        before
    )


def test_a_resume_without_the_storage_options_takes_the_stored_ones(
    tmp_path: Path, volume: Volume, client: Client, copy: Callable[..., Summary]
) -> None:
    copy(volume, codec="gzip", dtype="float32")
    before = contents(tmp_path / "o.zarr")
    unfinish(tmp_path / "o.zarr")
    forget(tmp_path / "o.zarr", "0", [0])
    assert import_volume(volume, tmp_path / "o.zarr", client=client).computed == 1
    assert contents(tmp_path / "o.zarr") == before


def test_arrays_that_are_missing_are_created(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    """A driver that died before its first block."""
    copy(volume)
    before = contents(tmp_path / "o.zarr")
    unfinish(tmp_path / "o.zarr")
    for level in "012":
        forget(tmp_path / "o.zarr", level, None)
        for file in (tmp_path / "o.zarr" / level).rglob("*"):
            if file.is_file():
                file.unlink()
    copy(volume)
    assert contents(tmp_path / "o.zarr") == before


def test_other_settings_are_refused_with_the_difference(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    copy(volume)
    before = contents(tmp_path / "o.zarr")
    with pytest.raises(PlanError, match="--codec was blosc-zstd, now zstd") as caught:
        copy(volume, codec="zstd")
    assert "--overwrite" in str(caught.value)
    with pytest.raises(PlanError, match="channels was 0x1x2, now 1"):
        copy(open_volume(volume.address, channels=[1]))
    assert contents(tmp_path / "o.zarr") == before


def test_another_version_of_the_format_is_refused(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    copy(volume)
    with pytest.raises(PlanError, match=r"--ome-version was 0\.5, now 0\.4"):
        copy(volume, ome_version="0.4")


def test_another_input_is_refused(
    tmp_path: Path,
    volume: Volume,
    copy: Callable[..., Summary],
    write_volume: Callable[..., Volume],
) -> None:
    copy(volume)
    other = write_volume(tmp_path / "w.zarr", image_of() + 1)
    with pytest.raises(PlanError, match="the input's metadata was"):
        copy(other)


def test_a_finished_output_is_not_taken_for_that_of_a_changed_input(
    volume: Volume, copy: Callable[..., Summary]
) -> None:
    copy(volume)
    chunk = next(p for p in Path(volume.address, volume.array_path, "c").rglob("*") if p.is_file())
    os.utime(chunk, ns=(1, 1))
    with pytest.raises(PlanError, match="has changed since"):
        copy(volume)


def test_overwriting_starts_afresh(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    copy(volume)
    (tmp_path / "o.zarr/0/c/0/0/0/0/99").write_bytes(b"of the first run")
    summary = copy(volume, overwrite=True, codec="zstd", shard=(6, 8, 8))
    assert summary.computed == summary.blocks
    assert not (tmp_path / "o.zarr/0/c/0/0/0/0/99").exists()
    found = zarr.open_array(str(tmp_path / "o.zarr/0"), mode="r")
    np.testing.assert_array_equal(found, image_of())
    assert found.shards == (1, 1, 6, 8, 8)


# What is refused


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_refused(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary], overwrite: bool
) -> None:
    (tmp_path / "o.zarr").mkdir()
    (tmp_path / "o.zarr/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"n2v-scale did not write|not written by n2v-scale"):
        copy(volume, overwrite=overwrite)
    assert contents(tmp_path / "o.zarr") == {"notes.txt": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_file_is_refused(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary], overwrite: bool
) -> None:
    (tmp_path / "o.zarr").write_text("mine")
    with pytest.raises(OutputError, match="choose another name"):
        copy(volume, overwrite=overwrite)
    assert (tmp_path / "o.zarr").read_text() == "mine"


def test_an_empty_folder_is_taken(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    (tmp_path / "o.zarr").mkdir()
    assert copy(volume).computed > 0


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "place", ["v.zarr", "v.zarr/denoised", "v.zarr/0", ".", "v.zarr/../v.zarr"]
)
def test_input_and_output_lie_apart(
    tmp_path: Path, volume: Volume, client: Client, place: str, overwrite: bool
) -> None:
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="lie inside one another"):
        import_volume(volume, tmp_path / place, client=client, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_a_link_to_the_input_is_no_way_around(
    tmp_path: Path, volume: Volume, client: Client
) -> None:
    (tmp_path / "link").symlink_to(volume.address)
    with pytest.raises(OutputError, match="lie inside one another"):
        import_volume(volume, tmp_path / "link" / "o.zarr", client=client)


def test_a_codec_level_that_does_not_exist_is_refused_before_anything_is_written(
    tmp_path: Path, volume: Volume, copy: Callable[..., Summary]
) -> None:
    with pytest.raises(ConfigError, match="gzip goes up to 9"):
        copy(volume, codec="gzip", codec_level=12)
    assert not (tmp_path / "o.zarr").exists()
