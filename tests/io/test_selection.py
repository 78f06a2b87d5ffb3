"""What ``open_volume`` selects, and what it says when there is no such thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume

DATA = np.arange(3 * 4 * 2 * 5 * 6, dtype="u2").reshape(3, 4, 2, 5, 6)
WHOLE = Box.whole((2, 5, 6))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    zarr.create_array(str(tmp_path / "a.zarr"), data=DATA, chunks=(1, 1, 2, 5, 6))
    return tmp_path / "a.zarr"


@pytest.fixture
def pyramid(tmp_path: Path) -> Path:
    datasets = [{"path": "s0"}, {"path": "deep/s1"}]
    attributes = {"ome": {"version": "0.5", "multiscales": [{"datasets": datasets}]}}
    zarr.create_group(str(tmp_path / "p.zarr"), attributes=attributes)
    zarr.create_array(str(tmp_path / "p.zarr/s0"), data=DATA[0, 0], chunks=(2, 5, 6))
    zarr.create_array(str(tmp_path / "p.zarr/deep/s1"), data=DATA[0, 0, :, ::2], chunks=(2, 3, 6))
    return tmp_path / "p.zarr"


def test_everything_is_selected_unless_told(path: Path) -> None:
    volume = open_volume(path)
    assert (volume.timepoints, volume.channels) == ((0, 1, 2), (0, 1, 2, 3))
    assert volume.shape == (3, 4, 2, 5, 6)
    assert volume.size_bytes == DATA.nbytes


def test_channels_and_times_are_selected_in_the_order_asked(path: Path) -> None:
    volume = open_volume(path, channels=[3, 1], timepoints=slice(1, None))
    assert volume.shape == (2, 2, 2, 5, 6)
    np.testing.assert_array_equal(volume.read(0, 0, WHOLE), DATA[1, 3])
    np.testing.assert_array_equal(volume.read(1, 1, WHOLE), DATA[2, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [4]}, "no channel 4; it has 4: 0 to 3"),
        ({"channels": [-1]}, "no channel -1; it has 4: 0 to 3"),
        ({"channels": []}, "no channel is selected; it has 4"),
        ({"channels": [1, 1]}, "a channel is selected twice"),
        ({"timepoints": [0, 7]}, "no time point 7; it has 3: 0 to 2"),
        ({"timepoints": slice(5, 9)}, "no time point is selected; it has 3"),
        ({"level": 1}, "one array without levels, and level 1"),
        ({"level": "s0"}, "one array without levels, and level 's0'"),
        ({"series": 1}, "no series 1"),
        ({"axes": "zyx"}, r"3 axes \(z, y, x\) for 5 dimensions"),
        ({"axes": "tczyq"}, "make no sense"),
        ({"axes": "tczyy"}, "make no sense"),
        ({"axes": "tcz"}, "make no sense"),
        ({"voxel_size": (1, 1, 0)}, "three lengths above 0"),
        ({"voxel_size": (1, 1)}, "three lengths above 0"),
        ({"voxel_size": (1, 1, float("nan"))}, "three lengths above 0"),
    ],
)
def test_what_does_not_exist_is_listed(path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_volume(path, **options)


def test_without_a_channel_axis_there_is_channel_0(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "z.zarr"), data=DATA[0, 0])
    assert open_volume(tmp_path / "z.zarr", channels=[0], timepoints=[0]).channels == (0,)
    with pytest.raises(InputError, match="no channel 1; it has only 0"):
        open_volume(tmp_path / "z.zarr", channels=[1])


@pytest.mark.parametrize(
    ("level", "found"),
    [
        (None, "s0"), ("s0", "s0"), (0, "s0"),
        (1, "deep/s1"), ("1", "deep/s1"), ("deep/s1", "deep/s1"),
    ],
)  # fmt: skip
def test_a_level_is_a_name_or_a_position(
    pyramid: Path, level: str | int | None, found: str
) -> None:
    volume = open_volume(pyramid, level=level)
    assert volume.array_path == found
    assert len(volume.levels) == 2


@pytest.mark.parametrize("level", [2, -1, "2", "s9", ""])
def test_a_level_that_is_not_there(pyramid: Path, level: str | int) -> None:
    with pytest.raises(InputError, match=r"its levels are 0: 's0', 1: 'deep/s1'"):
        open_volume(pyramid, level=level)


def test_axes_override_the_order(path: Path) -> None:
    volume = open_volume(path, axes="XYZCT")
    assert volume.shape == (6, 5, 2, 4, 3)
    np.testing.assert_array_equal(
        volume.read(5, 4, Box.whole((2, 4, 3))), DATA[:, :, :, 4, 5].transpose(2, 1, 0)
    )


def test_a_voxel_size_overrides_the_stored_one(path: Path) -> None:
    volume = open_volume(path, voxel_size=(2.0, 0.5, 0.25))
    assert volume.voxel_size == (2.0, 0.5, 0.25)
    assert [axis.unit for axis in volume.axes] == [None, None, *["micrometer"] * 3]
    assert volume.axis("t").scale == 1.0


@pytest.mark.parametrize(
    ("t", "c", "box", "message"),
    [
        (3, 0, WHOLE, "no time point 3"),
        (-1, 0, WHOLE, "no time point -1"),
        (0, 4, WHOLE, "no channel 4"),
        (0, 0, Box((0, 0, 0), (3, 5, 6)), "leaves the volume"),
        (0, 0, Box((-1, 0, 0), (2, 5, 6)), "leaves the volume"),
    ],
)
def test_reading_outside_is_an_error(path: Path, t: int, c: int, box: Box, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_volume(path).read(t, c, box)


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        ("float64", "convert it to float32"), ("float16", "convert it to float32"),
        ("bool", "convert it to uint8"), ("int8", "convert it to int16"),
        ("complex64", "magnitude"), ("uint32", "or to uint16 if it fits"),
        ("int64", "convert it to float32"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_other_voxel_types_are_refused(
    tmp_path: Path, dtype: str, remedy: str, zarr_format: int
) -> None:
    path = str(tmp_path / "a.zarr")
    zarr.create_array(path, data=DATA[0, 0].astype(dtype), zarr_format=zarr_format)
    with pytest.raises(InputError, match=f"type {dtype}, and only uint8, .*{remedy}"):
        open_volume(path)
    assert open_volume(path, any_dtype=True).describe()["dtype"] == dtype
