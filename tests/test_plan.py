"""Plans: geometry against brute force, defaults for usual shapes, what a resume accepts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Identity, Normalisation
from n2v_scale.errors import PlanError
from n2v_scale.geometry import NO_HALO, Box, Shape, round_up
from n2v_scale.io.open import open_volume, with_voxel_size
from n2v_scale.io.volume import Axis, Volume
from n2v_scale.io.writer import ArraySpec
from n2v_scale.plan import Plan, make_plan, pyramid_levels
from n2v_scale.resume import resume_plan
from n2v_scale.sizes import TILE_BYTES, divisor_near, storage_shapes

CPU: dict[str, Any] = {"normalisation": None, "device": "cpu", "threads": 1}


def volume_of(
    shape: Shape, times: int = 1, channels: int = 1, voxel: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Volume:
    """A volume that lies nowhere: planning looks at metadata alone."""
    axes = (Axis("t"), Axis("c"), *(Axis(a, None, s) for a, s in zip("zyx", voxel, strict=True)))
    return Volume(
        address="/nowhere",
        kind="zarr",
        array_path="0",
        axes=axes,
        stored_shape=(times, channels, *shape),
        dtype="uint16",
        timepoints=tuple(range(times)),
        channels=tuple(range(channels)),
        chunk=shape,
        shard=None,
        codec="none",
        format="",
    )


def plan_of(volume: Volume, denoiser: Any = None, **options: Any) -> Plan:
    return make_plan(
        volume,
        denoiser or Identity(),
        "identity",
        "/out.zarr",
        PredictSettings(**options),
        **CPU,
    )


sizes = st.integers(1, 40)
shapes = st.tuples(sizes, sizes, sizes)
wishes = st.none() | st.tuples(*[st.integers(4, 48)] * 3)
side = st.integers(0, 5)
halos = st.tuples(*[st.tuples(side, side)] * 3)
strides = st.tuples(*[st.sampled_from([1, 2, 4])] * 3)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    return plan_of(
        volume_of(draw(shapes), draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        Identity(draw(halos), draw(strides)),
        chunk=draw(wishes),
        shard=draw(wishes),
        block=draw(wishes),
        tile=draw(wishes),
        ome_version=draw(st.sampled_from(["0.4", "0.5"])),
    )


@settings(max_examples=60, deadline=None)
@given(plans())
def test_every_voxel_belongs_to_exactly_one_block(plan: Plan) -> None:
    owners = np.zeros(plan.volume.shape, np.int32)
    numbers = []
    for block in plan.iterate():
        owners[(block.t, block.c, *block.write.slices)] += 1
        numbers.append(block.number)
        assert Box.whole(plan.shape).contains(block.write)
    assert owners.min() == owners.max() == 1
    assert numbers == list(range(plan.blocks))


@settings(max_examples=60, deadline=None)
@given(plans())
def test_chunks_divide_shards_and_shards_divide_blocks(plan: Plan) -> None:
    output, spatial = plan.output, slice(2, None)
    assert output.chunk[:2] == output.shard[:2] == (1, 1)
    for c, s, b in zip(output.chunk[spatial], output.shard[spatial], plan.block, strict=True):
        assert s % c == 0
        assert b % s == 0
    if output.ome_version == "0.4":
        assert output.chunk == output.shard


@settings(max_examples=60, deadline=None)
@given(plans())
def test_tiles_lie_on_one_grid_and_on_the_stride(plan: Plan) -> None:
    for block in plan.iterate():
        covered = np.zeros(plan.shape, np.int32)
        for tile in plan.tiles(block):
            covered[tile.core.slices] += 1
            assert all(a % n == 0 for a, n in zip(tile.core.start, plan.tile, strict=True))
            assert all(a % s == 0 for a, s in zip(tile.core.start, plan.stride, strict=True))
            assert tile.core.intersect(block.write).size > 0
        assert (covered[block.write.slices] == 1).all()


@settings(max_examples=60, deadline=None)
@given(plans())
def test_a_tile_is_padded_to_the_stride_and_ends_at_the_faces(plan: Plan) -> None:
    for block in plan.iterate():
        for tile in plan.tiles(block):
            for axis in range(3):
                n, s = plan.shape[axis], plan.stride[axis]
                low, high = plan.halo[axis]
                start, stop = tile.padded.start[axis], tile.padded.stop[axis]
                assert start % s == stop % s == 0
                # the whole halo, or all there is up to the face rounded up to the stride
                assert 0 <= start <= max(0, tile.aligned.start[axis] - low)
                assert stop >= min(round_up(n, s), tile.aligned.stop[axis] + high)
                assert stop <= round_up(n, s)
                assert tile.data.start[axis] == start
                assert tile.data.stop[axis] == min(stop, n)
            assert tile.padded.contains(tile.aligned)
            assert tile.aligned.contains(tile.core)


@settings(max_examples=60, deadline=None)
@given(plans())
def test_a_read_box_lies_in_the_volume_and_holds_what_all_tiles_need(plan: Plan) -> None:
    for block in plan.iterate():
        box = plan.read_box(block)
        assert Box.whole(plan.shape).contains(box)
        assert box.contains(block.write)
        needed = [tile.data for tile in plan.tiles(block)]
        assert all(box.contains(data) for data in needed)
        for axis in range(3):  # and not one voxel more
            assert box.start[axis] == min(data.start[axis] for data in needed)
            assert box.stop[axis] == max(data.stop[axis] for data in needed)


@given(st.integers(1, 400), st.integers(1, 400))
def test_divisor_near(whole: int, wish: int) -> None:
    found = divisor_near(whole, wish)
    divisors = [d for d in range(1, whole + 1) if whole % d == 0]
    below = [d for d in divisors if d <= wish]
    assert found in divisors
    if 4 * below[-1] >= wish or below[-1] == whole:
        assert found == below[-1]
    else:  # what fits is tiny: the next larger
        assert found == min(d for d in divisors if d > wish)


@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((1, 512, 512), (1, 256, 256), (1, 512, 512)),
        ((1, 5000, 3000), (1, 256, 256), (1, 1024, 1024)),
        ((1, 40, 50), (1, 40, 50), (1, 40, 50)),
        ((20, 30, 40), (20, 30, 40), (20, 30, 40)),
        ((15, 2048, 2048), (15, 64, 64), (15, 256, 256)),
        ((64, 512, 512), (64, 64, 64), (64, 256, 128)),
        ((256, 256, 256), (64, 64, 64), (128, 128, 128)),
        ((300, 2000, 1000), (64, 64, 64), (256, 256, 256)),
        ((100_000, 100_000, 100_000), (64, 64, 64), (256, 256, 256)),
    ],
)
def test_default_storage(shape: Shape, chunk: Shape, shard: Shape) -> None:
    found = storage_shapes(shape, PredictSettings())
    assert found[0] == chunk
    assert prod(found[1]) == prod(shard)
    assert found[1] == found[2]
    unsharded = storage_shapes(shape, PredictSettings(ome_version="0.4"))
    assert unsharded[:2] == (chunk, chunk)
    assert unsharded[2] == found[2]


def test_what_is_asked_for_is_taken() -> None:
    plan = plan_of(
        volume_of((256, 256, 256)),
        chunk=(16, 32, 32),
        shard=(64, 64, 32),
        block=(128, 64, 64),
        tile=(32, 40, 48),
        dtype="float32",
        codec="gzip",
    )
    assert plan.output.chunk == (1, 1, 16, 32, 32)
    assert plan.output.shard == (1, 1, 64, 64, 32)
    assert plan.block == (128, 64, 64)
    assert plan.tile == (32, 40, 48)
    assert (plan.output.dtype, plan.output.codec) == ("float32", "gzip")


def test_a_terabyte_is_planned_without_looking_at_its_blocks(tmp_path: Path) -> None:
    zarr.create_array(
        str(tmp_path / "v.zarr"), shape=(100_000,) * 3, chunks=(64,) * 3, dtype="uint16"
    )
    started = time.process_time()
    plan = plan_of(open_volume(tmp_path / "v.zarr"))
    assert plan.blocks == 391**3
    assert len(plan.key) == 64
    blocks = plan.iterate()
    assert [next(blocks).number for _ in range(3)] == [0, 1, 2]
    assert time.process_time() - started < 2


def test_the_tile_shrinks_until_a_forward_pass_fits_the_memory() -> None:
    class Greedy(Identity):
        def memory_bytes(self, tile: Shape) -> int:
            return 4000 * prod(tile)

    volume = volume_of((512, 512, 512))
    assert plan_of(volume).tile == (256, 256, 256)
    greedy = Greedy(((8, 8),) * 3, (4, 4, 4))
    plan = plan_of(volume, greedy)
    assert plan.tile < (256, 256, 256)
    assert greedy.memory_bytes(plan.tile) <= TILE_BYTES
    assert 2 * greedy.memory_bytes(plan.tile) > TILE_BYTES


# Pyramids


def array_of(shape: Shape, chunk: Shape = (64, 64, 64)) -> ArraySpec:
    return plan_of(volume_of(shape), chunk=chunk).output


def test_coarse_planes_are_halved_last() -> None:
    levels = pyramid_levels(array_of((200, 1000, 1000)), (2.0, 0.4, 0.4))
    assert [level.factors for level in levels] == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert [level.array.spatial_shape for level in levels] == [
        (200, 500, 500),
        (200, 250, 250),
        (100, 125, 125),
        (50, 63, 63),
    ]
    assert [level.array.path for level in levels] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("voxel", [(1.0, 1.0, 1.0), (2.0, 0.4, 0.4), (10.0, 0.1, 0.1)])
@pytest.mark.parametrize(
    "shape", [(300, 200, 100), (1000, 64, 64), (1, 2000, 900), (7, 9, 5), (1, 1, 500), (90, 1, 1)]
)
def test_the_coarsest_level_is_one_chunk(shape: Shape, voxel: tuple[float, float, float]) -> None:
    output = array_of(shape)
    previous = output.spatial_shape
    for level in pyramid_levels(output, voxel):
        now = level.array.spatial_shape
        assert now == tuple(-(-n // f) for n, f in zip(previous, level.factors, strict=True))
        assert set(level.factors) <= {1, 2}
        assert prod(now) < prod(previous)
        assert level.array.chunk == output.chunk
        assert level.array.shard == output.shard
        previous = now
    assert all(n <= c for n, c in zip(previous, output.chunk[2:], strict=True))


@given(shapes, st.tuples(*[st.floats(0.05, 20)] * 3))
def test_pyramids_end(shape: Shape, voxel: tuple[float, float, float]) -> None:
    output = array_of(shape, (4, 4, 4))
    levels = pyramid_levels(output, voxel)
    last = levels[-1].array.spatial_shape if levels else shape
    assert all(n <= c for n, c in zip(last, output.chunk[2:], strict=True))
    assert len(levels) <= sum(n.bit_length() for n in shape)


# The key, and resuming


def record_of(plan: Plan) -> dict[str, Any]:
    """As it comes back from the output's attributes."""
    record: dict[str, Any] = json.loads(json.dumps(plan.to_dict()))
    return record


@pytest.fixture
def stored(tmp_path: Path, write_volume: Callable[..., Volume]) -> Volume:
    data = np.arange(16**3, dtype=np.uint16).reshape(16, 16, 16)
    return write_volume(tmp_path / "v.zarr", data, chunk=(8, 8, 8))


def test_the_key_ignores_addresses(stored: Volume, tmp_path: Path) -> None:
    plan = plan_of(stored)
    key = plan.key
    assert replace(plan, denoiser="/elsewhere").key == key
    moved = tmp_path / "moved.zarr"
    Path(stored.address).rename(moved)
    again = plan_of(open_volume(moved))
    assert again.volume.address != stored.address
    assert replace(again, output=replace(again.output, store="/other.zarr")).key == key


def test_the_key_follows_what_the_bytes_depend_on(
    stored: Volume, tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    plan = plan_of(stored, block=(16, 16, 16))
    other = write_volume(tmp_path / "w.zarr", np.ones((16, 16, 16), np.uint16), chunk=(8, 8, 8))
    changed = [
        replace(plan, denoiser_key="another"),
        replace(plan, tile=(8, 16, 16)),
        replace(plan, block=(8, 16, 16)),
        replace(plan, halo=((1, 1), (0, 0), (0, 0))),
        replace(plan, stride=(2, 2, 2)),
        replace(plan, normalisation=Normalisation((1.0,), (2.0,))),
        replace(plan, device="cuda"),
        replace(plan, threads=2),
        replace(plan, on_nan="keep"),
        replace(plan, output=replace(plan.output, dtype="float32")),
        replace(plan, output=replace(plan.output, codec_level=9)),
        replace(plan, identity=other.identity()),
        replace(plan, volume=replace(stored, channels=(1,))),
        replace(plan, volume=replace(stored, timepoints=(1,))),
    ]
    assert len({plan.key, *(p.key for p in changed)}) == len(changed) + 1


def test_the_key_follows_the_voxels(stored: Volume) -> None:
    plan = plan_of(stored)
    before = replace(plan, identity=stored.identity()).key
    time.sleep(0.02)  # chunk files are known by their size and time
    zarr.open_array(str(Path(stored.address) / "0"), mode="r+")[:8] = 7
    assert replace(plan, identity=open_volume(stored.address).identity()).key != before


def test_a_resume_takes_the_stored_geometry(stored: Volume) -> None:
    first = plan_of(stored, block=(8, 8, 16), tile=(8, 8, 8), dtype="float32", codec="gzip")
    first = replace(first, threads=7, normalisation=Normalisation((1.5,), (0.1,)))
    fresh = plan_of(stored)
    resumed = resume_plan(record_of(first), fresh, PredictSettings())
    assert resumed.key == first.key
    assert resumed.block == (8, 8, 16)
    assert resumed.normalisation == Normalisation((1.5,), (0.1,))
    assert resumed.threads == 7
    assert resumed == first


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"block": (4, 8, 8)}, "--block was 16x16x16, now 4x8x8"),
        ({"tile": (8, 8, 8)}, "--tile was 16x16x16, now 8x8x8"),
        ({"chunk": (8, 8, 8)}, "--chunk was 16x16x16, now 8x8x8"),
        ({"shard": (8, 16, 16), "chunk": (8, 8, 8)}, "--shard was 16x16x16, now 8x16x16"),
        ({"codec": "gzip"}, "--codec was blosc-zstd, now gzip"),
        ({"codec_level": 5}, "--codec-level was 3, now 5"),
        ({"dtype": "float32"}, "--dtype was uint16, now float32"),
        ({"ome_version": "0.4"}, "--ome-version was 0.5, now 0.4"),
    ],
)
def test_a_resume_says_what_differs(stored: Volume, asked: dict[str, Any], said: str) -> None:
    first = plan_of(stored)
    with pytest.raises(PlanError, match=said) as caught:
        resume_plan(record_of(first), plan_of(stored, **asked), PredictSettings(**asked))
    assert "--overwrite" in str(caught.value)


def test_a_run_that_stopped_at_nan_may_be_told_to_fill_them(stored: Volume) -> None:
    strict, filling = plan_of(stored), plan_of(stored, on_nan="fill")
    resumed = resume_plan(record_of(strict), filling, PredictSettings(on_nan="fill"))
    assert resumed.on_nan == "fill"
    with pytest.raises(PlanError, match="--on-nan was fill, now error"):
        resume_plan(record_of(filling), strict, PredictSettings())


def test_a_resume_with_another_voxel_size_is_refused(stored: Volume) -> None:
    plan = plan_of(stored)
    other = plan_of(with_voxel_size(stored, (5.0, 1.0, 1.0)))
    with pytest.raises(PlanError, match="the voxel size, units or position"):
        resume_plan(record_of(plan), other, PredictSettings())


def test_a_resume_says_everything_that_differs(
    stored: Volume, tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    other = write_volume(tmp_path / "w.zarr", np.zeros((2, 16, 16, 16), np.uint16), "czyx")
    fresh = replace(plan_of(other), denoiser_key="another")
    with pytest.raises(PlanError) as caught:
        resume_plan(record_of(plan_of(stored)), fresh, PredictSettings())
    for word in ("the input's metadata was", "channels was 0, now 0x1", "the model was identity"):
        assert word in str(caught.value)


def test_a_plan_of_another_format_is_refused(stored: Volume) -> None:
    plan = plan_of(stored)
    with pytest.raises(PlanError, match=r"the plan's format \(99, now 1\)"):
        resume_plan({**record_of(plan), "format": 99}, plan, PredictSettings())


def test_brute_force_agrees_with_a_plan_that_can_be_drawn() -> None:
    plan = plan_of(
        volume_of((1, 10, 7)),
        Identity(((0, 0), (2, 3), (1, 1)), (1, 4, 2)),
        block=(1, 8, 8),
        tile=(1, 4, 6),
    )
    assert plan.tile == (1, 4, 6)
    first = next(plan.iterate())
    assert first.write == Box((0, 0, 0), (1, 8, 7))
    cores = [tile.core for tile in plan.tiles(first)]
    assert cores == [Box((0, y, x), (1, y + 4, min(x + 6, 7))) for y, x in product((0, 4), (0, 6))]
    low, high = plan.tiles(first)[0], plan.tiles(first)[3]
    assert low.padded == Box((0, 0, 0), (1, 8, 8))
    assert high.aligned == Box((0, 4, 6), (1, 8, 8))
    assert high.padded == Box((0, 0, 4), (1, 12, 8))
    assert high.data == Box((0, 0, 4), (1, 10, 7))
    assert plan.halo != NO_HALO
