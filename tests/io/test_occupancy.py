"""What is stored of an input: against what reading it gives, for every layout."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape, grid_cell, grid_indices
from n2v_scale.io import occupancy
from n2v_scale.io.occupancy import StoredCells, stored_cells
from n2v_scale.io.open import open_volume
from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.volume import Volume

FILL = 7
LAYOUTS: dict[str, dict[str, Any]] = {
    "v2 dots": {"zarr_format": 2},
    "v2 slashes": {
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "v3 slashes": {},
    "v3 dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 v2 keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
}


def known(volume: Volume) -> StoredCells:
    found = stored_cells(volume)
    assert found is not None
    return found


def write(store: Any, data: np.ndarray, chunks: tuple[int, ...], **options: Any) -> None:
    """Objects that hold nothing but the fill value are not stored."""
    options = {"fill_value": FILL, **options}
    array = zarr.create_array(
        store, shape=data.shape, dtype=data.dtype, chunks=chunks, overwrite=True, **options
    )
    array[...] = data


def sparse(shape: tuple[int, ...], chunks: tuple[int, ...], chosen: Any) -> np.ndarray:
    """The fill value, but for one voxel in each of the chosen chunks."""
    data = np.full(shape, FILL, np.uint16)
    grid = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    for number in chosen:
        index = np.unravel_index(number % int(np.prod(grid)), grid)
        data[tuple(i * c for i, c in zip(index, chunks, strict=True))] = 1
    return data


def agrees(volume: Volume, stored: StoredCells, cell: Shape) -> int:
    """Every object is empty exactly where all of its voxels are the fill value; how many are."""
    empty = 0
    for t in range(volume.shape[0]):
        for c in range(volume.shape[1]):
            for index in grid_indices(volume.spatial_shape, cell):
                box = grid_cell(index, cell, volume.spatial_shape)
                only_fill = bool((volume.read(t, c, box) == stored.fill_value).all())
                assert stored.empty(t, c, box) == only_fill, (t, c, box)
                empty += only_fill
    return empty


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    axes=st.sampled_from(["tczyx", "zyx", "xyz", "czyx", "yxt", "zxcy"]),
)
def test_every_layout_says_what_reading_finds(data: Any, layout: str, axes: str) -> None:
    shape = tuple(data.draw(st.integers(1, 9)) for _ in axes)
    chunks = tuple(data.draw(st.integers(1, n)) for n in shape)
    if any(a in "tc" for a in axes):
        chunks = tuple(1 if a in "tc" else k for a, k in zip(axes, chunks, strict=True))
    values = sparse(shape, chunks, data.draw(st.sets(st.integers(0, 500), max_size=6)))
    with tempfile.TemporaryDirectory() as folder:
        write(f"{folder}/a.zarr", values, chunks, **LAYOUTS[layout])
        volume = open_volume(f"{folder}/a.zarr", axes=axes)
        cell = dict(zip(axes, chunks, strict=True))
        agrees(volume, known(volume), as_shape([cell.get(a, 1) for a in "zyx"]))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_box_is_empty_when_every_object_that_it_touches_is(data: Any) -> None:
    shape, extent = (6, 7, 8), (2, 3, 4)
    grid = data.draw(st.lists(st.booleans(), min_size=18, max_size=18))
    stored = np.array(grid).reshape(1, 1, 3, 3, 2)
    cells = StoredCells(stored, (1, 1, *extent), (0,), (0,), 0.0)
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = Box(
        as_shape(start),
        as_shape([data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]),
    )
    voxels = np.kron(stored[0, 0], np.ones(extent, bool))[: shape[0], : shape[1], : shape[2]]
    assert cells.empty(0, 0, box) == (not voxels[box.slices].any())


def test_shards_are_the_objects(tmp_path: Path) -> None:
    values = sparse((4, 12, 16), (2, 3, 4), [0])
    write(tmp_path / "a.zarr", values, (2, 3, 4), shards=(4, 6, 8))
    volume = open_volume(tmp_path / "a.zarr")
    stored = known(volume)
    assert stored.stored.shape == (1, 1, 1, 2, 2)
    assert agrees(volume, stored, (4, 6, 8)) == 3


def test_a_selection_looks_at_its_own_times_and_channels(tmp_path: Path) -> None:
    values = np.full((3, 2, 2, 4, 4), FILL, np.uint16)
    values[2, 1] = 1
    write(tmp_path / "a.zarr", values, (1, 1, 2, 4, 4))
    whole = Box.whole((2, 4, 4))
    selected = known(open_volume(tmp_path / "a.zarr", timepoints=[0, 2], channels=[1]))
    assert [selected.empty(t, 0, whole) for t in (0, 1)] == [True, False]
    every = known(open_volume(tmp_path / "a.zarr"))
    assert [[every.empty(t, c, whole) for c in (0, 1)] for t in range(3)] == [
        [True, True],
        [True, True],
        [True, False],
    ]


@pytest.mark.parametrize(("dtype", "fill"), [("uint16", 9), ("float32", 2.5), ("int16", -3)])
def test_the_fill_value(tmp_path: Path, dtype: str, fill: float) -> None:
    write(tmp_path / "a.zarr", np.full((4, 4), fill, dtype), (2, 2), fill_value=fill)
    stored = known(open_volume(tmp_path / "a.zarr"))
    assert stored.fill_value == fill
    assert stored.empty(0, 0, Box.whole((1, 4, 4)))


def test_a_fill_value_that_is_not_declared_reads_as_zero(tmp_path: Path) -> None:
    zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(4, 4), chunks=(2, 2), dtype="u2", zarr_format=2,
        fill_value=None,
    )  # fmt: skip
    volume = open_volume(tmp_path / "a.zarr")
    assert known(volume).fill_value == 0
    assert not volume.read(0, 0, Box.whole((1, 4, 4))).any()


def test_nan_as_fill_value(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr", np.ones((2, 4), "f4"), (2, 2), fill_value=np.nan)
    assert np.isnan(known(open_volume(tmp_path / "a.zarr")).fill_value)


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """An array inside a group, of which the first half is stored."""
    values = np.full((4, 4, 8), FILL, np.uint16)
    values[:2] = 1
    zarr.create_group(str(tmp_path / "g.zarr"))
    write(tmp_path / "g.zarr" / "image" / "0", values, (2, 2, 2))
    return tmp_path / "g.zarr" / "image" / "0"


HALF = [Box.whole((2, 4, 8)), Box((2, 0, 0), (4, 4, 8))]


def test_what_is_no_object_is_not_taken_for_one(half: Path) -> None:
    """Leftovers of writers, of a larger array, and of other programs."""
    for name in (
        "c/1/0/0.5f3e.partial",
        "c/7/0/0",
        "c/1/0/x",
        "c/1/0/.DS_Store",
        "d/1/0/0",
        "1/0/0",
    ):
        (half / name).parent.mkdir(parents=True, exist_ok=True)
        (half / name).write_bytes(b"")
    stored = known(open_volume(half))
    assert [stored.empty(0, 0, box) for box in HALF] == [False, True]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_zip_file(half: Path, tmp_path: Path, wrapped: bool) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        for file in sorted(p for p in half.parent.parent.rglob("*") if p.is_file()):
            name = file.relative_to(half.parents[2 if wrapped else 1]).as_posix()
            content.write(file, name)
    stored = known(open_volume(archive / "image" / "0"))
    assert [stored.empty(0, 0, box) for box in HALF] == [False, True]


@pytest.fixture
def remote() -> str:
    pytest.importorskip("fsspec")
    url = "memory://occupancy/a.zarr"
    values = np.full((4, 4, 8), FILL, np.uint16)
    values[:2] = 1
    write(url, values, (2, 2, 2))
    return url


def test_a_url_is_listed(remote: str) -> None:
    stored = known(open_volume(remote))
    assert [stored.empty(0, 0, box) for box in HALF] == [False, True]


def test_a_store_that_does_not_list_is_not_taken_for_empty(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = open_volume(remote)

    async def nothing(*_: Any) -> dict[str, int]:
        return {}

    monkeypatch.setattr(RemoteStore, "sizes", nothing)
    assert stored_cells(volume) is None


def test_a_store_that_refuses_to_list(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = open_volume(remote)

    async def refused(*_: Any) -> dict[str, int]:
        raise InputError("access is denied")

    monkeypatch.setattr(RemoteStore, "sizes", refused)
    assert stored_cells(volume) is None


def test_a_folder_that_cannot_be_listed(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = open_volume(half)
    scan = os.scandir

    def refused(folder: Any) -> Any:
        if Path(folder).name == "1":
            raise PermissionError(folder)
        return scan(folder)

    monkeypatch.setattr(occupancy, "os", SimpleNamespace(scandir=refused))
    assert stored_cells(volume) is None


def test_links_are_followed(half: Path, tmp_path: Path) -> None:
    shutil.move(half / "c" / "0", tmp_path / "elsewhere")
    (half / "c" / "0").symlink_to(tmp_path / "elsewhere")
    (half / "c" / "1").mkdir()
    (half / "c" / "1" / "loop").symlink_to(half)
    stored = known(open_volume(half))
    assert [stored.empty(0, 0, box) for box in HALF] == [False, True]


def test_tiff_and_huge_grids_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 8, 8), np.uint16))
    assert stored_cells(open_volume(tmp_path / "a.tif")) is None
    huge = (2**9, 2**9, 2**7)
    zarr.create_array(str(tmp_path / "h.zarr"), shape=huge, chunks=(1, 1, 1), dtype="u1")
    assert stored_cells(open_volume(tmp_path / "h.zarr")) is None
    less = (2**9, 2**9, 2**6)
    zarr.create_array(str(tmp_path / "l.zarr"), shape=less, chunks=(1, 1, 1), dtype="u1")
    assert not known(open_volume(tmp_path / "l.zarr")).stored.any()


def test_behind_a_url_fewer_are_listed(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = open_volume(remote)
    monkeypatch.setattr(occupancy, "MOST_REMOTE", 16)
    assert known(volume).stored.size == 16
    monkeypatch.setattr(occupancy, "MOST_REMOTE", 15)
    assert stored_cells(volume) is None
