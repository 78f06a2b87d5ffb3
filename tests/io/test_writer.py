"""Whole shards, replaced by one set: round trips, and what is not done."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from n2v_scale.errors import ConfigError, OutputError
from n2v_scale.geometry import Box, Shape, cells_touching
from n2v_scale.io.writer import (
    ArraySpec,
    Stored,
    array_exists,
    check_codec,
    create_array,
    get,
    keys_under,
    read_output,
    sizes_under,
    stored_checksum,
    stored_size,
    write_box,
)

CODECS = ["blosc-zstd", "zstd", "gzip", "none"]


def spec_of(store: Path, **changes: Any) -> ArraySpec:
    """z, y, x; shards of 4 chunks that do not fit the shape."""
    usual: dict[str, Any] = {
        "store": str(store / "out.zarr"),
        "path": "0",
        "axes": ("z", "y", "x"),
        "shape": (10, 13, 9),
        "chunk": (4, 4, 8),
        "shard": (8, 8, 8),
        "dtype": "uint16",
        "codec": "blosc-zstd",
        "codec_level": 3,
        "ome_version": "0.5",
    }
    usual |= changes
    if usual["ome_version"] == "0.4":
        usual["shard"] = usual["chunk"]
    return ArraySpec(**usual)


def values_for(spec: ArraySpec) -> np.ndarray:
    """Of the whole array, in the order of its axes; nowhere zero."""
    rng = np.random.default_rng(len(spec.shape))
    return rng.integers(1, 250, spec.shape).astype(spec.dtype)


def write_all(spec: ArraySpec, values: np.ndarray) -> None:
    """Shard by shard."""
    create_array(spec)
    canonical = values.reshape([dict(zip(spec.axes, spec.shape, strict=True)).get(a, 1)
                                for a in "tczyx"])  # fmt: skip
    whole = Box.whole(spec.spatial_shape)
    for t, c in itertools.product(range(canonical.shape[0]), range(canonical.shape[1])):
        for shard in cells_touching(whole, spec.spatial_shard, spec.spatial_shape):
            write_box(spec, t, c, shard, canonical[(t, c, *shard.slices)])


def stored(spec: ArraySpec) -> list[str]:
    """Keys of the array's shards."""
    documents = ("zarr.json", ".zarray", ".zattrs")
    return [key for key in keys_under(spec.store, spec.path) if not key.endswith(documents)]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(tmp_path: Path, version: str, codec: str) -> None:
    spec = spec_of(tmp_path, ome_version=version, codec=codec)
    values = values_for(spec)
    write_all(spec, values)
    array = zarr.open_array(spec.store, path="0", mode="r")
    np.testing.assert_array_equal(array[...], values)
    assert array.chunks == spec.chunk
    assert array.shards == (spec.shard if version == "0.5" else None)
    assert array.metadata.zarr_format == (3 if version == "0.5" else 2)
    box = Box((3, 2, 1), (9, 13, 9))
    np.testing.assert_array_equal(read_output(spec, 0, 0, box), values[box.slices])
    assert len(stored(spec)) == (8 if version == "0.5" else 3 * 4 * 2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape", "chunk", "shard"),
    [
        (("y", "x"), (21, 13), (4, 4), (8, 8)),
        (("t", "c", "z", "y", "x"), (2, 3, 5, 6, 7), (1, 1, 2, 3, 4), (1, 1, 4, 3, 4)),
        (("c", "y", "x"), (2, 9, 9), (1, 4, 4), (1, 8, 8)),
        (("t", "z", "y", "x"), (2, 3, 4, 5), (1, 3, 4, 5), (1, 3, 4, 5)),
    ],
)
def test_round_trip_of_other_axes(
    tmp_path: Path,
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    shard: tuple[int, ...],
    version: str,
) -> None:
    spec = spec_of(tmp_path, axes=axes, shape=shape, chunk=chunk, shard=shard, ome_version=version)
    values = values_for(spec)
    write_all(spec, values)
    np.testing.assert_array_equal(zarr.open_array(spec.store, path="0", mode="r")[...], values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_round_trip_of_dtypes(tmp_path: Path, dtype: str) -> None:
    spec = spec_of(tmp_path, dtype=dtype)
    values = values_for(spec)
    if dtype == "int16":
        values = -values
    if dtype == "float32":
        values.flat[:4] = [np.nan, np.inf, -0.0, 1e-45]
    write_all(spec, values)
    read = zarr.open_array(spec.store, path="0", mode="r")[...]
    assert read.dtype == dtype
    assert read.tobytes() == values.tobytes()


def test_a_minus_zero_is_no_zero(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, dtype="float32")
    write_all(spec, np.full(spec.shape, -0.0, np.float32))
    assert np.signbit(zarr.open_array(spec.store, path="0", mode="r")[...]).all()


def test_the_part_of_a_shard_past_the_end_is_zero(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    write_all(spec, values_for(spec))
    grown = zarr.open_array(spec.store, path="0", mode="r+")
    grown.resize((16, 16, 16))
    assert not grown[10:].any()
    assert not grown[:, 13:].any()
    assert not grown[:, :, 9:].any()


def test_one_box_of_many_shards_is_as_good_as_many_boxes(tmp_path: Path) -> None:
    one, many = (spec_of(tmp_path / name) for name in "ab")
    values = values_for(one)
    create_array(one)
    write_box(one, 0, 0, Box.whole(one.spatial_shape), values)
    write_all(many, values)
    assert stored(one) == stored(many)
    assert all(get(one.store, key) == get(many.store, key) for key in stored(one))


@pytest.mark.parametrize(
    "box",
    [
        Box((0, 0, 0), (4, 8, 8)),
        Box((0, 4, 0), (8, 8, 8)),
        Box((8, 0, 0), (9, 8, 8)),
        Box((1, 0, 0), (10, 13, 9)),
        Box((0, 0, 0), (10, 13, 8 + 0)).expand(((0, 0), (0, -1), (0, 0))),
    ],
)
def test_a_box_that_cuts_a_shard_is_refused(tmp_path: Path, box: Box) -> None:
    spec = spec_of(tmp_path)
    write_all(spec, values_for(spec))
    before = {key: get(spec.store, key) for key in stored(spec)}
    with pytest.raises(OutputError, match="cuts shards"):
        write_box(spec, 0, 0, box, np.zeros(box.shape, np.uint16))
    assert {key: get(spec.store, key) for key in stored(spec)} == before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("empty", ["no chunk", "one chunk", "no bit", "a minus zero", "all"])
def test_a_shard_is_what_zarr_alone_would_store(
    tmp_path: Path, version: str, dtype: str, empty: str
) -> None:
    ours, zarrs = (spec_of(tmp_path / n, dtype=dtype, ome_version=version) for n in ("a", "b"))
    values = values_for(ours)
    if empty != "no chunk":
        values[:4, :4, :8] = 0
    if empty == "no bit":
        values[3, 3, 7] = 1
    if empty == "a minus zero":
        values[3, 3, 7] = -np.zeros(1, dtype)[0]
    if empty == "all":
        values[...] = 0
    write_all(ours, values)
    create_array(zarrs)[...] = values
    assert stored(ours) == stored(zarrs)
    assert all(get(ours.store, key) == get(zarrs.store, key) for key in stored(ours))


FIRST = Box((0, 0, 0), (8, 8, 8))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_empty_shard_is_absent_and_reads_as_zeros(tmp_path: Path, version: str) -> None:
    spec = spec_of(tmp_path, ome_version=version, chunk=(8, 8, 8))
    create_array(spec)
    write_box(spec, 0, 0, FIRST, np.full(FIRST.shape, 5, np.uint16))
    assert len(stored(spec)) == 1
    assert write_box(spec, 0, 0, FIRST, np.zeros(FIRST.shape, np.uint16)) == (0, 0)
    assert stored(spec) == []
    assert not read_output(spec, 0, 0, FIRST).any()
    write_box(spec, 0, 0, FIRST, np.zeros(FIRST.shape, np.uint16))  # nothing there: no matter


def key_of_first(spec: ArraySpec) -> str:
    return "0/c/0/0/0" if spec.ome_version == "0.5" else "0/0/0/0"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("left", [0, 1, 16, -1, -5])
def test_a_torn_shard_is_simply_replaced(tmp_path: Path, version: str, left: int) -> None:
    spec = spec_of(tmp_path, ome_version=version, chunk=(8, 8, 8))
    create_array(spec)
    values = np.random.default_rng(0).integers(1, 99, FIRST.shape).astype(np.uint16)
    written = write_box(spec, 0, 0, FIRST, values)
    file = Path(spec.store, key_of_first(spec))
    file.write_bytes(file.read_bytes()[:left])
    assert write_box(spec, 0, 0, FIRST, values) == written
    np.testing.assert_array_equal(read_output(spec, 0, 0, FIRST), values)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("codec", CODECS)
def test_the_same_voxels_are_the_same_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, codec: str
) -> None:
    spec = spec_of(tmp_path, ome_version=version, codec=codec)
    values, found = values_for(spec), set()
    create_array(spec)
    for now in (1e9, 1.5e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_box(spec, 0, 0, Box.whole(spec.spatial_shape), values)
        found.add(b"".join(get(spec.store, key) or b"" for key in stored(spec)))
    assert len(found) == 1


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_checksum_and_size_are_of_the_stored_bytes(tmp_path: Path, version: str) -> None:
    spec = spec_of(tmp_path, ome_version=version)
    create_array(spec)
    values = values_for(spec)
    values[:8, :8, 8:] = 0  # one shard of 0.5, and two of 0.4, stay absent
    box = Box.whole(spec.spatial_shape)
    written = write_box(spec, 0, 0, box, values)
    content = [get(spec.store, key) or b"" for key in stored(spec)]
    assert written == Stored(crc32(b"".join(content)), sum(map(len, content)))
    assert stored_size(spec, 0, 0, box) == written.size
    assert stored_size(spec, 0, 0, box, sizes=sizes_under(spec.store, "0")) == written.size
    assert stored_checksum(spec, 0, 0, box) == written


def test_what_is_stored_is_seen_as_it_is_now(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert stored_size(spec, 0, 0, FIRST) == 0  # there is no store yet
    assert stored_checksum(spec, 0, 0, FIRST) == (0, 0)
    create_array(spec)
    written = write_box(spec, 0, 0, FIRST, values_for(spec)[FIRST.slices])
    file = Path(spec.store, key_of_first(spec))
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert stored_size(spec, 0, 0, FIRST) == written.size
    assert stored_checksum(spec, 0, 0, FIRST).checksum != written.checksum
    file.write_bytes(content[:-1])
    assert stored_size(spec, 0, 0, FIRST) == written.size - 1
    file.unlink()
    assert stored_size(spec, 0, 0, FIRST) == 0
    with pytest.raises(OutputError, match="cuts shards"):
        stored_size(spec, 0, 0, Box((0, 0, 0), (4, 8, 8)))


READING = ["get", "get_partial_values", "exists", "list", "list_prefix", "list_dir", "getsize"]
REMOVING = ["delete", "delete_dir", "clear"]
SETTING = ["set", "set_if_not_exists"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is asked of the store, in order."""
    made: list[tuple[str, Any]] = []

    def record(name: str) -> None:
        original = getattr(LocalStore, name)

        def recorded(self: LocalStore, *args: Any, **kwargs: Any) -> Any:
            made.append((name, args[0] if args else None))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(LocalStore, name, recorded)

    for name in (*READING, *REMOVING, *SETTING):
        record(name)
    return made


def test_nothing_is_read_and_nothing_deleted(tmp_path: Path, calls: list[tuple[str, Any]]) -> None:
    spec = spec_of(tmp_path)
    values = values_for(spec)
    write_all(spec, values)
    calls.clear()
    write_box(spec, 0, 0, Box.whole(spec.spatial_shape), values)
    expected = [f"0/c/{z}/{y}/{x}" for z, y, x in itertools.product(range(2), repeat=3)]
    assert calls == [("set", key) for key in expected]


def test_an_empty_shard_is_one_delete(tmp_path: Path, calls: list[tuple[str, Any]]) -> None:
    spec = spec_of(tmp_path)
    write_all(spec, values_for(spec))
    calls.clear()
    write_box(spec, 0, 0, FIRST, np.zeros(FIRST.shape, np.uint16))
    assert calls == [("delete", "0/c/0/0/0")]


def test_a_failing_disk_leaves_the_old_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path)
    values = values_for(spec)
    write_all(spec, values)

    async def full(self: LocalStore, key: str, value: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalStore, "set", full)
    with pytest.raises(OSError, match=r"No space left.*out\.zarr/0/c/0/0/0"):
        write_box(spec, 0, 0, FIRST, values[FIRST.slices] + 1)
    np.testing.assert_array_equal(zarr.open_array(spec.store, path="0", mode="r")[...], values)


def test_a_disk_that_fills_up_halfway_leaves_the_old_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is whole before it gets its name."""
    spec = spec_of(tmp_path, codec="none")
    values = values_for(spec)
    write_all(spec, values)

    def torn(self: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, torn)
    with pytest.raises(OSError, match="Input/output"):
        write_box(spec, 0, 0, FIRST, values[FIRST.slices] + 1)
    np.testing.assert_array_equal(zarr.open_array(spec.store, path="0", mode="r")[...], values)


def test_an_array_is_known_by_its_metadata(tmp_path: Path) -> None:
    for version in ("0.4", "0.5"):
        spec = spec_of(tmp_path / version, ome_version=version)
        assert not array_exists(spec)
        create_array(spec)
        assert array_exists(spec)


@pytest.mark.parametrize(("codec", "highest"), [("blosc-zstd", 9), ("gzip", 9), ("zstd", 22)])
def test_codec_levels_are_checked(codec: str, highest: int, tmp_path: Path) -> None:
    check_codec(codec, highest)
    spec: ArraySpec = spec_of(tmp_path, codec=codec, codec_level=highest)
    create_array(spec)
    with pytest.raises(ConfigError, match=f"goes up to {highest}"):
        check_codec(codec, highest + 1)


def test_spatial_extents_of_an_image_without_depth(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, axes=("y", "x"), shape=(7, 9), chunk=(2, 3), shard=(4, 6))
    shape: Shape = (1, 7, 9)
    assert (spec.spatial_shape, spec.spatial_shard) == (shape, (1, 4, 6))
