"""What is no image gets one clear sentence, never another exception."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from n2v_scale.errors import InputError
from n2v_scale.io.open import open_volume


def make(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / kind
    if kind == "text.txt":
        path.write_text("hello")
    elif kind == "text.tif":
        path.write_text("hello, I am no TIFF")
    elif kind == "header.tif":
        path.write_bytes(b"II*\0\xff\xff\xff\x7f")
    elif kind == "empty.tif":
        path.touch()
    elif kind == "empty":
        path.mkdir()
    elif kind == "texts":
        path.mkdir()
        (path / "a.txt").write_text("hello")
    elif kind == "fake.zip":
        path.write_bytes(b"PK\3\4 nonsense")
    elif kind.endswith(".zarr"):
        path.mkdir()
        documents = {
            "cut.zarr": '{"zarr_format": 3, "node_',
            "list.zarr": "[]",
            "nothing.zarr": "{}",
            "future.zarr": '{"zarr_format": 4, "node_type": "array"}',
            "half.zarr": '{"zarr_format": 3, "node_type": "array", "shape": [1, 2, 3]}',
            "bytes.zarr": "\x00\x01",
        }
        (path / "zarr.json").write_text(documents[kind])
    return path


CASES = [
    ("nowhere", "does not exist"),
    ("text.txt", "is neither a zarr nor a TIFF file: convert"),
    ("text.tif", "is neither a zarr nor a TIFF file"),
    ("header.tif", "header.tif"),
    ("empty.tif", "is neither a zarr nor a TIFF file"),
    ("empty", "is an empty folder"),
    ("texts", r"is neither a zarr \(it holds none of zarr.json, .zarray, .zgroup\)"),
    ("fake.zip", "is neither a zarr nor a TIFF"),
    ("cut.zarr", "zarr metadata that cannot be read: JSONDecodeError"),
    ("list.zarr", "zarr metadata that cannot be read"),
    ("nothing.zarr", "no multiscales, and it holds nothing"),
    ("future.zarr", "zarr metadata that cannot be read"),
    ("half.zarr", "zarr metadata that cannot be read"),
    ("bytes.zarr", "zarr metadata that cannot be read"),
]


@pytest.mark.parametrize(("kind", "message"), CASES)
def test_no_image(tmp_path: Path, kind: str, message: str) -> None:
    path = make(tmp_path, kind)
    with pytest.raises(InputError, match=message) as caught:
        open_volume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_address_at_all() -> None:
    with pytest.raises(InputError, match="address is empty"):
        open_volume("")


def test_metadata_instead_of_its_folder(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.zeros((2, 3, 4), "u1"))
    with pytest.raises(InputError, match=r"metadata of a zarr: give the folder .*a\.zarr$"):
        open_volume(tmp_path / "a.zarr" / "zarr.json")
    with pytest.raises(InputError, match="holds no zarr array or group"):
        open_volume(tmp_path / "a.zarr" / "c")
    with pytest.raises(InputError, match="holds no zarr array or group"):
        open_volume(tmp_path / "a.zarr" / "nowhere")


@pytest.mark.parametrize("ndim", [1, 6])
def test_too_few_or_too_many_dimensions(tmp_path: Path, ndim: int) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.zeros((2,) * ndim, "u1"))
    with pytest.raises(InputError, match=f"has {ndim} dimensions: 2 to 5"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize("content", [5, "x", None, [], {"id": "nonsense"}])
def test_an_unknown_codec(tmp_path: Path, content: object) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.zeros((2, 3, 4), "u1"), zarr_format=2)
    document = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    document["compressor"] = {"id": "nonsense"}
    document["fill_value"] = content
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(document))
    with pytest.raises(InputError, match="zarr metadata that cannot be read"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0)
    with pytest.raises(InputError, match="cannot be read"):
        open_volume(tmp_path / "a" / "b.zarr")
