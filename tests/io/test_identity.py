"""The identity says whether the data is still the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from n2v_scale.io import stored
from n2v_scale.io.open import open_volume

DATA = np.random.default_rng(0).integers(1, 60000, (8, 8, 8)).astype("u2")


def write(path: Path, **options: object) -> Path:
    zarr.create_array(str(path), data=DATA, chunks=(2, 2, 2), **options)
    return path


LAYOUTS = [{}, {"zarr_format": 2}, {"shards": (4, 4, 4)}]


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_it_changes_with_a_chunk(tmp_path: Path, options: dict) -> None:
    volume = open_volume(write(tmp_path / "a.zarr", **options))
    before = volume.identity()
    assert open_volume(tmp_path / "a.zarr").identity() == before
    zarr.open_array(str(tmp_path / "a.zarr"), mode="r+")[:2, :2, :2] = 7
    assert volume.identity() != before


def test_it_changes_when_a_chunk_goes_or_is_touched(tmp_path: Path) -> None:
    volume = open_volume(write(tmp_path / "a.zarr", zarr_format=2))
    seen = {volume.identity()}
    os.utime(tmp_path / "a.zarr" / "1.2.3", ns=(1, 1))
    seen.add(volume.identity())
    (tmp_path / "a.zarr" / "1.2.3").unlink()
    seen.add(volume.identity())
    document = tmp_path / "a.zarr" / ".zarray"
    document.write_text(document.read_text().replace('"fill_value": 0', '"fill_value": 3'))
    seen.add(volume.identity())
    assert len(seen) == 4


def test_it_does_not_depend_on_the_place_or_the_selection(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr")
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")  # keeps the times
    here, there = open_volume(tmp_path / "a.zarr"), open_volume(tmp_path / "b.zarr", axes="tyx")
    assert here.identity() == there.identity()


def test_it_looks_at_256_stored_chunks_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    original = stored._file_state

    def counting(folder: str | Path, name: str = "") -> list[int]:
        looked.append(name)
        return original(folder, name)

    zarr.create_array(str(tmp_path / "a.zarr"), data=DATA, chunks=(1, 1, 1))
    volume = open_volume(tmp_path / "a.zarr")
    monkeypatch.setattr(stored, "_file_state", counting)
    volume.identity()
    assert len(looked) == stored.SAMPLES
    looked.clear()
    zarr.create_array(str(tmp_path / "huge.zarr"), shape=(10**6,) * 3, dtype="u1",
                      chunks=(10, 10, 10))  # fmt: skip
    huge = open_volume(tmp_path / "huge.zarr")
    huge.identity()  # 10**15 chunks, none of them stored
    assert len(looked) <= 4096
    assert huge.describe()["stored_bytes"] is None


def test_tiff_files_and_planes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DATA)
    (tmp_path / "planes").mkdir()
    for z, plane in enumerate(DATA):
        tifffile.imwrite(tmp_path / "planes" / f"{z}.tif", plane)
    for volume, file in (
        (open_volume(tmp_path / "a.tif"), tmp_path / "a.tif"),
        (open_volume(tmp_path / "planes"), tmp_path / "planes" / "3.tif"),
    ):
        before = volume.identity()
        assert volume.identity() == before
        os.utime(file, ns=(1, 1))
        assert volume.identity() != before
