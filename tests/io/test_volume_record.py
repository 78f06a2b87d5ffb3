"""A volume goes into the record of a run and comes back the same, whatever its kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import tifffile
import zarr

from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume, with_voxel_size
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume import Volume
from n2v_scale.io.volume_record import volume_from_dict, volume_to_dict

VALUES = np.random.default_rng(0).integers(0, 1000, (2, 3, 4, 16, 16)).astype(np.uint16)
SECRETS = StorageOptions.of({"key": "AKIDEXAMPLE", "secret": "s3cr3t"})


def ome_zarr(folder: Path, write_volume: Callable[..., Volume]) -> Volume:
    """A selection out of a multiscale with transformations of its own and channel names."""
    return write_volume(
        folder / "v.zarr",
        VALUES,
        chunk=(1, 1, 2, 8, 8),
        scale=(3.0, 1.0, 2.0, 0.5, 0.25),
        translation=(10.0, 0.0, 1.0, 2.0, 3.0),
        multiscale=[{"type": "scale", "scale": [0.1, 1.0, 2.0, 2.0, 2.0]}],
        omero={"channels": [{"label": c, "window": {"min": 0.5}} for c in "abc"]},
        timepoints=[1],
        channels=[2, 0],
    )


def sharded(folder: Path, write_volume: Callable[..., Volume]) -> Volume:
    values = VALUES.astype("u1").reshape(6, 32, 32)
    array = zarr.create_array(
        str(folder / "v.zarr"), shape=(6, 32, 32), chunks=(3, 8, 8), shards=(6, 16, 16), dtype="u1"
    )
    array[...] = values
    return open_volume(folder / "v.zarr")


def zipped(folder: Path, write_volume: Callable[..., Volume]) -> Volume:
    zarr.create_array(str(folder / "v.zarr"), data=VALUES, chunks=(1, 1, 4, 8, 8), zarr_format=2)
    with ZipFile(folder / "v.zip", "w") as archive:
        for file in sorted((folder / "v.zarr").rglob("*")):
            archive.write(file, file.relative_to(folder / "v.zarr"))
    return open_volume(folder / "v.zip", axes="tczyx", channels=[1])


def tiff(folder: Path, write_volume: Callable[..., Volume]) -> Volume:
    stack = VALUES[:, 0].reshape(8, 16, 16)
    tifffile.imwrite(folder / "v.tif", stack, metadata={"axes": "ZYX"})
    return with_voxel_size(open_volume(folder / "v.tif"), (2.0, 0.4, 0.4))


def planes(folder: Path, write_volume: Callable[..., Volume]) -> Volume:
    (folder / "planes").mkdir()
    for z, plane in enumerate(VALUES[0, 0]):
        tifffile.imwrite(folder / "planes" / f"z{z}.tif", plane)
    return open_volume(folder / "planes")


def image(folder: Path, write_volume: Callable[..., Volume]) -> Volume:
    return write_volume(folder / "v.zarr", VALUES[0, 0, 0], "yx")


KINDS = [ome_zarr, sharded, zipped, tiff, planes, image]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_volume_comes_back_from_json(
    tmp_path: Path, write_volume: Callable[..., Volume], kind: Callable[..., Volume]
) -> None:
    volume = kind(tmp_path, write_volume)
    found = volume_from_dict(json.loads(json.dumps(volume_to_dict(volume))), volume.storage)
    for field in fields(Volume):  # equality of volumes leaves some out
        old, new = getattr(volume, field.name), getattr(found, field.name)
        assert old == new, field.name
        assert type(old) is type(new), field.name
    assert hash(found) == hash(volume)
    whole = Box.whole(volume.spatial_shape)
    last = len(volume.timepoints) - 1, len(volume.channels) - 1
    np.testing.assert_array_equal(found.read(*last, whole), volume.read(*last, whole))
    assert found.identity() == volume.identity()


def test_how_a_store_is_reached_is_not_in_the_record(
    tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    volume = replace(image(tmp_path, write_volume), storage=SECRETS)
    text = json.dumps(volume_to_dict(volume))
    assert "s3cr3t" not in text
    assert "AKIDEXAMPLE" not in text
    others = StorageOptions.of({"key": "of somebody else"})
    assert volume_from_dict(json.loads(text), others).storage is others


def test_nothing_is_opened(tmp_path: Path, write_volume: Callable[..., Volume]) -> None:
    volume = image(tmp_path, write_volume)
    content = volume_to_dict(volume)
    Path(volume.address).rename(tmp_path / "elsewhere")
    assert volume_from_dict(content, volume.storage) == volume
