"""Forecasts: sums against brute force over blocks and tiles, and against what a run did."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale import costs
from n2v_scale.api import import_volume
from n2v_scale.blocks import predict_block
from n2v_scale.config import PredictSettings
from n2v_scale.costs import Forecast, forecast_plan, measure_speed
from n2v_scale.denoiser import Estimate, FloatArray, Identity, Region, open_denoiser
from n2v_scale.errors import ConfigError
from n2v_scale.foreground import open_foreground
from n2v_scale.geometry import Shape, as_shape
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Axis, Volume
from n2v_scale.memory import Budget, worker_memory
from n2v_scale.plan import Plan, make_plan
from n2v_scale.prediction import make_copy_plan
from n2v_scale.recovery import levels_of

HALO = ((2, 3), (4, 4), (0, 5))
STRIDE = (1, 2, 4)


def volume_of(shape: Shape, times: int = 1, channels: int = 1, dtype: str = "uint16") -> Volume:
    """A volume that lies nowhere, of which nobody can list what is stored."""
    return Volume(
        address="/nowhere.tif",
        kind="tiff",
        array_path="",
        axes=tuple(Axis(name) for name in "tczyx"),
        stored_shape=(times, channels, *shape),
        dtype=dtype,
        timepoints=tuple(range(times)),
        channels=tuple(range(channels)),
        chunk=as_shape([min(8, n) for n in shape]),
        shard=None,
        codec="none",
        format="",
    )


def plan_of(volume: Volume, denoiser: Identity | None = None, **options: Any) -> Plan:
    return make_plan(
        volume,
        denoiser or Identity(HALO, STRIDE),
        "identity",
        "/out.zarr",
        PredictSettings(**options),
        normalisation=None,
        device="cpu",
        threads=1,
    )


def outlook_of(plan: Plan, budget: Budget | None = None, speed: float = 1e6) -> Forecast:
    return forecast_plan(plan, budget or Budget(), speed=speed)


sizes = st.integers(1, 40)
side = st.integers(0, 6)
wishes = st.none() | st.tuples(*[st.integers(4, 30)] * 3)
plans = st.builds(
    lambda volume, halo, stride, wanted: plan_of(volume, Identity(halo, stride), **wanted),
    st.builds(
        volume_of,
        st.tuples(sizes, sizes, sizes),
        times=st.integers(1, 2),
        channels=st.integers(1, 2),
        dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    ),
    st.tuples(*[st.tuples(side, side)] * 3),
    st.tuples(*[st.sampled_from([1, 2, 4])] * 3),
    st.fixed_dictionaries(
        {
            "chunk": wishes,
            "block": wishes,
            "tile": wishes,
            "dtype": st.sampled_from(["input", "float32"]),
            "ome_version": st.sampled_from(["0.4", "0.5"]),
        }
    ),
)


@settings(max_examples=150, deadline=None)
@given(plans)
def test_sums_are_those_of_every_block_and_tile(plan: Plan) -> None:
    found = outlook_of(plan)
    blocks = list(plan.iterate())
    tiles = [tile for block in blocks for tile in plan.tiles(block)]
    read = sum(plan.read_box(block).size for block in blocks)
    useful = np.prod(plan.volume.shape)
    assert found.blocks == len(blocks)
    assert found.tiles == len(tiles)
    assert found.read_bytes == read * np.dtype(plan.volume.dtype).itemsize
    assert found.read_overhead == pytest.approx(read / useful)
    assert found.compute_overhead == pytest.approx(sum(t.padded.size for t in tiles) / useful)
    voxels = sum(np.prod(level.spec.shape) for level in levels_of(plan))
    assert found.write_bytes == voxels * np.dtype(plan.output.dtype).itemsize


@settings(max_examples=50, deadline=None)
@given(plans, st.integers(1, 9), st.floats(1, 1e6))
def test_the_time_is_that_of_the_worker_that_ends_last(
    plan: Plan, workers: int, speed: float
) -> None:
    found = outlook_of(plan, Budget(workers=workers), speed)
    per_block = np.prod(plan.volume.shape) / plan.blocks / speed
    shares = [len(range(n, plan.blocks, workers)) for n in range(workers)]
    assert found.seconds == pytest.approx(max(shares) * per_block)
    assert found.workers == sum(share > 0 for share in shares)
    assert found.empty_blocks is None


def test_a_plan_that_can_be_drawn() -> None:
    plan = plan_of(
        volume_of((8, 16, 20), channels=3), block=(8, 8, 12), tile=(8, 8, 12), chunk=(8, 8, 4)
    )
    found = outlook_of(plan, Budget(10**9, workers=5, tasks=3), speed=8 * 8 * 12.0)
    assert (found.blocks, found.tiles) == (12, 12)
    # along y: 0 to 8 + 4, and 8 - 4 to 16; along x: 0 to 12 + 5 -> 20, and 12 to 20
    assert found.compute_overhead == pytest.approx(8 * (12 + 12) * (20 + 8) / (8 * 16 * 20))
    assert found.read_overhead == found.compute_overhead
    assert found.read_bytes == 3 * 8 * 24 * 28 * 2
    assert (found.halo, found.tile) == ([[2, 3], [4, 4], [0, 5]], [8, 8, 12])
    assert (found.block, found.chunk, found.shard) == ([8, 8, 12], [8, 8, 4], [8, 8, 12])
    assert (found.workers, found.memory_allowed) == (5, 10**9)
    expected = worker_memory(plan.volume, open_denoiser("identity"), plan.sizes, "uint16", 3)
    assert found.memory == expected
    assert found.seconds == pytest.approx(3 * (8 * 16 * 20 / 4) / (8 * 8 * 12))
    assert (found.speed, found.speed_measured) == (768, False)


def test_a_petabyte_is_forecast_without_looking_at_its_blocks() -> None:
    plan = plan_of(volume_of((20_000, 100_000, 100_000), times=5), Identity(), block=(256,) * 3)
    found = outlook_of(plan, Budget(workers=1000))
    assert found.blocks == 5 * 79 * 391 * 391
    assert found.read_bytes == 2 * 10**15
    assert found.seconds > 10**6


def test_json_has_every_number() -> None:
    plan = plan_of(volume_of((8, 16, 20)))
    found = outlook_of(plan, Budget(10**9))
    content = json.loads(json.dumps(found.to_dict()))
    assert content["memory"].pop("total") == found.memory.total
    memory = type(found.memory)(**content["memory"])
    assert Forecast(**{**content, "memory": memory}) == found


@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_a_speed_that_is_none(speed: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        outlook_of(plan_of(volume_of((8, 16, 20))), speed=speed)


# Files


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("chunk", [(4, 4, 4), (8, 8, 8), (64, 64, 64)])
def test_no_more_files_are_written_than_were_forecast(
    tmp_path: Path,
    write_volume: Callable[..., Volume],
    client: Client,
    version: str,
    chunk: Shape,
) -> None:
    """Noise without zeros, so that every shard is stored."""
    values = np.random.default_rng(0).integers(1, 99, (2, 15, 20, 25)).astype(np.uint8)
    volume = write_volume(tmp_path / "v.zarr", values, "czyx", chunk=(1, 8, 8, 8))
    options: dict[str, Any] = {"ome_version": version, "chunk": chunk}
    summary = import_volume(volume, tmp_path / "o.zarr", client=client, **options)
    plan = make_copy_plan(volume, tmp_path / "o.zarr", PredictSettings(**options))
    written = sum(path.is_file() for path in Path(summary.output).rglob("*"))
    assert outlook_of(plan).files == written
    assert len(levels_of(plan)) > 1 or chunk == (64, 64, 64)


# Empty blocks

SHAPE = (8, 32, 64)
SIZES: dict[str, Any] = {"chunk": (8, 8, 8), "block": (8, 8, 8), "tile": (8, 8, 8)}


@pytest.fixture
def holes(tmp_path: Path) -> Callable[..., Volume]:
    """A volume of which the chunks in the middle were never written."""

    def make(**options: Any) -> Volume:
        values = np.random.default_rng(0).integers(1, 99, SHAPE).astype(options.get("dtype", "u2"))
        array = zarr.create_array(
            str(tmp_path / "v.zarr"),
            shape=SHAPE,
            chunks=(8, 8, 8),
            **{"dtype": values.dtype, **options},
        )
        array[:, :, :16] = values[:, :, :16]
        array[:, :, 48:] = values[:, :, 48:]
        return open_volume(tmp_path / "v.zarr")

    return make


def skipped(plan: Plan) -> list[int]:
    """The blocks that need no forward pass, as found by running all."""
    reports = [predict_block(plan, block) for block in plan.iterate()]
    return [r.number for r in reports if r.skipped == r.voxels]


@pytest.mark.parametrize(
    ("halo", "fill", "nodata", "empty"),
    [
        (((0, 0), (0, 0), (0, 0)), 0, None, 16),  # 4 x 4 blocks were never written
        (((0, 0), (0, 0), (1, 1)), 0, None, 8),  # those beside what was written need it
        (((0, 0), (1, 1), (1, 1)), 7, None, 4),  # and those at a face see it
        (((1, 0), (0, 0), (0, 0)), 0, None, 0),
        (((0, 0), (1, 1), (1, 1)), 7, 7, 16),  # no data is kept, whatever is around it
    ],
)
def test_blocks_of_which_nothing_is_stored(
    tmp_path: Path, holes: Callable[..., Volume], halo: Any, fill: int, nodata: Any, empty: int
) -> None:
    plan = plan_of(holes(fill_value=fill), Identity(halo), nodata=nodata, **SIZES)
    found = outlook_of(plan, Budget(workers=2))
    assert (found.empty_blocks, found.empty_is_estimate) == (empty, False)
    assert found.seconds == pytest.approx((32 - empty) / 2 * 8**3 / 1e6)
    written = replace(plan, output=replace(plan.output, store=str(tmp_path / "o.zarr")))
    assert len(skipped(written)) == empty


def test_blocks_of_nan_are_not_empty(holes: Callable[..., Volume]) -> None:
    """A forward pass is run over them, or refused."""
    volume = holes(dtype="f4", fill_value=float("nan"))
    assert outlook_of(plan_of(volume, Identity(), on_nan="fill", **SIZES)).empty_blocks == 0


def test_blocks_outside_a_mask(tmp_path: Path, holes: Callable[..., Volume]) -> None:
    mask = np.zeros((1, 4, 8), bool)
    mask[:, :2, :6] = True  # of blocks, this one has a voxel each
    zarr.create_array(str(tmp_path / "m.zarr"), data=mask, chunks=(1, 4, 8))
    volume = holes()
    over = open_foreground(tmp_path / "m.zarr", volume)
    plan = replace(plan_of(volume, Identity(), **SIZES), foreground=over)
    found = outlook_of(plan)
    assert found.empty_blocks == 32 - 12 + 8  # outside, or inside and not stored
    written = replace(plan, output=replace(plan.output, store=str(tmp_path / "o.zarr")))
    assert len(skipped(written)) == found.empty_blocks


def test_of_many_blocks_some_are_asked(
    holes: Callable[..., Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "MOST_ASKED", 24)
    plan = plan_of(holes(), Identity(), **SIZES)
    found = outlook_of(plan)
    assert found.empty_is_estimate
    assert found.empty_blocks in [round(n * 32 / 24) for n in range(8, 17)]  # of 32, 16 are
    assert outlook_of(plan) == found


# Speed


class Timed(Identity):
    """Says what it was given; each forward pass takes as many ticks as it has voxels."""

    def __init__(self, clock: list[float], **options: Any) -> None:
        super().__init__(**options)
        self.clock = clock
        self.given: list[tuple[Shape, Region]] = []

    def denoise(self, tile: FloatArray, region: Region) -> Estimate:
        self.given.append((as_shape(tile.shape), region))
        self.clock[0] += tile.size / 1000
        return super().denoise(tile, region)


def test_the_speed_is_in_useful_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that takes 1000 voxels a second, of which the halo takes its part."""
    clock = [0.0]
    monkeypatch.setattr(costs, "perf_counter", lambda: clock[0])
    denoiser = Timed(clock, halo=((8, 8), (8, 8), (8, 8)), stride=(4, 4, 4))
    plan = plan_of(volume_of((64, 64, 64)), denoiser, tile=(32, 32, 32), block=(32, 64, 64))
    speed = measure_speed(plan, denoiser)
    assert speed == pytest.approx(1000 / outlook_of(plan).compute_overhead)
    assert {shape for shape, _ in denoiser.given} == {(48, 48, 48)}  # a tile with its halo


def test_a_large_tile_is_measured_on_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Timed([0.0], halo=((3, 5), (8, 8), (8, 8)), stride=(4, 4, 4))
    plan = plan_of(volume_of((512, 512, 512)), denoiser, tile=(256, 256, 256))
    assert measure_speed(plan, denoiser) > 0
    shapes = {shape for shape, _ in denoiser.given}
    assert shapes == {(96 + 4 + 8, 112, 112)}


def test_without_a_speed_one_is_measured() -> None:
    plan = plan_of(volume_of((8, 32, 32)))
    found = forecast_plan(plan, Budget(workers=3))
    assert found.speed_measured
    assert found.speed > 0
    assert found.seconds == pytest.approx(8 * 32 * 32 / found.speed)
