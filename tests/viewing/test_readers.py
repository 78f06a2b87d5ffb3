"""Outputs open in what scientists already use: napari, ome-zarr-py, and viewers in the browser.

napari's reader and zarrita (which vizarr is built on) are run where ``make viewers`` put them:
napari adds itself to pytest, so it is never in the environment of the tests.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from n2v_scale.api import import_volume
from tests.viewing.conftest import serving, values

HERE = Path(__file__).parent
VIEWERS = Path(os.environ.get("N2V_SCALE_VIEWERS", HERE.parents[1] / ".viewers"))
SHAPE = (2, 20, 96, 80)

NEUROGLANCER_TYPES = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"}
NEUROGLANCER_UNITS = {"micrometer", "second"}  # of SI, prefixes written out
"""As its documentation lists them (src/datasource/zarr/index.rst)."""


@pytest.fixture(scope="module", params=["0.4", "0.5"])
def output(request, tmp_path_factory, write_volume, client):
    """Two channels, float where the version is 0.4, with lower resolutions."""
    folder = tmp_path_factory.mktemp("outputs")
    data = np.stack([values(seed, SHAPE[1:]) for seed in range(2)])
    data = data.astype(np.float32) if request.param == "0.4" else data
    channels = [
        {"label": name, "color": color, "active": True,
         "window": {"min": 0, "max": 65535, "start": 1, "end": 2}}
        for name, color in (("nuclei", "00FF00"), ("membranes", "FF00FF"))
    ]  # fmt: skip
    volume = write_volume(
        folder / "in.zarr", data, "czyx", scale=(1, 2, 0.4, 0.4), omero={"channels": channels}
    )
    out = folder / "out.zarr"
    storage = {"chunk": (8, 32, 32), "shard": (16, 64, 64), "ome_version": request.param}
    import_volume(volume, out, client=client, **storage)
    return out


def documents(output):
    """The image's attributes, and the metadata of each level."""
    group = zarr.open_group(output, mode="r")
    content = dict(group.attrs)
    ome = content.get("ome", content)
    new = (output / "zarr.json").is_file()
    paths = [dataset["path"] for dataset in ome["multiscales"][0]["datasets"]]
    names = [output / path / ("zarr.json" if new else ".zarray") for path in paths]
    return ome, [json.loads(name.read_text()) for name in names]


def sha256(array):
    array = np.asarray(array)
    little = array.astype(array.dtype.newbyteorder("<"))
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()


def test_axes_and_transformations(output):
    ome, arrays = documents(output)
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == list("czyx")
    assert [axis["type"] for axis in multiscale["axes"]] == ["channel", "space", "space", "space"]
    units = {axis["unit"] for axis in multiscale["axes"] if "unit" in axis}
    assert units <= NEUROGLANCER_UNITS
    sizes = []
    for dataset, array in zip(multiscale["datasets"], arrays, strict=True):
        scale, *more = dataset["coordinateTransformations"]
        assert [scale["type"], *(t["type"] for t in more)] in (["scale"], ["scale", "translation"])
        for transform in (scale, *more):
            numbers = transform[transform["type"]]
            assert len(numbers) == len(array["shape"]) == 4
            assert all(math.isfinite(number) for number in numbers)
        assert min(scale["scale"]) > 0
        sizes.append(scale["scale"])
    assert len(sizes) > 2
    assert sizes == sorted(sizes)  # the finest first


def test_channels_have_windows_and_colours(output):
    ome, _ = documents(output)
    channels = ome["omero"]["channels"]
    assert [channel["label"] for channel in channels] == ["nuclei", "membranes"]
    for channel in channels:
        assert re.fullmatch("[0-9A-F]{6}", channel["color"])
        assert channel["active"] is True
        window = channel["window"]
        assert window["min"] <= window["start"] < window["end"] <= window["max"]


def test_codecs_types_and_keys_are_what_browsers_decode(output):
    _, arrays = documents(output)
    for array in arrays:
        assert array["fill_value"] == 0
        if array["zarr_format"] == 2:
            assert array["compressor"]["id"] == "blosc"
            assert array["compressor"]["cname"] == "zstd"
            assert not array["filters"]
            assert array["order"] == "C"
            assert array["dimension_separator"] == "/"
            assert np.dtype(array["dtype"]).name in NEUROGLANCER_TYPES
            continue
        assert array["data_type"] in NEUROGLANCER_TYPES
        assert array["chunk_key_encoding"] == {
            "name": "default",
            "configuration": {"separator": "/"},
        }
        assert array["chunk_grid"]["name"] == "regular"
        (sharding,) = array["codecs"]
        assert sharding["name"] == "sharding_indexed"
        inner = sharding["configuration"]
        assert [codec["name"] for codec in inner["codecs"]] == ["bytes", "blosc"]
        assert inner["codecs"][0]["configuration"] == {"endian": "little"}
        assert inner["codecs"][1]["configuration"]["cname"] == "zstd"
        assert [codec["name"] for codec in inner["index_codecs"]] == ["bytes", "crc32c"]
        assert inner.get("index_location", "end") == "end"
        shard = array["chunk_grid"]["configuration"]["chunk_shape"]
        assert all(a % b == 0 for a, b in zip(shard, inner["chunk_shape"], strict=True))


def test_ome_zarr_reads_every_level(output):
    (node,) = Reader(parse_url(output, mode="r"))()
    group = zarr.open_group(output, mode="r")
    assert len(node.data) == len(list(group.array_keys()))
    for number, level in enumerate(node.data):
        np.testing.assert_array_equal(np.asarray(level), group[str(number)][:])
    assert node.metadata["channel_names"] == ["nuclei", "membranes"]
    assert [axis["name"] for axis in node.metadata["axes"]] == list("czyx")


def napari(address):
    python = VIEWERS / "bin" / "python"
    if not python.exists():
        pytest.skip(f"napari's reader is missing: make viewers puts it into {VIEWERS}")
    command = [python, "-W", "ignore", HERE / "read_with_napari.py", str(address)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_napari_reads_every_level(output):
    """Split along c into layers with the names, windows, units and scale of the metadata."""
    told = napari(output)
    assert told["qt"] == []
    ome, _ = documents(output)
    group = zarr.open_group(output, mode="r")
    (layer,) = told["layers"]
    assert (layer["kind"], layer["channel_axis"]) == ("image", 0)
    channels = ome["omero"]["channels"]
    assert [name.split(": ")[-1] for name in layer["name"]] == [c["label"] for c in channels]
    windows = [[c["window"]["start"], c["window"]["end"]] for c in channels]
    assert layer["contrast_limits"] == windows
    assert layer["scale"] == [2, 0.4, 0.4]
    assert layer["units"] == ["micrometer"] * 3
    expected = [group[str(n)][:] for n in range(len(list(group.array_keys())))]
    assert layer["levels"] == [[list(v.shape), sha256(v)] for v in expected]


def test_napari_reads_what_is_served(pair):
    with serving(pair.denoised) as served:
        (layer,) = napari(f"{served.server.url}/data/denoised.zarr")["layers"]
    group = zarr.open_group(pair.denoised, mode="r")
    expected = [group[str(n)][:] for n in range(len(layer["levels"]))]
    assert layer["levels"] == [[list(v.shape), sha256(v)] for v in expected]


def test_zarrita_decodes_every_level_that_is_served(output):
    """What vizarr reads with, over HTTP and with ranges into shards."""
    node, library = shutil.which("node"), VIEWERS / "node_modules/zarrita/dist/src/index.js"
    if node is None or not library.exists():
        pytest.skip(f"zarrita or node is missing: make viewers puts it into {VIEWERS}")
    with serving(output) as served:
        url = f"{served.server.url}/data/{served.viewing.served[0].name}"
        command = [node, HERE / "decode.mjs", library, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    group = zarr.open_group(output, mode="r")
    assert len(told["levels"]) == len(list(group.array_keys())) > 2
    for level in told["levels"]:
        stored = group[level["path"]][:]
        assert (level["shape"], level["dtype"]) == (list(stored.shape), stored.dtype.name)
        assert level["sha256"] == sha256(stored)
    sharded = (output / "zarr.json").is_file()
    assert (told["ranges"] > 0) == sharded
