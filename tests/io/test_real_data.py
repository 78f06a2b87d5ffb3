"""Images that other software wrote: axes, sizes and every voxel."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, grid_cell, grid_indices
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import InputWarning, Volume

pytestmark = pytest.mark.data

UM, S = "micrometer", "second"

# store, array, axes, units, scale, translation, shape, dtype, chunk, shard, codec, format, levels
ZARRS = [
    ("idr6001240_v05_sharded.zarr", "2", "czyx", (None, UM, UM, UM),
     (1.0, 0.5002025531914894, 1.4415926138560835, 1.4415926138560835), (0, 0, 0, 0),
     (2, 236, 68, 67), "uint16", (1, 256, 256), (10, 512, 512), "blosc-zstd", "OME-Zarr 0.5",
     ["2"]),
    ("tubhiswt_tczyx_v04.zarr", "0", "tczyx", (S, None, UM, UM, UM),
     (1, 1, 1, 1, 1), (0, 0, 0, 0, 0),
     (3, 1, 2, 512, 512), "uint8", (1, 256, 512), None, "blosc-lz4", "OME-Zarr 0.4",
     ["0", "1", "2"]),
    ("bioformats2raw_mitotic_tczyx_v04.ome.zarr", "0/0", "tczyx", (S, None, UM, UM, UM),
     (1.0, 1.0, 3.0, 0.08519643016734027, 0.08519643016734027), (0, 0, 0, 0, 0),
     (1, 1, 6, 263, 263), "uint8", (1, 96, 96), None, "blosc-lz4", "OME-Zarr 0.4",
     ["0/0", "0/1"]),
    ("mobie_mri_zyx_gzip_v04.ome.zarr", "s0", "zyx", (None, None, None),
     (1, 1, 1), (0, 0, 0),
     (27, 226, 186), "uint8", (27, 186, 186), None, "gzip", "OME-Zarr 0.4",
     ["s0", "s1"]),
    ("omezarrpy_v01_flat.zarr", "0", "tczyx", (None,) * 5,
     (1, 1, 1, 1, 1), (0, 0, 0, 0, 0),
     (1, 2, 1, 16, 16), "uint8", (1, 128, 128), None, "blosc-lz4", "OME-Zarr 0.1",
     ["0"]),
    ("neuroglancer_simple_v04.zarr", "scale0/image", "yx", ("nanometer", "nanometer"),
     (4, 30), (0, 0),
     (10, 10), "uint16", (1, 10, 10), None, "blosc-lz4", "OME-Zarr 0.4",
     ["scale0/image", "scale1/image", "scale2/image"]),
    ("java_5d_v05_zstd.ome.zarr", "0", "tczyx", (None,) * 5,
     (1, 1, 1, 1, 1), (0, 0, 0, 0, 0),
     (4, 3, 16, 64, 64), "uint8", (16, 64, 64), None, "zstd", "OME-Zarr 0.5",
     ["0", "1"]),
    ("java_pyramid_zyx_v04.zarr", "0", "zyx", (None,) * 3,
     (1, 1, 1), (0, 0, 0),
     (500, 1000, 1000), "uint8", (125, 250, 250), None, "blosc-zstd", "OME-Zarr 0.4",
     ["0", "1", "2"]),
]  # fmt: skip

# store, level, array, scale, translation
LEVELS = [
    ("mobie_mri_zyx_gzip_v04.ome.zarr", "s1", "s1", (2, 2, 2), (0.5, 0.5, 0.5)),
    ("mobie_mri_zyx_gzip_v04.ome.zarr", 1, "s1", (2, 2, 2), (0.5, 0.5, 0.5)),
    ("neuroglancer_simple_v04.zarr", "scale2/image", "scale2/image", (16, 120), (6, 45)),
    ("neuroglancer_simple_v04.zarr", 1, "scale1/image", (8, 60), (2, 15)),
    ("tubhiswt_tczyx_v04.zarr", "2", "2", (1, 1, 1, 4, 4), (0,) * 5),
    ("java_pyramid_zyx_v04.zarr", 2, "2", (2, 4, 4), (0, 0, 0)),
    ("java_5d_v05_zstd.ome.zarr", "1", "1", (1, 1, 2, 2, 2), (0,) * 5),
    ("bioformats2raw_mitotic_tczyx_v04.ome.zarr", "1", "0/1",
     (1.0, 1.0, 3.0, 0.17039286033468054, 0.17039286033468054), (0,) * 5),
]  # fmt: skip

TIFFS = {
    "mousebrain_atlas_clean.tif": ("zyx", (270, 193, 271), "uint16"),
    "mousebrain_signal.tif": ("zyx", (30, 510, 667), "uint16"),
    "mousebrain_background.tif": ("zyx", (30, 510, 667), "uint16"),
    "lateralroot_nuclei_lightsheet.tif": ("zyx", (80, 160, 160), "uint8"),
    "organoid_lowsnr.tif": ("zyx", (44, 123, 131), "uint16"),
    "ovule_nuclei_confocal.tif": ("zyx", (100, 100, 100), "uint8"),
    "chromosomes.tif": ("zyx", (40, 152, 126), "uint16"),
    "nuclear_envelope.tif": ("zyx", (14, 224, 305), "uint8"),
    "dendrite_correlated_noise.tif": ("zyx", (65, 1024, 1024), "uint8"),
    "lightsheet_timelapse_tzyx.tif": ("tzyx", (46, 19, 172, 172), "uint16"),
}


def in_order(stored: np.ndarray, axes: str) -> np.ndarray:
    """The array as (t, c, z, y, x)."""
    ordered = stored.transpose([axes.index(name) for name in "tczyx" if name in axes])
    missing = [i for i, name in enumerate("tczyx") if name not in axes]
    return np.expand_dims(ordered, missing)


def read_all(volume: Volume, cell: tuple[int, int, int]) -> np.ndarray:
    whole = np.zeros(volume.shape, volume.dtype)
    for t in range(volume.shape[0]):
        for c in range(volume.shape[1]):
            for index in grid_indices(volume.spatial_shape, cell):
                box = grid_cell(index, cell, volume.spatial_shape)
                whole[(t, c, *box.slices)] = volume.read(t, c, box)
    return whole


def test_the_tables_name_everything_there_is(data_dir: Path) -> None:
    stores = {p.name for p in (data_dir / "ome_zarr").iterdir()}
    assert {row[0] for row in ZARRS} | {"bioimagetools_invalid_v04"} == stores
    assert set(TIFFS) == {p.name for p in (data_dir / "volumes").glob("*.tif")}


@pytest.mark.parametrize("row", ZARRS, ids=[row[0] for row in ZARRS])
def test_an_ome_zarr_says_what_it_is(data_dir: Path, row: tuple) -> None:
    (store, array, axes, units, scale, translation,
     shape, dtype, chunk, shard, codec, form, levels) = row  # fmt: skip
    volume = open_volume(data_dir / "ome_zarr" / store)
    assert volume.address == str(data_dir / "ome_zarr" / store)
    assert volume.array_path == array
    assert "".join(volume.axis_names) == axes
    assert tuple(axis.unit for axis in volume.axes) == units
    assert tuple(axis.scale for axis in volume.axes) == scale
    assert tuple(axis.translation for axis in volume.axes) == translation
    assert (volume.stored_shape, volume.dtype) == (shape, dtype)
    assert (volume.chunk, volume.shard, volume.codec) == (chunk, shard, codec)
    assert volume.format == form
    assert [level.path for level in volume.levels] == levels
    assert json.loads(json.dumps(volume.describe()))["shape"] == list(shape)


@pytest.mark.parametrize("row", ZARRS, ids=[row[0] for row in ZARRS])
def test_an_ome_zarr_gives_its_voxels(data_dir: Path, row: tuple) -> None:
    store, array, axes = row[:3]
    volume = open_volume(data_dir / "ome_zarr" / store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = zarr.open_array(str(data_dir / "ome_zarr" / store / array), mode="r")
    if stored.size > 10**8:  # a corner is enough of a big one
        box = Box((490, 900, 950), (500, 1000, 1000))
        np.testing.assert_array_equal(volume.read(0, 0, box), stored[box.slices])
        return
    whole = in_order(stored[:], axes)
    z, y, x = volume.spatial_shape
    cell = (max(1, z // 2), max(1, y // 2 + 1), max(1, 2 * x // 3))
    np.testing.assert_array_equal(read_all(volume, cell), whole)


@pytest.mark.parametrize("row", LEVELS, ids=[f"{row[0]}-{row[1]}" for row in LEVELS])
def test_a_level_has_its_own_scale(data_dir: Path, row: tuple) -> None:
    store, level, array, scale, translation = row
    volume = open_volume(data_dir / "ome_zarr" / store, level=level)
    assert volume.array_path == array
    assert tuple(axis.scale for axis in volume.axes) == scale
    assert tuple(axis.translation for axis in volume.axes) == translation
    through_path = open_volume(data_dir / "ome_zarr" / store / array)
    assert through_path == volume


def test_the_level_named_two_is_no_position(data_dir: Path) -> None:
    store = data_dir / "ome_zarr" / "idr6001240_v05_sharded.zarr"
    assert open_volume(store, level="2") == open_volume(store, level=0) == open_volume(store)
    with pytest.raises(InputError, match=r"no level 2; its levels are 0: '2'"):
        open_volume(store, level=2)
    with pytest.raises(InputError, match=r"no level '0'; its levels are 0: '2'"):
        open_volume(store, level="0")


def test_omero_comes_along(data_dir: Path) -> None:
    volume = open_volume(data_dir / "ome_zarr" / "idr6001240_v05_sharded.zarr")
    assert volume.omero is not None
    assert [c["label"] for c in volume.omero["channels"]] == ["LaminB1", "Dapi"]


def test_series_of_bioformats2raw(data_dir: Path) -> None:
    store = data_dir / "ome_zarr" / "bioformats2raw_mitotic_tczyx_v04.ome.zarr"
    volume = open_volume(store)
    assert volume.name == "xyz_8bit__mitotic_plate_calibrated.tif"
    assert open_volume(store, series=0) == open_volume(store / "0") == volume
    with pytest.raises(InputError, match="no series 1; its series are '0'"):
        open_volume(store, series=1)
    with pytest.raises(InputError, match="give the path"):
        open_volume(store / "OME")


# store, any_dtype, message of the error (or None where it opens with a warning)
INVALID = [
    ("image-01.zarr", False, "no multiscales, and it holds nothing"),
    ("image-02.zarr", False, "an empty list of multiscales"),
    ("image-03.zarr", False, "names dataset '0', which cannot be opened"),
    ("image-04.zarr", False, "float64.*convert it to float32"),
    ("image-04.zarr", True, None),
]


@pytest.mark.parametrize(("store", "any_dtype", "message"), INVALID)
def test_invalid_metadata_is_refused_or_warned_of(
    data_dir: Path, store: str, any_dtype: bool, message: str | None
) -> None:
    path = data_dir / "ome_zarr" / "bioimagetools_invalid_v04" / store
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if message is None:
            volume = open_volume(path, any_dtype=any_dtype)
            assert volume.stored_shape == (2, 64, 64)
            assert [w.category for w in caught] == [InputWarning]
            assert "level '1' is left out" in str(caught[0].message)
        else:
            with pytest.raises(InputError, match=message):
                open_volume(path, any_dtype=any_dtype)


@pytest.mark.parametrize("name", TIFFS)
def test_a_tiff_gives_axes_and_voxels(data_dir: Path, name: str) -> None:
    axes, shape, dtype = TIFFS[name]
    volume = open_volume(data_dir / "volumes" / name)
    assert ("".join(volume.axis_names), volume.stored_shape, volume.dtype) == (axes, shape, dtype)
    assert (volume.kind, volume.codec) == ("tiff", "adobe_deflate")
    whole = in_order(tifffile.imread(data_dir / "volumes" / name), axes)
    if "t" in axes:
        volume, whole = open_volume(data_dir / "volumes" / name, timepoints=[45, 7]), whole[[45, 7]]
    z, y, x = volume.spatial_shape
    np.testing.assert_array_equal(read_all(volume, (z // 2 + 1, y, x // 2)), whole)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_box_of_a_sharded_volume(data_dir: Path, data: st.DataObject) -> None:
    path = data_dir / "ome_zarr" / "idr6001240_v05_sharded.zarr"
    volume = open_volume(path)
    whole = zarr.open_array(str(path / "2"), mode="r")
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in volume.spatial_shape]
    box = Box(*map(tuple, zip(*ends, strict=True)))
    np.testing.assert_array_equal(volume.read(0, 1, box), whole[(1, *box.slices)])
