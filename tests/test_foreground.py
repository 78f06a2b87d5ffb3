"""Masks of any resolution laid over a volume, against brute force on voxels."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.errors import InputError
from n2v_scale.foreground import Foreground, open_foreground
from n2v_scale.geometry import Box, Shape, as_shape
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Axis, Volume

WriteVolume = Callable[..., Volume]


def lying_nowhere(
    shape: Shape,
    *,
    times: int = 1,
    channels: int = 1,
    unit: str | None = None,
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Volume:
    """A volume of which only the metadata is looked at."""
    space = (Axis(a, unit, s) for a, s in zip("zyx", voxel_size, strict=True))
    return Volume(
        "/nowhere", "zarr", "", (Axis("t"), Axis("c"), *space), (times, channels, *shape),
        "uint16", tuple(range(times)), tuple(range(channels)), shape, None, "", "",
    )  # fmt: skip


@st.composite
def boxes(draw: st.DrawFn, shape: Shape) -> Box:
    start = [draw(st.integers(0, n - 1)) for n in shape]
    stop = [draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    return Box(as_shape(start), as_shape(stop))


def mask_of(shape: Shape, over: Shape) -> Foreground:
    """A mask of which only the geometry is looked at."""
    return Foreground("/nowhere", lying_nowhere(shape), over, "")


def overlapping(a: int, b: int, n: int, m: int) -> set[int]:
    """The mask's voxels that share more than a border with [a, b), each an even share of ``n``."""
    share = Fraction(n, m)
    return {i for i in range(m) if i * share < b and (i + 1) * share > a}


@st.composite
def extents(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 40))
    return n, draw(st.integers(1, n))


@given(extents(), st.data())
def test_a_box_looks_at_what_overlaps_it_and_at_most_one_voxel_more(
    extent: tuple[int, int], data: st.DataObject
) -> None:
    n, m = extent
    box = data.draw(boxes((n, 1, 1)))
    found = mask_of((m, 1, 1), (n, 1, 1)).mask_box(box)
    voxels = set(range(found.start[0], found.stop[0]))
    expected = overlapping(box.start[0], box.stop[0], n, m)
    assert voxels >= expected
    assert voxels <= {i + d for i in expected for d in (-1, 0, 1)} & set(range(m))
    if n % m == 0 and (n // m) & (n // m - 1) == 0:
        assert voxels == expected


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 7, 8, 16, 32])
def test_no_foreground_is_lost_whichever_way_the_mask_was_made(factor: int, keeps: bool) -> None:
    """By any number of halvings, or by a factor up to the mask's own extent."""
    smallest = factor if factor & (factor - 1) == 0 else factor**2
    for n in range(smallest, smallest + 70, 3):
        m = -(-n // factor) if keeps else n // factor
        mask = mask_of((m, 1, 1), (n, 1, 1))
        for voxel in range(n):
            span = mask.mask_box(Box((voxel, 0, 0), (voxel + 1, 1, 1)))
            holder = min(voxel // factor, m - 1)
            assert span.start[0] <= holder < span.stop[0], (n, voxel)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_outside_is_what_brute_force_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    factors = data.draw(st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
    values = np.zeros(shape, bool)
    for place in data.draw(st.sets(st.tuples(*(st.integers(0, n - 1) for n in shape)), max_size=3)):
        values[place] = True
    over = as_shape([n * f for n, f in zip(shape, factors, strict=True)])
    fine = values.repeat(factors[0], 0).repeat(factors[1], 1).repeat(factors[2], 2)
    path = tmp_path_factory.mktemp("mask") / "m.zarr"
    zarr.create_array(str(path), data=values, chunks=tuple(min(3, n) for n in shape))
    mask = open_foreground(path, lying_nowhere(over))
    region = data.draw(boxes(over))
    box = data.draw(boxes(region.shape)).shift(region.start)
    expected = not fine[box.slices].any()
    assert mask.outside(0, 0, box) == expected
    assert mask.over(0, 0, region)(box) == expected


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("kind", ["zarr", "tiff"])
def test_every_type_of_number_is_a_mask(tmp_path: Path, dtype: str, kind: str) -> None:
    values = np.zeros((2, 5, 6), dtype)
    values[1, 3, 4] = 1 if dtype == "bool" else 70000 if "64" in dtype or "32" in dtype else 200
    path = tmp_path / f"m.{kind}"
    if kind == "zarr":
        zarr.create_array(str(path), data=values)
    else:
        tifffile.imwrite(path, values, photometric="minisblack")
    mask = open_foreground(path, lying_nowhere((4, 10, 12)))
    assert mask.outside(0, 0, Box((0, 0, 0), (2, 10, 12)))
    assert mask.outside(0, 0, Box((2, 0, 0), (4, 6, 12)))
    assert not mask.outside(0, 0, Box((3, 7, 9), (4, 8, 10)))


def test_only_finite_numbers_are_foreground(tmp_path: Path) -> None:
    values = np.array([[[np.nan, np.inf, -np.inf, -0.0, -1.5]]], np.float32)
    zarr.create_array(str(tmp_path / "m.zarr"), data=values)
    mask = open_foreground(tmp_path / "m.zarr", lying_nowhere((1, 1, 5)))
    assert [mask.outside(0, 0, Box((0, 0, x), (1, 1, x + 1))) for x in range(5)] == [True] * 4 + [
        False
    ]


def test_a_type_that_is_no_number_is_refused(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "m.zarr"), shape=(2, 2), chunks=(2, 2), dtype="c8")
    with pytest.raises(InputError, match="type complex64: store truth values"):
        open_foreground(tmp_path / "m.zarr", lying_nowhere((1, 2, 2)))


def test_a_mask_without_depth_holds_for_every_z(tmp_path: Path) -> None:
    values = np.zeros((4, 4), np.uint8)
    values[0, 0] = 1
    tifffile.imwrite(tmp_path / "m.tif", values)
    mask = open_foreground(tmp_path / "m.tif", lying_nowhere((9, 8, 8)))
    assert not mask.outside(0, 0, Box((8, 1, 1), (9, 2, 2)))
    assert mask.outside(0, 0, Box((0, 2, 2), (9, 8, 8)))


def test_one_time_and_channel_hold_for_all_and_several_for_their_own(tmp_path: Path) -> None:
    values = np.zeros((3, 1, 1, 2, 2), bool)
    values[2, 0, 0, 1, 1] = True
    zarr.create_array(str(tmp_path / "m.zarr"), data=values)
    volume = lying_nowhere((1, 4, 4), times=3, channels=2)
    whole = Box.whole((1, 4, 4))
    mask = open_foreground(tmp_path / "m.zarr", volume)
    assert [[mask.outside(t, c, whole) for c in (0, 1)] for t in range(3)] == [
        [True, True],
        [True, True],
        [False, False],
    ]
    selected = open_foreground(tmp_path / "m.zarr", replace(volume, timepoints=(2, 0)))
    assert [selected.outside(t, 1, whole) for t in (0, 1)] == [False, True]
    with pytest.raises(InputError, match=r"has 3 time points and the volume stores 2: give a mask"):
        open_foreground(tmp_path / "m.zarr", lying_nowhere((1, 4, 4), times=2))


def test_an_array_inside_a_group_is_a_mask_and_is_found_again(tmp_path: Path) -> None:
    values = np.zeros((2, 4, 4), np.uint16)
    zarr.create_group(str(tmp_path / "g.zarr"))
    zarr.create_array(str(tmp_path / "g.zarr" / "nothing"), data=values)
    values[0, 0, 0] = 1
    zarr.create_array(str(tmp_path / "g.zarr" / "corner"), data=values)
    mask = open_foreground(tmp_path / "g.zarr" / "corner", lying_nowhere((4, 8, 8)))
    again = open_foreground(mask.address, lying_nowhere((4, 8, 8)))
    assert mask == again
    assert not again.outside(0, 0, Box((1, 1, 1), (2, 2, 2)))
    assert again.outside(0, 0, Box((2, 0, 0), (4, 8, 8)))


def test_only_the_part_that_is_needed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(str(tmp_path / "m.zarr"), data=np.eye(8, dtype=bool)[None].repeat(8, 0))
    mask = open_foreground(tmp_path / "m.zarr", lying_nowhere((32, 32, 32)))
    reads: list[Box] = []
    read = Volume.read

    def counted(self: Volume, t: int, c: int, box: Box) -> np.ndarray:
        reads.append(box)
        return read(self, t, c, box)

    monkeypatch.setattr(Volume, "read", counted)
    outside = mask.over(0, 0, Box((0, 8, 16), (16, 17, 32)))
    assert outside(Box((0, 8, 16), (16, 16, 32)))
    assert not outside(Box((0, 16, 16), (16, 17, 20)))
    assert reads == [Box((0, 2, 4), (4, 5, 8))]
    assert mask.memory_bytes(Box((0, 8, 16), (16, 17, 32))) == reads[0].size * 4


@pytest.mark.parametrize(
    ("mask", "volume", "message"),
    [
        ((4, 8, 9), (4, 8, 8), "finer than the volume along x: 9 voxels, and the volume has 8"),
        ((5, 4, 4), (4, 8, 8), "finer than the volume along z: 5 voxels, and the volume has 4"),
    ],
)
def test_a_mask_finer_than_the_volume(
    tmp_path: Path, mask: Shape, volume: Shape, message: str
) -> None:
    zarr.create_array(str(tmp_path / "m.zarr"), data=np.zeros(mask, bool))
    with pytest.raises(InputError, match=message):
        open_foreground(tmp_path / "m.zarr", lying_nowhere(volume))


@pytest.mark.parametrize(
    ("coarse", "fits"),
    [
        ((2.0, 1.6, 1.6), True),
        ((2.0, 1.54, 1.54), True),  # 26 * 1.54 / 0.4 = 100.1: within one voxel of the mask
        ((2.0, 1.68, 1.6), False),  # 109.2: more than one
        ((2.0, 0.4, 0.4), False),
        ((4.0, 1.6, 1.6), False),
    ],
)
def test_voxel_sizes_that_contradict_the_extents(
    tmp_path: Path, write_volume: WriteVolume, coarse: tuple[float, ...], fits: bool
) -> None:
    write_volume(tmp_path / "m.zarr", np.zeros((10, 26, 26), np.uint8), scale=coarse)
    volume = lying_nowhere((10, 103, 103), unit="micrometer", voxel_size=(2.0, 0.4, 0.4))
    if fits:
        assert open_foreground(tmp_path / "m.zarr", volume).outside(0, 0, Box.whole((10, 103, 103)))
        return
    with pytest.raises(InputError, match=r"voxels of .* along [zy], which is .*a mask covers"):
        open_foreground(tmp_path / "m.zarr", volume)


@pytest.mark.parametrize("unit", [None, "nanometer"])
def test_sizes_that_cannot_be_compared_contradict_nothing(
    tmp_path: Path, write_volume: WriteVolume, unit: str | None
) -> None:
    write_volume(tmp_path / "m.zarr", np.zeros((4, 4, 4), np.uint8), scale=(1.0, 1.0, 1.0))
    volume = lying_nowhere((8, 8, 8), unit=unit, voxel_size=(100.0, 100.0, 100.0))
    assert open_foreground(tmp_path / "m.zarr", volume).shape == (8, 8, 8)


def test_the_key_follows_the_mask(tmp_path: Path) -> None:
    path, volume = tmp_path / "m.zarr", lying_nowhere((4, 8, 8))
    array = zarr.create_array(str(path), data=np.ones((2, 4, 4), bool))
    mask = open_foreground(path, volume)
    assert open_foreground(path, volume).key == mask.key
    assert pickle.loads(pickle.dumps(mask)) == mask  # workers get it so
    array[0] = False
    assert open_foreground(path, volume).key != mask.key


def test_a_mask_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_foreground(tmp_path / "m.zarr", lying_nowhere((4, 8, 8)))


def test_a_coarser_volume_is_opened_like_any(tmp_path: Path) -> None:
    """The volume's own type does not matter, and neither does that of the mask to the volume."""
    zarr.create_array(str(tmp_path / "v.zarr"), data=np.ones((4, 6, 6), np.uint16))
    zarr.create_array(str(tmp_path / "m.zarr"), data=np.zeros((2, 3, 3), np.uint32))
    mask: Any = open_foreground(tmp_path / "m.zarr", open_volume(tmp_path / "v.zarr"))
    assert mask.outside(0, 0, Box.whole((4, 6, 6)))
