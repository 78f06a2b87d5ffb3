"""What an earlier run left: damage is found, and what was made from it is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Identity
from n2v_scale.errors import PlanError
from n2v_scale.execution import run_plan
from n2v_scale.geometry import Shape, as_shape
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume import Axis, Volume
from n2v_scale.ledger import Ledger
from n2v_scale.memory import Budget
from n2v_scale.plan import Plan, make_plan
from n2v_scale.progress import NoProgress
from n2v_scale.recovery import (
    damaged_by_size,
    forget,
    levels_of,
    recheck_input,
    resized,
    rewritten,
)


def plan_of(volume: Volume, store: Path | str = "/out.zarr", **options: Any) -> Plan:
    denoiser = options.pop("denoiser", Identity())
    return make_plan(
        volume,
        denoiser,
        "identity",
        str(store),
        PredictSettings(**options),
        normalisation=None,
        device="cpu",
        threads=1,
    )


# What was made from a block


def volume_of(shape: Shape, voxel: tuple[float, ...], times: int, channels: int) -> Volume:
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


class Unmarked(Ledger):
    """A ledger that is only told what to forget."""

    calls: list[tuple[str, set[int]]]

    def unmark(self, path: str, numbers: Any = None) -> None:
        self.calls.append((path, set(numbers)))


def forgotten(plan: Plan, damaged: dict[str, list[int]]) -> list[tuple[str, set[int]]]:
    ledger = Unmarked(plan.output.store, "0.5")
    object.__setattr__(ledger, "calls", [])
    forget(plan, ledger, damaged)
    return ledger.calls


def made_from(plan: Plan, numbers: list[int]) -> dict[str, set[int]]:
    """By level, the blocks of which a voxel is a mean of damaged ones, however far below."""
    bad = np.zeros(plan.volume.shape, bool)
    for number in numbers:
        block = plan.grid.at(number)
        bad[(block.t, block.c, *block.write.slices)] = True
    found = {}
    for level, made in zip(levels_of(plan)[1:], plan.levels, strict=True):
        for axis, factor in enumerate(made.factors, start=2):
            starts = np.arange(0, bad.shape[axis], factor)
            bad = np.logical_or.reduceat(bad, starts, axis=axis)
        found[level.spec.path] = {
            block.number
            for block in level.grid
            if bad[(block.t, block.c, *block.write.slices)].any()
        }
    return found


sizes = st.integers(1, 40)
plans = st.builds(
    lambda shape, voxel, times, channels, chunk, block, version: plan_of(
        volume_of(shape, voxel, times, channels), chunk=chunk, block=block, ome_version=version
    ),
    st.tuples(sizes, sizes, sizes),
    st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.4, 0.4), (1.0, 5.0, 0.5)]),
    st.integers(1, 2),
    st.integers(1, 2),
    st.tuples(*[st.integers(2, 8)] * 3),
    st.none() | st.tuples(*[st.integers(4, 16)] * 3),
    st.sampled_from(["0.4", "0.5"]),
)


@settings(max_examples=150, deadline=None)
@given(plans, st.data())
def test_what_was_made_from_a_damaged_block_is_forgotten(plan: Plan, data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, plan.blocks - 1), max_size=4, unique=True))
    calls = forgotten(plan, {"0": numbers})
    expected = {**made_from(plan, numbers), "0": set(numbers)}
    assert {path: found for path, found in calls if found or path in expected} == expected
    # from below: a kill in between leaves no level that looks finished and is not
    assert [path for path, _ in calls] == [str(n) for n in range(len(plan.levels), -1, -1)]


def test_damage_below_leaves_what_is_above_alone() -> None:
    plan = plan_of(volume_of((32, 32, 32), (1.0, 1.0, 1.0), 1, 1), chunk=(4, 4, 4), block=(8, 8, 8))
    assert forgotten(plan, {"2": [0]}) == [("3", {0}), ("2", {0}), ("1", set()), ("0", set())]
    # the last of eight blocks of level 1 is a part of level 2's only block
    assert forgotten(plan, {"1": [7]}) == [("3", {0}), ("2", {0}), ("1", {7}), ("0", set())]
    both = dict(forgotten(plan, {"1": [7], "0": [0]}))
    assert (both["0"], both["1"]) == ({0}, {0, 7})


# Damage that a look at the store finds


@dataclass(frozen=True)
class Copied:
    """A finished output with its plan; block 3 holds only zeros, so it has no file."""

    plan: Plan
    ledger: Ledger

    def shard(self, x: int, level: str = "0") -> Path:
        return Path(self.plan.output.store, level, "c", "0", "0", str(x))

    def done(self, level: int = 0) -> list[int]:
        one = levels_of(self.plan)[level]
        found: list[int] = np.flatnonzero(self.ledger.done(one.spec.path, len(one.grid))).tolist()
        return found


@pytest.fixture
def copied(tmp_path: Path, write_volume: Callable[..., Volume], client: Client) -> Copied:
    values = np.random.default_rng(0).integers(1, 99, (8, 16, 64)).astype(np.uint16)
    values[..., 48:] = 0
    volume = write_volume(tmp_path / "v.zarr", values, chunk=(8, 16, 16))
    settings = PredictSettings(chunk=(8, 8, 8), block=(8, 16, 16))
    plan = plan_of(volume, tmp_path / "o.zarr", **settings.model_dump(exclude_unset=True))
    run_plan(plan, settings, Budget(), client=client)
    return Copied(plan, Ledger(plan.output.store, "0.5"))


def test_an_output_that_is_as_it_was_written(copied: Copied, client: Client) -> None:
    assert not copied.shard(3).exists()
    assert damaged_by_size(copied.plan, copied.ledger) == {}
    for level in levels_of(copied.plan):
        assert rewritten(level, StorageOptions(), client, copied.ledger, NoProgress()) == []


@pytest.mark.parametrize("damage", ["torn", "empty", "gone", "longer", "appeared"])
def test_shards_of_another_size_are_found(copied: Copied, damage: str) -> None:
    shard = copied.shard(3 if damage == "appeared" else 1)
    content = b"" if damage == "appeared" else shard.read_bytes()
    new = {
        "torn": content[:-1],
        "empty": b"",
        "gone": None,
        "longer": content + b"x",
        "appeared": b"what an interrupted copy left",
    }[damage]
    if new is None:
        shard.unlink()
    else:
        shard.write_bytes(new)
    assert damaged_by_size(copied.plan, copied.ledger) == {"0": [3 if damage == "appeared" else 1]}


def test_each_level_is_looked_at(copied: Copied) -> None:
    copied.shard(0, "1").unlink()
    copied.shard(2).write_bytes(b"")
    assert damaged_by_size(copied.plan, copied.ledger) == {"0": [2], "1": [0]}


def test_blocks_that_are_not_done_are_not_looked_at(copied: Copied) -> None:
    copied.shard(1).unlink()
    copied.ledger.unmark("0", [1])
    assert damaged_by_size(copied.plan, copied.ledger) == {}


def test_more_blocks_than_are_looked_at_at_once(
    copied: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2v_scale.recovery.BATCH", 2)
    for number in (0, 2):
        copied.shard(number).unlink()
    assert resized(levels_of(copied.plan)[0], copied.ledger) == [0, 2]


def test_a_flipped_bit_is_found_by_reading(copied: Copied, client: Client) -> None:
    shard = copied.shard(2)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert damaged_by_size(copied.plan, copied.ledger) == {}
    full = levels_of(copied.plan)[0]
    assert rewritten(full, StorageOptions(), client, copied.ledger, NoProgress()) == [2]
    assert copied.done() == [0, 1, 2, 3]  # looking changes nothing


def test_what_is_forgotten_is_made_again(copied: Copied, client: Client) -> None:
    expected = {path: path.read_bytes() for path in map(copied.shard, range(3))}
    copied.shard(1).write_bytes(b"torn")
    forget(copied.plan, copied.ledger, damaged_by_size(copied.plan, copied.ledger))
    assert copied.done() == [0, 2, 3]
    assert copied.done(1) == [1]  # block 0 was made from 0 and 1
    copied.ledger.update(complete=False)
    settings = PredictSettings()
    summary = run_plan(copied.plan, settings, Budget(), client=client)
    assert summary.computed == 1
    assert {path: path.read_bytes() for path in expected} == expected


# An input that changed


def change(copied: Copied, chunk: int) -> None:
    """Other voxels in one chunk of the input."""
    other = Path(copied.plan.volume.address, "0", "c", "0", "0", "0")
    Path(copied.plan.volume.address, "0", "c", "0", "0", str(chunk)).write_bytes(other.read_bytes())


def test_blocks_whose_input_changed_are_forgotten(copied: Copied, client: Client) -> None:
    change(copied, 2)
    assert recheck_input(copied.plan, client, copied.ledger, NoProgress()) == 1
    assert copied.done() == [0, 1, 3]
    assert copied.done(1) == [0]


def test_an_input_that_is_as_it_was(copied: Copied, client: Client) -> None:
    assert recheck_input(copied.plan, client, copied.ledger, NoProgress()) == 0
    assert copied.done() == [0, 1, 2, 3]
    assert copied.done(1) == [0, 1]


def test_an_input_that_cannot_be_read_any_more(copied: Copied, client: Client) -> None:
    Path(copied.plan.volume.address, "0", "c", "0", "0", "1").write_bytes(b"torn")
    assert recheck_input(copied.plan, client, copied.ledger, NoProgress()) == 1
    assert copied.done() == [0, 2, 3]


def test_a_block_depends_on_all_that_it_reads(copied: Copied, client: Client) -> None:
    """With a halo, the neighbours of what changed are made again as well."""
    plan = replace(copied.plan, halo=((0, 0), (0, 0), (0, 1)))
    path, grid = plan.output.path, plan.grid
    for block in grid:
        values = plan.volume.read(block.t, block.c, plan.read_box(block))
        marker = next(m for m in copied.ledger.markers(path, 4) if m.number == block.number)
        crc = crc32(values.tobytes())
        copied.ledger.fold(path, [replace(marker, read_checksum=crc)])
    change(copied, 2)
    assert recheck_input(plan, client, copied.ledger, NoProgress()) == 2
    assert copied.done() == [0, 3]


def test_another_volume_in_the_same_place_is_refused(copied: Copied, client: Client) -> None:
    address = copied.plan.volume.address
    values = np.random.default_rng(9).integers(1, 99, (8, 16, 64)).astype(np.uint16)
    zarr.open_array(f"{address}/0", mode="r+")[...] = values
    with pytest.raises(PlanError, match=r"is not the volume that .* was begun from"):
        recheck_input(copied.plan, client, copied.ledger, NoProgress())
    assert copied.done() == [0, 1, 2, 3]


def test_levels_are_in_order_from_fine_to_coarse(copied: Copied) -> None:
    found = levels_of(copied.plan)
    assert [level.spec.path for level in found] == ["0", "1", "2", "3"][: len(found)]
    assert found[0].grid == copied.plan.grid
    shapes = [as_shape(level.spec.spatial_shape) for level in found]
    assert shapes == sorted(shapes, reverse=True)
    assert all(level.grid.shape == level.spec.spatial_shape for level in found)
