"""The sizes of a plan: they fit into one another, and into what a worker has."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Identity
from n2v_scale.errors import PlanError
from n2v_scale.geometry import Halo, Shape, as_shape, grid_shape
from n2v_scale.grids import BlockGrid
from n2v_scale.io.volume import Axis, Volume
from n2v_scale.memory import Budget, Sizes, worker_memory
from n2v_scale.sizes import (
    BLOCKS_A_WORKER,
    FEWEST_BLOCKS,
    MOST_BLOCK_VOXELS,
    TILE_BYTES,
    TILE_SHARE,
    choose_sizes,
)
from n2v_scale.tiling import tiling

GB = 10**9


class Greedy(Identity):
    """A denoiser that takes so many bytes a voxel."""

    def __init__(
        self,
        halo: Halo = ((12, 12), (25, 25), (25, 25)),
        stride: Shape = (2, 4, 4),
        *,
        a_voxel: int = 360,
        base: int = 2**29,
    ) -> None:
        super().__init__(halo, stride)
        self.a_voxel, self.base_bytes = a_voxel, base

    def memory_bytes(self, *shape: Any) -> int:
        return self.a_voxel * prod(shape[0])


def volume_of(shape: Shape, times: int = 1, channels: int = 1, dtype: str = "uint16") -> Volume:
    """A volume that lies nowhere: sizes follow from metadata alone."""
    return Volume(
        address="/nowhere",
        kind="zarr",
        array_path="0",
        axes=tuple(Axis(name) for name in "tczyx"),
        stored_shape=(times, channels, *shape),
        dtype=dtype,
        timepoints=tuple(range(times)),
        channels=tuple(range(channels)),
        chunk=as_shape([min(64, n) for n in shape]),
        shard=None,
        codec="none",
        format="",
    )


side = st.integers(0, 30)
wishes = st.none() | st.tuples(*[st.integers(4, 300)] * 3)
volumes = st.builds(
    volume_of,
    st.tuples(st.integers(1, 600), st.integers(1, 3000), st.integers(1, 3000)),
    times=st.integers(1, 3),
    channels=st.integers(1, 3),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
denoisers = st.builds(
    Greedy,
    st.tuples(*[st.tuples(side, side)] * 3),
    st.tuples(*[st.sampled_from([1, 2, 4, 8])] * 3),
    a_voxel=st.integers(1, 600),
    base=st.integers(0, 2**29),
)
asked = st.builds(
    PredictSettings,
    chunk=wishes,
    shard=wishes,
    block=wishes,
    tile=wishes,
    ome_version=st.sampled_from(["0.4", "0.5"]),
    dtype=st.sampled_from(["input", "float32"]),
)
budgets = st.builds(
    Budget,
    st.none() | st.integers(2**24, 2**37),
    workers=st.integers(1, 16),
    tasks=st.integers(2, 8),
    device=st.sampled_from(["cpu", "cuda", "mps"]),
)


def dtype_of(volume: Volume, settings: PredictSettings) -> str:
    return volume.dtype if settings.dtype == "input" else settings.dtype


@settings(max_examples=300, deadline=None)
@given(volumes, denoisers, asked, budgets)
def test_sizes_fit_into_one_another(
    volume: Volume, denoiser: Greedy, wanted: PredictSettings, budget: Budget
) -> None:
    try:
        sizes = choose_sizes(volume, denoiser, wanted, budget)
    except PlanError:
        return
    for chunk, shard, block in zip(sizes.chunk, sizes.shard, sizes.block, strict=True):
        assert shard % chunk == 0
        assert block % shard == 0
    assert all(t % s == 0 for t, s in zip(sizes.tile, denoiser.stride, strict=True))
    if wanted.ome_version == "0.4":
        assert sizes.shard == sizes.chunk
    if wanted.block is not None:  # what is asked for is taken, but for what leaves the volume
        assert all(b <= w for b, w in zip(sizes.block, wanted.block, strict=True))


@settings(max_examples=100, deadline=None)
@given(volumes, denoisers, asked, budgets, st.data())
def test_blocks_partition_the_volume(
    volume: Volume, denoiser: Greedy, wanted: PredictSettings, budget: Budget, data: st.DataObject
) -> None:
    """No volume of this size is painted: each voxel that is looked at has one owner."""
    try:
        block = choose_sizes(volume, denoiser, wanted, budget).block
    except PlanError:
        return
    times, channels, *_ = volume.shape
    grid = BlockGrid(times, channels, volume.spatial_shape, block)
    voxel = [data.draw(st.integers(0, n - 1)) for n in volume.shape]
    number = int(
        np.ravel_multi_index(
            [voxel[0], voxel[1], *(i // b for i, b in zip(voxel[2:], block, strict=True))],
            (times, channels, *grid_shape(volume.spatial_shape, block)),
        )
    )
    owner = grid.at(number)
    assert (owner.t, owner.c) == tuple(voxel[:2])
    pairs = zip(owner.write.start, voxel[2:], owner.write.stop, strict=True)
    assert all(a <= i < b for a, i, b in pairs)


def check_refusal(message: str, tasks: int, limit: float) -> None:
    """A sentence of which the numbers add up, and are over the limit."""
    total, base, tile, block, allowed = map(float, re.findall(r"([\d.]+) GB", message))
    assert f"{tasks} times" in message
    assert allowed == pytest.approx(limit, abs=0.006)
    assert total == pytest.approx(base + tile + tasks * block, abs=0.006 * (tasks + 3))
    assert total >= allowed
    assert "--memory" in message


@settings(max_examples=300, deadline=None)
@given(volumes, denoisers, asked, budgets)
def test_with_a_budget_sizes_fit_or_are_refused_with_numbers(
    volume: Volume, denoiser: Greedy, wanted: PredictSettings, budget: Budget
) -> None:
    if budget.memory_bytes is None:
        choose_sizes(volume, denoiser, wanted, budget)  # nothing is refused
        return
    try:
        sizes = choose_sizes(volume, denoiser, wanted, budget)
    except PlanError as error:
        check_refusal(str(error), budget.tasks, budget.memory_bytes / GB)
        return
    memory = worker_memory(volume, denoiser, sizes, dtype_of(volume, wanted), budget.tasks)
    assert memory.total <= budget.memory_bytes
    if wanted.tile is None:
        assert memory.tile <= TILE_SHARE * budget.memory_bytes


@settings(max_examples=200, deadline=None)
@given(volumes, denoisers, asked, budgets, st.floats(1, 8))
def test_what_fits_is_not_refused_with_more_memory(
    volume: Volume, denoiser: Greedy, wanted: PredictSettings, budget: Budget, factor: float
) -> None:
    if budget.memory_bytes is None:
        return
    more = Budget(int(budget.memory_bytes * factor), budget.workers, budget.tasks, budget.device)
    try:
        choose_sizes(volume, denoiser, wanted, budget)
    except PlanError:
        return
    choose_sizes(volume, denoiser, wanted, more)


def overheads(volume: Volume, denoiser: Greedy, sizes: Sizes) -> tuple[float, float]:
    """Of computing and of reading."""
    tiles = tiling(denoiser, volume.spatial_shape, sizes.block, sizes.tile)
    return round(tiles.compute_overhead(denoiser), 6), tiles.read_overhead


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    volumes,
    denoisers,
    st.sampled_from([None, 64, 128, 256]),
    budgets,
    st.floats(1, 8),
    st.booleans(),
)
def test_more_memory_never_gives_more_halo(
    volume: Volume, denoiser: Greedy, shard: int | None, budget: Budget, factor: float, tiled: bool
) -> None:
    wanted = PredictSettings(
        shard=(shard,) * 3 if shard else None, tile=(48, 64, 32) if tiled else None
    )
    bytes_ = budget.memory_bytes or GB
    more = Budget(int(bytes_ * factor), budget.workers, budget.tasks, budget.device)
    less = Budget(bytes_, budget.workers, budget.tasks, budget.device)
    try:
        small = choose_sizes(volume, denoiser, wanted, less)
    except PlanError:
        return
    large = choose_sizes(volume, denoiser, wanted, more)
    before, after = (overheads(volume, denoiser, sizes) for sizes in (small, large))
    assert after[0] <= before[0]
    if (large.shard, large.tile) == (small.shard, small.tile):
        assert prod(large.block) >= prod(small.block)


@settings(max_examples=100, deadline=None)
@given(volumes, denoisers, budgets)
def test_blocks_grow_no_further_than_is_good_for_a_cluster(
    volume: Volume, denoiser: Greedy, budget: Budget
) -> None:
    """A dead worker loses one block, and workers end together when there are some for each."""
    try:
        sizes = choose_sizes(volume, denoiser, PredictSettings(), budget)
    except PlanError:
        return
    if sizes.block == sizes.shard:
        return
    most = MOST_BLOCK_VOXELS.get(budget.device, MOST_BLOCK_VOXELS["cpu"])
    assert prod(sizes.block) <= most
    times, channels, *_ = volume.shape
    count = times * channels * prod(grid_shape(volume.spatial_shape, sizes.block))
    assert count >= max(FEWEST_BLOCKS, BLOCKS_A_WORKER * budget.workers)


LARGE = volume_of((1000, 2000, 2000))


def test_a_larger_budget_gives_larger_tiles_of_the_same_shards() -> None:
    found = [
        choose_sizes(LARGE, Greedy(), PredictSettings(), Budget(memory * GB, 4))
        for memory in (2, 4, 16)
    ]
    assert {(sizes.chunk, sizes.shard) for sizes in found} == {((64,) * 3, (256,) * 3)}
    small, medium, large = (prod(sizes.tile) for sizes in found)
    assert 64**3 <= small < medium < large <= 256**3
    assert prod(found[-1].block) == MOST_BLOCK_VOXELS["cpu"]


def test_with_little_memory_the_shard_shrinks_too() -> None:
    sizes = choose_sizes(LARGE, Greedy(), PredictSettings(), Budget(700_000_000, 4))
    assert prod(sizes.shard) < 256**3
    assert sizes.chunk == (64, 64, 64)
    wanted = PredictSettings(shard=(256, 256, 256))  # asked for, so it is refused and not shrunk
    with pytest.raises(PlanError, match=r"block \(256, 256, 256\).* a worker has 0.700 GB"):
        choose_sizes(LARGE, Greedy(), wanted, Budget(700_000_000, 4))


def test_a_worker_that_cannot_hold_the_model_is_told_so() -> None:
    with pytest.raises(PlanError) as caught:
        choose_sizes(LARGE, Greedy(base=8 * GB), PredictSettings(), Budget(4 * GB))
    assert "8.000 GB for the program and the model" in str(caught.value)
    assert "a worker has 4.000 GB" in str(caught.value)
    assert "fewer --workers" in str(caught.value)


def test_a_tile_that_was_asked_for_is_taken_or_refused() -> None:
    wanted = PredictSettings(tile=(250, 250, 250))
    sizes = choose_sizes(LARGE, Greedy(), wanted, Budget(16 * GB))
    assert sizes.tile == (250, 252, 252)  # rounded up to the stride
    with pytest.raises(PlanError, match=r"tile \(250, 252, 252\) needs"):
        choose_sizes(LARGE, Greedy(), wanted, Budget(4 * GB))


def test_a_block_that_was_asked_for_does_not_grow() -> None:
    wanted = PredictSettings(block=(64, 128, 128))
    assert choose_sizes(LARGE, Greedy(), wanted, Budget(64 * GB)).block == (64, 128, 128)


def test_without_a_limit_a_tile_is_as_large_as_is_usual() -> None:
    denoiser = Greedy(a_voxel=1000)
    sizes = choose_sizes(LARGE, denoiser, PredictSettings(), Budget())

    def needed(tile: Shape) -> int:
        return worker_memory(LARGE, denoiser, replace(sizes, tile=tile), "uint16", 2).tile

    z, y, x = sizes.tile
    assert needed(sizes.tile) <= TILE_BYTES < needed((2 * z, y, x))


def test_a_small_gpu_has_small_tiles() -> None:
    much = Budget(64 * GB, device="cuda")
    small = replace(much, device_bytes=2 * GB)
    tiles = [choose_sizes(LARGE, Greedy(), PredictSettings(), b).tile for b in (much, small)]
    assert Greedy().memory_bytes(tiles[0]) > 2 * GB >= Greedy().memory_bytes(tiles[1])


def test_many_time_points_are_blocks_enough() -> None:
    """One image has too few blocks to grow them; a hundred have enough."""
    shape = (256, 512, 512)
    one = choose_sizes(volume_of(shape), Greedy(), PredictSettings(), Budget(64 * GB, 4))
    hundred = choose_sizes(volume_of(shape, 100), Greedy(), PredictSettings(), Budget(64 * GB, 4))
    assert prod(hundred.block) > prod(one.block)
