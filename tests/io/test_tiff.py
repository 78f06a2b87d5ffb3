"""TIFF files and folders of planes: axes, sizes and voxels."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box
from n2v_scale.io.arrays import opened_array
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import InputWarning

STACK = np.random.default_rng(0).integers(0, 60000, (6, 20, 30)).astype("u2")
BOX = Box((1, 3, 2), (5, 20, 29))


def holds_stack(path: Path, **options: Any) -> bool:
    volume = open_volume(path, **options)
    return np.array_equal(volume.read(0, 0, BOX), STACK[BOX.slices])


LAYOUTS = [
    {},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"bigtiff": True, "byteorder": ">"},
    {"imagej": True},
    {"ome": True},
    {"metadata": None},
    {"photometric": "minisblack"},
    {"compression": "zlib"},
    {"compression": "lzw", "predictor": 2},
    {"compression": "zstd", "byteorder": ">"},
    {"tile": (16, 16)},
    {"tile": (16, 16), "compression": "zlib"},
    {"rowsperstrip": 3, "compression": "zlib"},
    {"contiguous": False},
]


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_layouts(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, **{"metadata": {"axes": "ZYX"}} | options)
    volume = open_volume(tmp_path / "a.tif")
    assert (volume.axis_names, volume.dtype) == (("z", "y", "x"), "uint16")
    assert volume.chunk == (1, 20, 30)
    assert volume.codec == {"zlib": "adobe_deflate"}.get(
        options.get("compression", "none"), options.get("compression", "none")
    )
    voxels = volume.read(0, 0, BOX)
    assert voxels.dtype.isnative
    assert voxels.flags.c_contiguous
    assert type(voxels) is np.ndarray
    np.testing.assert_array_equal(voxels, STACK[BOX.slices])
    voxels[...] = 0  # nobody else's
    np.testing.assert_array_equal(volume.read(0, 0, BOX), STACK[BOX.slices])


def test_whole_strips_are_decoded_where_they_are_large(tmp_path: Path) -> None:
    data = np.arange(2 * 512 * 512, dtype="u4").reshape(2, 512, 512).astype("f4")
    tifffile.imwrite(tmp_path / "a.tif", data, compression="zlib", tile=(256, 256))
    volume = open_volume(tmp_path / "a.tif")
    box = Box((0, 100, 300), (2, 400, 400))
    np.testing.assert_array_equal(volume.read(0, 0, box), data[box.slices])


def test_uncompressed_files_are_mapped(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK)
    volume = open_volume(tmp_path / "a.tif")
    array = opened_array("tiff", volume.address, "", volume.digest)
    assert type(array).__name__ == "MappedArray"


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((4, 5, 6), "QYX", "zyx"), ((4, 5, 6), "IYX", "zyx"), ((4, 5, 6), "TYX", "tyx"),
        ((5, 6), "YX", "yx"), ((2, 3, 5, 6), "ZCYX", "zcyx"), ((2, 3, 4, 5, 6), "TZCYX", "tzcyx"),
        ((4, 5, 6, 3), "ZYXS", "zyxc"), ((5, 6, 3), "YXS", "yxc"), ((4, 2, 5, 6), "QCYX", "zcyx"),
    ],
)  # fmt: skip
def test_letters(tmp_path: Path, shape: tuple, axes: str, expected: str) -> None:
    data = np.random.default_rng(0).integers(0, 255, shape).astype("u1")
    photometric = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": axes}, photometric=photometric)
    volume = open_volume(tmp_path / "a.tif")
    assert "".join(volume.axis_names) == expected
    last = (volume.shape[0] - 1, volume.shape[1] - 1)
    index = {"t": last[0], "c": last[1]}
    want = data[tuple(index.get(name, slice(None)) for name in expected)]
    got = volume.read(*last, Box.whole(volume.spatial_shape))
    np.testing.assert_array_equal(got, want.reshape(got.shape))


@pytest.mark.parametrize(("axes", "unclear"), [("QIYX", "Q, I"), ("ZQYX", "Q"), ("AZYX", "A")])
def test_letters_that_are_not_clear(tmp_path: Path, axes: str, unclear: str) -> None:
    data = np.zeros((2, 3, 5, 6), "u1")
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": axes}, photometric="minisblack")
    with pytest.raises(InputError, match=rf"what {unclear} is cannot be told: .*axes='tczyx'"):
        open_volume(tmp_path / "a.tif")
    assert open_volume(tmp_path / "a.tif", axes="tzyx").shape == (2, 1, 3, 5, 6)
    with pytest.raises(InputError, match="3 axes"):
        open_volume(tmp_path / "a.tif", axes="zyx")


def test_imagej_sizes(tmp_path: Path) -> None:
    data = np.zeros((2, 6, 3, 20, 30), "u2")
    notes = {"axes": "TZCYX", "spacing": 2.5, "unit": "um", "finterval": 30.0}
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, resolution=(4, 2), metadata=notes)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.format == "ImageJ TIFF"
    assert volume.shape == (2, 3, 6, 20, 30)
    assert volume.voxel_size == (2.5, 0.5, 0.25)
    assert [axis.unit for axis in volume.axes] == [
        "second", "micrometer", None, "micrometer", "micrometer"
    ]  # fmt: skip
    assert volume.axis("t").scale == 30.0


def test_ome_sizes(tmp_path: Path) -> None:
    notes = {
        "axes": "CZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 200.0, "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm",
    }  # fmt: skip
    data = np.zeros((2, 6, 20, 30), "u2")
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=notes)
    volume = open_volume(tmp_path / "a.ome.tif")
    assert (volume.format, volume.axis_names) == ("OME-TIFF", ("c", "z", "y", "x"))
    assert volume.voxel_size == (2.0, 200.0, 0.1)
    assert [axis.unit for axis in volume.axes] == [None, "micrometer", "nanometer", "micrometer"]


@pytest.mark.parametrize(("unit", "size"), [("CENTIMETER", 5.0), ("INCH", 1.0), ("NONE", 1.0)])
def test_resolution_tags(tmp_path: Path, unit: str, size: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, resolution=(2000, 2000), resolutionunit=unit)
    volume = open_volume(tmp_path / "a.tif")
    assert volume.voxel_size == (1.0, size, size)
    assert volume.axis("x").unit == ("micrometer" if unit == "CENTIMETER" else None)


@pytest.mark.filterwarnings("ignore::n2v_scale.io.volume.InputWarning")
def test_odd_sizes_are_warned_of(tmp_path: Path) -> None:
    notes = {"axes": "ZYX", "spacing": 0.0, "unit": "furlong"}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(4, 4), metadata=notes)
    with pytest.warns(InputWarning, match="0.0 along z makes no sense") as caught:
        volume = open_volume(tmp_path / "a.tif")
    assert sum("'furlong' is no unit" in str(w.message) for w in caught) == 3  # z, y, x
    assert volume.voxel_size == (1.0, 0.25, 0.25)


def test_series(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(STACK[0], metadata={"axes": "YX"})
        tif.write(STACK, metadata={"axes": "ZYX"})
    assert open_volume(tmp_path / "a.tif").spatial_shape == (1, 20, 30)
    volume = open_volume(tmp_path / "a.tif", series=1)
    assert volume.array_path == "1"
    assert holds_stack(tmp_path / "a.tif", series=1)
    with pytest.raises(InputError, match=r"no series 2; it holds 0: YX \(20, 30\); 1: .YX \(6,"):
        open_volume(tmp_path / "a.tif", series=2)
    with pytest.raises(InputError, match="has one level, 0, and level 1"):
        open_volume(tmp_path / "a.tif", level=1)


def test_a_pyramid_is_read_at_its_finest_level(tmp_path: Path) -> None:
    big = np.arange(256 * 256, dtype="u2").reshape(256, 256)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(big, subifds=1, tile=(64, 64), compression="zlib")
        tif.write(big[::2, ::2], subfiletype=1, tile=(64, 64), compression="zlib")
    volume = open_volume(tmp_path / "a.ome.tif")
    assert volume.spatial_shape == (1, 256, 256)
    np.testing.assert_array_equal(volume.read(0, 0, Box.whole((1, 256, 256)))[0], big)


@pytest.mark.filterwarnings("ignore::n2v_scale.io.volume.InputWarning")
@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
@pytest.mark.parametrize(
    "options",
    [{"imagej": True}, {}, {"ome": True}, {"metadata": None}, {"compression": "zlib"}],
    ids=str,
)
def test_a_file_that_was_cut_short(tmp_path: Path, options: dict[str, Any], part: float) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, **{"metadata": {"axes": "ZYX"}} | options)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(len(content) * part)])
    try:
        volume = open_volume(tmp_path / "a.tif")
    except InputError as exc:
        assert re.search("cut short|not a readable", str(exc))  # noqa: PT017
    else:  # only what stands behind the voxels was lost, or the loss shows when they are read
        assert volume.spatial_shape == STACK.shape
        try:
            voxels = volume.read(0, 0, Box.whole(STACK.shape))
        except InputError as exc:
            assert "cannot read box" in str(exc)  # noqa: PT017
        else:
            np.testing.assert_array_equal(voxels, STACK)


def test_a_hole_in_the_chain_of_pages(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata=None, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        page = tif.pages[2]
        after = page.offset + 2 + 12 * len(page.tags)
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(after)
        file.write(b"\xff\xff\xff\x7f")
    with pytest.raises(InputError, match="damaged or cut short"):
        open_volume(tmp_path / "a.tif")


def test_a_damaged_page_is_named_when_it_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[3].dataoffsets[0]
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 60)
    volume = open_volume(tmp_path / "a.tif")
    volume.read(0, 0, Box((0, 0, 0), (3, 5, 5)))
    with pytest.raises(InputError, match=r"cannot read box \(3, 0, 0\)"):
        volume.read(0, 0, Box((3, 0, 0), (4, 5, 5)))


def test_a_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    monkeypatch.setitem(vars(tifffile.TIFF), "DECOMPRESSORS", {})
    with pytest.raises(InputError, match="adobe_deflate, which needs imagecodecs: pip install"):
        open_volume(tmp_path / "a.tif")


def planes(folder: Path, names: list[str], data: np.ndarray = STACK, **options: Any) -> Path:
    folder.mkdir()
    for name, plane in zip(names, data, strict=True):
        tifffile.imwrite(folder / name, plane, **options)
    return folder


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}], ids=str)
def test_a_folder_of_planes(tmp_path: Path, options: dict[str, Any]) -> None:
    names = [f"day2_z{8 + n}.{'TIF' if n % 2 else 'tiff'}" for n in range(6)]  # z8 … z13
    folder = planes(tmp_path / "planes", names, **options)
    (folder / "notes.txt").write_text("not a plane")
    (folder / "._day2_z8.tif").write_text("not a plane either")
    with pytest.warns(InputWarning, match="one naming pattern"):  # tif and tiff
        assert holds_stack(folder)


def test_planes_carry_their_sizes_and_travel(tmp_path: Path) -> None:
    folder = planes(tmp_path / "planes", [f"{n}.tif" for n in range(6)],
                    resolution=(1e4, 1e4), resolutionunit="CENTIMETER")  # fmt: skip
    volume = pickle.loads(pickle.dumps(open_volume(folder)))
    assert volume.kind == "planes"
    assert volume.format == "folder of TIFF planes"
    assert volume.voxel_size == (1.0, 1.0, 1.0)
    assert volume.axis("x").unit == "micrometer"
    assert volume.describe()["stored_bytes"] > STACK.nbytes
    assert open_volume(folder, axes="tyx").shape == (6, 1, 1, 20, 30)


def test_coloured_planes_have_channels(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (4, 20, 30, 3)).astype("u1")
    folder = planes(tmp_path / "planes", [f"{n}.tif" for n in range(4)], colours,
                    photometric="rgb")  # fmt: skip
    volume = open_volume(folder)
    assert volume.shape == (1, 3, 4, 20, 30)
    np.testing.assert_array_equal(volume.read(0, 2, Box.whole((4, 20, 30))), colours[..., 2])


def test_a_folder_of_stacks_is_refused(tmp_path: Path) -> None:
    folder = planes(tmp_path / "stacks", ["1.tif", "2.tif"], np.stack([STACK, STACK]))
    with pytest.raises(InputError, match=r"1.tif holds QYX \(6, 20, 30\).*every file is one plane"):
        open_volume(folder)


@pytest.mark.parametrize("where", [1, 5])
@pytest.mark.parametrize("other", [STACK[0, :9], STACK[0].astype("f4")], ids=["shape", "dtype"])
def test_planes_that_differ_are_refused(tmp_path: Path, other: np.ndarray, where: int) -> None:
    folder = planes(tmp_path / "planes", [f"{n}.tif" for n in range(6)])
    tifffile.imwrite(folder / f"{where}.tif", other)
    with pytest.raises(InputError, match=rf"plane .*{where}.tif is .*: all planes must be alike"):
        open_volume(folder).read(0, 0, BOX)


def test_planes_of_two_channels_are_refused(tmp_path: Path) -> None:
    names = [f"{channel}_z{z}.tif" for channel in ("gfp", "rfp") for z in range(3)]
    folder = planes(tmp_path / "planes", names)
    with (
        pytest.raises(InputError, match="put the planes of each into a folder of its own"),
        pytest.warns(InputWarning, match="one naming pattern"),
    ):
        open_volume(folder)


def test_a_missing_plane_is_warned_of(tmp_path: Path) -> None:
    folder = planes(tmp_path / "planes", [f"z{n}.tif" for n in (1, 2, 3, 5, 6, 7)])
    with pytest.warns(InputWarning, match=r"1 plane\(s\) between 1 and 7 are missing"):
        open_volume(folder)


def test_numbers_that_are_no_count_are_no_gap(tmp_path: Path) -> None:
    folder = planes(tmp_path / "planes", [f"z{n * 25}.tif" for n in range(6)])
    assert holds_stack(folder)


@pytest.mark.parametrize("kind", ["mapped", "striped", "planes"])
def test_many_threads_read_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "planes":
        planes(path, [f"{n}.tif" for n in range(6)], compression="zlib")
    else:
        tifffile.imwrite(path, STACK, compression="zlib" if kind == "striped" else None)
    volume = open_volume(path)
    boxes = [Box((z, y, 0), (6, 20, 30)) for z in range(6) for y in range(10)]
    with ThreadPoolExecutor(8) as pool:
        for box, voxels in zip(boxes, pool.map(partial(volume.read, 0, 0), boxes), strict=True):
            np.testing.assert_array_equal(voxels, STACK[box.slices])
