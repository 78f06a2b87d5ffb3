"""Whatever the layout of a zarr on the disk, the same voxels come out."""

from __future__ import annotations

import multiprocessing
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import InputWarning, Volume

WHOLE = np.random.default_rng(0).integers(0, 60000, (2, 3, 7, 20, 30)).astype("uint16")
"""(t, c, z, y, x)"""


def arranged(axes: str) -> np.ndarray:
    """WHOLE with the axes in another order; one that is left out is taken at 0."""
    taken = WHOLE[tuple(slice(None) if name in axes else 0 for name in "tczyx")]
    present = [name for name in "tczyx" if name in axes]
    return taken.transpose([present.index(name) for name in axes])


def write(path: Path, data: np.ndarray, **options: Any) -> Path:
    chunks = options.pop("chunks", tuple(min(n, 8) for n in data.shape))
    array = zarr.create_array(
        str(path), shape=data.shape, dtype=data.dtype, chunks=chunks, **options
    )
    array[...] = data
    return path


def multiscale(axes: str, **more: Any) -> dict[str, Any]:
    """OME-Zarr 0.5 attributes with one level, '0'."""
    scale = [{"type": "scale", "scale": [1.0] * len(axes)}]
    entry = {
        "axes": [{"name": name} for name in axes],
        "datasets": [{"path": "0", "coordinateTransformations": scale}],
    }
    return {"ome": {"version": "0.5", "multiscales": [entry | more]}}


def image(path: Path, axes: str, **options: Any) -> Path:
    """An OME-Zarr of WHOLE with the given stored axes."""
    attributes = multiscale(axes)
    if options.get("zarr_format") == 2:
        attributes = attributes["ome"]
    zarr.create_group(str(path), zarr_format=options.get("zarr_format", 3), attributes=attributes)
    write(path / "0", arranged(axes), **options)
    return path


LAYOUTS = {
    "v2 dots": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "."}},
    "v2 slashes": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2 F order": {"zarr_format": 2, "order": "F"},
    "v2 uncompressed": {"zarr_format": 2, "compressors": None},
    "v3 slashes": {},
    "v3 dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 v2 keys": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v3 sharded": {"chunks": (1, 1, 3, 5, 5), "shards": (1, 1, 6, 10, 10)},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    volume = open_volume(image(tmp_path / "i.zarr", "tczyx", **LAYOUTS[name]))
    assert volume.shape == WHOLE.shape
    box = Box((1, 3, 2), (7, 20, 29))
    np.testing.assert_array_equal(volume.read(1, 2, box), WHOLE[(1, 2, *box.slices)])
    assert volume.shard == ((6, 10, 10) if name == "v3 sharded" else None)
    assert volume.describe()["stored_bytes"] > 0


@pytest.mark.parametrize("axes", ["xyz", "zxy", "tzcyx", "xyzct", "yx", "xy", "cyx", "zyxc"])
def test_any_stored_order_is_read_as_zyx(tmp_path: Path, axes: str) -> None:
    volume = open_volume(image(tmp_path / "i.zarr", axes))
    assert "".join(volume.axis_names) == axes
    expected = np.expand_dims(
        arranged("".join(n for n in "tczyx" if n in axes)),
        [i for i, n in enumerate("tczyx") if n not in axes],
    )
    assert volume.shape == expected.shape
    last = (volume.shape[0] - 1, volume.shape[1] - 1)
    voxels = volume.read(*last, Box.whole(volume.spatial_shape))
    assert voxels.flags.c_contiguous
    assert voxels.flags.writeable
    np.testing.assert_array_equal(voxels, expected[last])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_box_in_any_order(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    axes = data.draw(st.sampled_from(["zyx", "xzy", "yxz"]))
    if not (folder / f"{axes}.zarr").exists():
        image(folder / f"{axes}.zarr", axes)
    volume = open_volume(folder / f"{axes}.zarr")
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in (7, 20, 30)]
    box = Box(*map(tuple, zip(*ends, strict=True)))
    np.testing.assert_array_equal(volume.read(0, 0, box), WHOLE[(0, 0, *box.slices)])


@pytest.mark.parametrize("dtype", [">u2", ">i2", ">f4", "<u2", "u1"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_voxels_come_in_the_native_byte_order(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    data = (WHOLE[0, 0] // 250).astype(dtype)
    volume = open_volume(write(tmp_path / "a.zarr", data, zarr_format=zarr_format))
    voxels = volume.read(0, 0, Box.whole((7, 20, 30)))
    assert volume.dtype == np.dtype(dtype).name
    assert voxels.dtype == np.dtype(dtype).newbyteorder("=")
    assert voxels.dtype.isnative
    np.testing.assert_array_equal(voxels, data)


@pytest.mark.parametrize("axes", ["yx", "zyx", "czyx", "tczyx"])
def test_a_plain_array_has_the_usual_axes(tmp_path: Path, axes: str) -> None:
    volume = open_volume(write(tmp_path / "a.zarr", arranged(axes)))
    assert "".join(volume.axis_names) == axes
    assert volume.format == "zarr v3"
    assert volume.voxel_size == (1.0, 1.0, 1.0)
    assert volume.array_path == ""


def test_a_plain_array_may_name_its_dimensions(tmp_path: Path) -> None:
    named = write(tmp_path / "3.zarr", arranged("tzyx"), dimension_names=["T", "z", "y", "x"])
    assert open_volume(named).axis_names == ("t", "z", "y", "x")
    odd = write(tmp_path / "4.zarr", arranged("tzyx"), dimension_names=["a", None, "y", "x"])
    assert open_volume(odd).axis_names == ("c", "z", "y", "x")
    xarray = {"_ARRAY_DIMENSIONS": ["time", "z", "y", "x"]}
    old = write(tmp_path / "2.zarr", arranged("tzyx"), zarr_format=2, attributes=xarray)
    assert open_volume(old).axis_names == ("t", "z", "y", "x")


def test_chunks_that_are_not_stored_read_as_the_fill_value(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(8, 8, 8), dtype="u1", chunks=(4, 4, 4),
                      fill_value=7)  # fmt: skip
    volume = open_volume(tmp_path / "a.zarr")
    assert (volume.read(0, 0, Box.whole((8, 8, 8))) == 7).all()


def test_the_only_array_in_a_group_is_opened(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "g.zarr"))
    write(tmp_path / "g.zarr" / "data", WHOLE[0, 0])
    with pytest.warns(InputWarning, match="its one array 'data' is opened"):
        volume = open_volume(tmp_path / "g.zarr")
    assert volume.array_path == "data"
    assert volume.spatial_shape == (7, 20, 30)
    write(tmp_path / "g.zarr" / "more", WHOLE[0, 0])
    with pytest.raises(InputError, match="it holds 'data', 'more'"):
        open_volume(tmp_path / "g.zarr")
    assert open_volume(tmp_path / "g.zarr" / "more").array_path == "more"


def test_a_path_into_a_hierarchy_finds_the_metadata_above(tmp_path: Path) -> None:
    root = tmp_path / "project.zarr"
    zarr.create_group(str(root))
    image(root / "day1", "xyz")
    by_group, by_array = open_volume(root / "day1"), open_volume(root / "day1" / "0")
    assert by_group == by_array
    assert by_group.address == str(root)
    assert by_group.array_path == "day1/0"
    assert by_group.axis_names == ("x", "y", "z")
    with pytest.raises(InputError, match="leads to level '0' already"):
        open_volume(root / "day1" / "0", level=0)
    with pytest.raises(InputError, match="it holds 'day1'"):
        open_volume(root)


def test_a_plate_is_refused(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "p.zarr"), attributes={"ome": {"plate": {"wells": []}}})
    with pytest.raises(InputError, match=r"is a plate with many images: .*A/1/0"):
        open_volume(tmp_path / "p.zarr")


@pytest.mark.parametrize("listed", [True, False])
def test_series(tmp_path: Path, listed: bool) -> None:
    root = tmp_path / "b.zarr"
    layout = {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
    zarr.create_group(str(root), attributes=layout)
    image(root / "0", "zyx")
    image(root / "10", "tzyx")
    image(root / "2", "czyx")
    if listed:
        zarr.create_group(str(root / "OME"), attributes={"ome": {"series": ["2", "0"]}})
    order = ["2", "0"] if listed else ["0", "2", "10"]
    paths = [open_volume(root, series=n).array_path for n in range(len(order))]
    assert paths == [f"{name}/0" for name in order]
    assert open_volume(root).array_path == paths[0]
    with pytest.raises(InputError, match=f"no series 9; its series are '{order[0]}'"):
        open_volume(root, series=9)
    with pytest.raises(InputError, match="no series 1: it is a single image"):
        open_volume(root / "0", series=1)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_zip_file(tmp_path: Path, wrapped: bool) -> None:
    image(tmp_path / "i.zarr", "zyx")
    with zipfile.ZipFile(tmp_path / "i.zarr.zip", "w") as archive:
        for file in sorted((tmp_path / "i.zarr").rglob("*")):
            if file.is_file():
                base = tmp_path if wrapped else tmp_path / "i.zarr"
                archive.write(file, file.relative_to(base).as_posix())
    volume = open_volume(tmp_path / "i.zarr.zip")
    np.testing.assert_array_equal(volume.read(0, 0, Box.whole((7, 20, 30))), WHOLE[0, 0])
    assert open_volume(tmp_path / "i.zarr.zip" / "0") == volume
    assert volume.describe()["stored_bytes"] == (tmp_path / "i.zarr.zip").stat().st_size
    with pytest.raises(InputError, match="holds no zarr array or group"):
        open_volume(tmp_path / "i.zarr.zip" / "nope")


def _read_pickled(pickled: bytes) -> np.ndarray:
    volume: Volume = pickle.loads(pickled)
    return volume.read(1, 1, Box((0, 0, 0), (2, 3, 4)))


def test_a_volume_travels_to_another_process(tmp_path: Path) -> None:
    volume = open_volume(image(tmp_path / "i.zarr", "tczyx"), timepoints=[1, 0], channels=[0, 2])
    here = volume.read(1, 1, Box((0, 0, 0), (2, 3, 4)))
    assert pickle.loads(pickle.dumps(volume)) == volume
    assert len(pickle.dumps(volume)) < 4000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_read_pickled, (pickle.dumps(volume),))
    np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(here, WHOLE[0, 2, :2, :3, :4])


def test_an_array_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    volume = open_volume(write(tmp_path / "a.zarr", WHOLE[0, 0]))
    box = Box((0, 0, 0), (2, 2, 2))
    volume.read(0, 0, box)
    write(tmp_path / "a.zarr", WHOLE[0, 0, :5].astype("f4"), overwrite=True)
    again = open_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(again.read(0, 0, box), WHOLE[0, 0, :2, :2, :2])
    fresh = pickle.loads(pickle.dumps(volume))
    object.__setattr__(fresh, "digest", "another process has nothing open")
    with pytest.raises(InputError, match=r"was uint16 \(7, 20, 30\).*open it again"):
        fresh.read(0, 0, box)


def test_a_chunk_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", WHOLE[0, 0], zarr_format=2)
    (path / "0.0.1").write_bytes(b"torn")
    volume = open_volume(path)
    volume.read(0, 0, Box((0, 0, 0), (7, 8, 8)))
    with pytest.raises(InputError, match=r"a.zarr: cannot read box \(0, 0, 5\) to \(1, 1, 9\)"):
        volume.read(0, 0, Box((0, 0, 5), (1, 1, 9)))
