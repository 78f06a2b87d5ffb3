"""Taking up an output: the stored decisions stand, contradictions are named, records are whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Identity, Normalisation
from n2v_scale.errors import PlanError
from n2v_scale.execution import run_plan
from n2v_scale.geometry import Shape, as_shape
from n2v_scale.io.open import open_volume
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume import Axis, Level, Volume
from n2v_scale.io.volume_record import volume_to_dict
from n2v_scale.ledger import Ledger
from n2v_scale.memory import Budget
from n2v_scale.output import begin_output
from n2v_scale.plan import Plan, make_plan, plan_key
from n2v_scale.prediction import make_prediction_plan
from n2v_scale.resume import recorded_plan, resume_plan

NO_OPTIONS = StorageOptions()


def volume_of(shape: Shape, axes: str = "tczyx", dtype: str = "uint16", **selected: Any) -> Volume:
    """A volume that lies nowhere: nothing here reads voxels."""
    extents = {"t": 3, "c": 4, **dict(zip("zyx", shape, strict=True))}
    stored = tuple(extents[name] for name in axes)
    return Volume(
        address="/nowhere.zarr",
        kind="zarr",
        array_path="0",
        axes=tuple(Axis(name, "micrometer", 0.5, 2.0) for name in axes),
        stored_shape=stored,
        dtype=dtype,
        timepoints=selected.get("timepoints", (0, 1, 2) if "t" in axes else (0,)),
        channels=selected.get("channels", (0, 1, 2, 3) if "c" in axes else (0,)),
        chunk=as_shape([min(64, n) for n in shape]),
        shard=None,
        codec="none",
        format="OME-Zarr 0.5",
        levels=(Level("0", stored, (1.0,) * len(axes)),),
        digest="0123abcd",
    )


def plan_of(volume: Volume, denoiser: Identity | None = None, **options: Any) -> Plan:
    budget = options.pop("budget", None)
    fixed = {"normalisation": None, "device": "cpu", "threads": 1} | {
        name: options.pop(name)
        for name in ("normalisation", "device", "threads", "precision", "identity")
        if name in options
    }
    return make_plan(
        volume,
        denoiser or Identity(),
        "/model.n2v",
        "/out.zarr",
        PredictSettings(**options),
        budget=budget,
        **fixed,
    )


def record_of(plan: Plan) -> dict[str, Any]:
    """As it comes back from the output's attributes."""
    content = {"plan": plan.to_dict(), "volume": volume_to_dict(plan.volume), "key": plan.key}
    record: dict[str, Any] = json.loads(json.dumps(content))
    return record


# Records

side = st.integers(0, 9)
wishes = st.none() | st.tuples(*[st.integers(4, 100)] * 3)
positive = st.floats(1e-3, 1e6)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    axes = draw(st.sampled_from(["tczyx", "czyx", "tzyx", "zyx", "yx", "xyzct"]))
    selected: dict[str, Any] = {}
    for name, kind, extent in (("t", "timepoints", 3), ("c", "channels", 4)):
        if name in axes:
            choice = st.lists(st.integers(0, extent - 1), min_size=1, max_size=3, unique=True)
            selected[kind] = tuple(draw(choice))
    z = draw(st.integers(1, 300)) if "z" in axes else 1
    shape = (z, draw(st.integers(1, 900)), draw(st.integers(1, 900)))
    dtype = draw(st.sampled_from(["uint8", "uint16", "int16", "float32"]))
    return volume_of(shape, axes, dtype, **selected)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    volume = draw(volumes())
    channels = len(volume.channels)
    constants = st.tuples(*[positive] * channels)
    return plan_of(
        volume,
        Identity(
            draw(st.tuples(*[st.tuples(side, side)] * 3)),
            draw(st.tuples(*[st.sampled_from([1, 2, 4])] * 3)),
        ),
        normalisation=draw(st.none() | st.builds(Normalisation, constants, constants)),
        device=draw(st.sampled_from(["cpu", "cuda", "mps"])),
        threads=draw(st.integers(1, 64)),
        precision=draw(st.sampled_from(["float32", "bfloat16"])),
        identity=draw(st.text()),
        chunk=draw(wishes),
        shard=draw(wishes),
        block=draw(wishes),
        tile=draw(wishes),
        dtype=draw(st.sampled_from(["input", "float32"])),
        codec=draw(st.sampled_from(["gzip", "none"])),
        ome_version=draw(st.sampled_from(["0.4", "0.5"])),
        on_nan=draw(st.sampled_from(["error", "fill"])),
        nodata=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
    )


@settings(max_examples=200, deadline=None)
@given(plans())
def test_a_record_gives_the_plan_that_was_recorded(plan: Plan) -> None:
    found = recorded_plan(record_of(plan), "/out.zarr", NO_OPTIONS)
    assert found == plan
    assert found.key == plan.key == plan_key(record_of(plan)["plan"])
    assert list(found.iterate())[:50] == list(plan.iterate())[:50]


def ome_zarr(folder: Path) -> Volume:
    """With channels and time points selected."""
    values = np.random.default_rng(0).integers(0, 99, (3, 4, 6, 20, 24)).astype(np.uint16)
    zarr.create_array(str(folder / "v.zarr"), data=values, chunks=(1, 1, 3, 8, 8))
    return open_volume(folder / "v.zarr", timepoints=[2, 0], channels=[1, 3])


def tiff(folder: Path) -> Volume:
    values = np.random.default_rng(0).integers(0, 99, (6, 20, 24)).astype(np.uint8)
    tifffile.imwrite(folder / "v.tif", values, metadata={"axes": "ZYX"})
    return open_volume(folder / "v.tif", voxel_size=(2.0, 0.4, 0.4))


def planes(folder: Path) -> Volume:
    (folder / "planes").mkdir()
    for z in range(4):
        tifffile.imwrite(folder / "planes" / f"z{z}.tif", np.full((20, 24), z, np.uint16))
    return open_volume(folder / "planes")


@pytest.mark.parametrize("kind", [ome_zarr, tiff, planes], ids=lambda kind: kind.__name__)
def test_a_record_in_a_store_gives_the_plan(tmp_path: Path, kind: Callable[..., Volume]) -> None:
    """Through the attributes of a zarr group, and read without looking at the input."""
    volume = kind(tmp_path)
    plan = plan_of(volume, identity=volume.identity())
    store = str(tmp_path / "o.zarr")
    plan = replace(plan, output=replace(plan.output, store=store))
    plan = replace(plan, levels=recorded_plan(record_of(plan), store, NO_OPTIONS).levels)
    assert all(level.array.store == store for level in plan.levels)
    ledger = Ledger(store, "0.5")
    ledger.begin(record_of(plan))
    Path(volume.address).rename(tmp_path / "elsewhere")
    found = recorded_plan(ledger.record() or {}, store, NO_OPTIONS)
    assert found == plan
    assert found.volume.omero == volume.omero


def test_an_output_that_was_moved_is_written_where_it_is() -> None:
    plan = plan_of(volume_of((200, 300, 300)))
    found = recorded_plan(record_of(plan), "s3://bucket/moved.zarr", NO_OPTIONS)
    stores = {found.output.store, *(level.array.store for level in found.levels)}
    assert stores == {"s3://bucket/moved.zarr"}
    assert found.key == plan.key


def test_how_to_reach_a_store_is_given_and_not_recorded() -> None:
    secrets = StorageOptions.of({"key": "k", "secret": "s3cr3t"})
    volume = replace(volume_of((20, 30, 30)), storage=secrets)
    plan = replace(plan_of(volume), storage=secrets)
    assert "s3cr3t" not in json.dumps(record_of(plan))
    found = recorded_plan(record_of(plan), "/out.zarr", secrets)
    assert found.storage is found.volume.storage is secrets


# Resuming


@settings(max_examples=100, deadline=None)
@given(volumes(), st.none() | st.integers(10**9, 10**11), st.integers(1, 64), st.integers(1, 64))
def test_the_stored_geometry_stands_whatever_the_budget(
    volume: Volume, memory: int | None, workers: int, threads: int
) -> None:
    """On another machine the sizes would be others; the bytes must be the same."""
    first = plan_of(volume, budget=Budget(10**10, 2), threads=3)
    fresh = plan_of(volume, budget=Budget(memory, workers), threads=threads, device="cuda")
    resumed = resume_plan(record_of(first)["plan"], fresh, PredictSettings())
    assert resumed == first
    assert resumed.key == first.key


FIRST: dict[str, Any] = {"device": "cpu", "threads": 2, "precision": "float32", "nodata": 3.0}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device": "cuda"}, "--device was cpu, now cuda"),
        ({"threads": 8}, "--threads was 2, now 8"),
        ({"precision": "bfloat16"}, "--precision was float32, now bfloat16"),
        ({"nodata": 0.0}, "--nodata was 3.0, now 0.0"),
        ({"nodata": None}, "--nodata was 3.0, now None"),
    ],
)
def test_what_is_asked_for_and_differs_is_named(asked: dict[str, Any], said: str) -> None:
    volume = volume_of((20, 30, 40))
    first = plan_of(volume, **FIRST)
    wanted = {**FIRST, **asked}
    with pytest.raises(PlanError) as caught:
        resume_plan(record_of(first)["plan"], plan_of(volume, **wanted), PredictSettings(**wanted))
    assert str(caught.value).startswith(f"the output was begun with other settings: {said}. Use")


def test_what_is_asked_for_again_is_taken() -> None:
    volume = volume_of((20, 30, 40))
    first = plan_of(volume, **FIRST)
    again = plan_of(volume, **FIRST)
    assert resume_plan(record_of(first)["plan"], again, PredictSettings(**FIRST)) == first


def test_nan_as_no_data_is_the_same_as_before() -> None:
    volume = volume_of((20, 30, 40), dtype="float32")
    plan = plan_of(volume, nodata=float("nan"))
    again = plan_of(volume, nodata=float("nan"))
    wanted = PredictSettings(nodata=float("nan"))
    resumed = resume_plan(record_of(plan)["plan"], again, wanted)
    assert resumed.key == plan.key
    json.dumps(plan.to_dict(), allow_nan=False)  # NaN is no JSON
    assert np.isnan(recorded_plan(record_of(plan), "/out.zarr", NO_OPTIONS).nodata or 0)


def test_another_seed_would_normalise_otherwise() -> None:
    """The sample's seed is not recorded, and what came of it is."""
    volume = volume_of((20, 30, 40), "zyx")
    first = plan_of(volume, normalisation=Normalisation((1.0,), (2.0,)))
    other = plan_of(volume, normalisation=Normalisation((1.1,), (2.0,)))
    record = record_of(first)["plan"]
    assert resume_plan(record, other, PredictSettings()) == first
    with pytest.raises(PlanError, match="--seed"):
        resume_plan(record, other, PredictSettings(seed=7))
    assert resume_plan(record, first, PredictSettings(seed=7)) == first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"digest": "another"}, "the input's metadata was 0123abcd, now another"),
        ({"array_path": "1"}, "array was 0, now 1"),
        ({"timepoints": (1, 2)}, "timepoints was 0x1x2, now 1x2"),
        ({"channels": (3,)}, "channels was 0x1x2x3, now 3"),
        ({"axes": (Axis("t"), Axis("c"), Axis("z"), Axis("y"), Axis("x"))}, "the voxel size"),
    ],
)
def test_another_input_is_named(change: dict[str, Any], said: str) -> None:
    volume = volume_of((20, 30, 40))
    other = plan_of(replace(volume, **change))
    with pytest.raises(PlanError, match=said):
        resume_plan(record_of(plan_of(volume))["plan"], other, PredictSettings())


# A whole run

SHAPE = (64, 160, 160)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_sizes_that_nobody_asks_for_are_those_of_the_first_run(
    tmp_path: Path, write_volume: Callable[..., Volume], tiny_model: Path, version: str
) -> None:
    """So a machine with less memory is not refused for sizes that it would not use."""
    volume = write_volume(tmp_path / "v.zarr", np.arange(64**3, dtype=np.uint16).reshape((64,) * 3))
    first: dict[str, Any] = {"chunk": (16,) * 3, "block": (16, 32, 64), "tile": (8, 16, 16)}
    settings = PredictSettings(**first, ome_version=version)
    begun = make_prediction_plan(volume, tiny_model, tmp_path / "o.zarr", settings)
    begin_output(begun, settings)
    nothing = PredictSettings(ome_version=version)
    again = make_prediction_plan(volume, tiny_model, tmp_path / "o.zarr", nothing)
    assert again.sizes == begun.sizes
    afresh = make_prediction_plan(volume, tiny_model, tmp_path / "o.zarr", nothing, resume=False)
    assert afresh.sizes != begun.sizes
    other = PredictSettings(ome_version=version, tile=(16, 16, 16))
    asked = make_prediction_plan(volume, tiny_model, tmp_path / "o.zarr", other)
    assert (asked.block, asked.tile) == (begun.block, (16, 16, 16))


def test_a_run_goes_on_with_less_memory_or_says_how_much_it_needs(
    tmp_path: Path, write_volume: Callable[..., Volume], client: Client
) -> None:
    values = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.uint16)
    volume = write_volume(tmp_path / "v.zarr", values, chunk=(32, 64, 64))

    def planned(budget: Budget) -> Plan:
        plan = replace(plan_of(volume, budget=budget), denoiser="identity")
        output = replace(plan.output, store=str(tmp_path / "o.zarr"))
        return replace(plan, output=output, levels=())

    def run(budget: Budget, number: int) -> int:
        plan = planned(budget)
        return run_plan(
            plan, PredictSettings(), budget, only=[number], pyramid=False, client=client
        ).computed

    much, some, little = (Budget(memory) for memory in (8 * 10**9, 10**9, 275_000_000))
    assert run(much, 0) == 1
    first = planned(much)
    assert planned(little).tile < first.tile  # it would have begun otherwise
    with pytest.raises(PlanError) as caught:
        run(little, 1)
    assert f"block {first.block} with tile {first.tile} needs" in str(caught.value)
    assert "a worker has 0.275 GB" in str(caught.value)
    assert run(some, 1) == 1
    stored = Ledger(str(tmp_path / "o.zarr"), "0.5").record() or {}
    assert stored["plan"]["tile"] == list(first.tile)
    assert stored["plan"]["block"] == list(first.block)
