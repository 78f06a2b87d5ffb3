"""What a worker takes: a bound on what blocks really read, and sums that add up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Identity
from n2v_scale.errors import PlanError
from n2v_scale.geometry import Shape, as_shape
from n2v_scale.io.volume import Axis, Volume
from n2v_scale.memory import Budget, Sizes, WorkerMemory, check_budget, read_shape, worker_memory
from n2v_scale.plan import Plan, make_plan


class MadeUp(Identity):
    """A denoiser that says how much it takes."""

    base_bytes = 3_000_000_000

    def memory_bytes(self, *_: Any) -> int:
        return 1_500_000_000


SIZES = Sizes((8, 8, 8), (16, 16, 16), (32, 32, 32), (16, 16, 16))


def volume_of(shape: Shape, axes: str = "zyx", dtype: str = "uint16") -> Volume:
    """A volume that lies nowhere: forecasts follow from metadata alone."""
    extents = dict(zip("zyx", shape, strict=True))
    return Volume(
        address="/nowhere",
        kind="zarr",
        array_path="",
        axes=tuple(Axis(name) for name in axes),
        stored_shape=tuple(extents.get(name, 1) for name in axes),
        dtype=dtype,
        timepoints=(0,),
        channels=(0,),
        chunk=as_shape([min(8, n) for n in shape]),
        shard=None,
        codec="none",
        format="",
    )


def plan_of(volume: Volume, denoiser: Identity, **options: Any) -> Plan:
    return make_plan(
        volume,
        denoiser,
        "identity",
        "/out.zarr",
        PredictSettings(**options),
        normalisation=None,
        device="cpu",
        threads=1,
    )


sizes = st.integers(1, 40)
side = st.integers(0, 6)
wishes = st.none() | st.tuples(*[st.integers(3, 24)] * 3)
plans = st.builds(
    lambda shape, halo, stride, block, tile, chunk: plan_of(
        volume_of(shape), Identity(halo, stride), block=block, tile=tile, chunk=chunk
    ),
    st.tuples(sizes, sizes, sizes),
    st.tuples(*[st.tuples(side, side)] * 3),
    st.tuples(*[st.sampled_from([1, 2, 4])] * 3),
    wishes,
    wishes,
    st.tuples(*[st.integers(3, 9)] * 3),
)


@settings(max_examples=150, deadline=None)
@given(plans)
def test_no_block_reads_more_than_is_forecast(plan: Plan) -> None:
    bound = read_shape(plan.shape, plan.sizes, plan.halo, plan.stride)
    for block in plan.iterate():
        read = plan.read_box(block).shape
        assert all(r <= b for r, b in zip(read, bound, strict=True)), (block, read, bound)
    assert all(b <= n for b, n in zip(bound, plan.shape, strict=True))


@settings(max_examples=100, deadline=None)
@given(plans)
def test_the_bound_is_reached_where_tiles_divide_blocks(plan: Plan) -> None:
    """Else some memory would lie idle; the innermost block reads all that is forecast."""
    for axis in range(3):
        n, b, t = plan.shape[axis], plan.block[axis], plan.tile[axis]
        bound = read_shape(plan.shape, plan.sizes, plan.halo, plan.stride)[axis]
        if b % t == 0 and n >= 5 * b:
            assert bound == max(plan.read_box(block).shape[axis] for block in plan.iterate())


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (SIZES, (44, 42, 40)),  # 32 + 4 + 8, 32 + 4 + 6, and all there is
        (replace(SIZES, tile=(24, 16, 16)), (84, 42, 40)),  # tiles begin and end outside a block
        (replace(SIZES, block=(112, 48, 48)), (100, 58, 40)),
    ],
)
def test_what_a_block_reads(sizes: Sizes, expected: Shape) -> None:
    halo = ((3, 5), (4, 5), (9, 9))
    assert read_shape((100, 100, 40), sizes, halo, (4, 2, 4)) == expected


def test_the_parts_add_up() -> None:
    assert WorkerMemory(base=7, tile=11, block=13, tasks=3).total == 7 + 11 + 3 * 13


def forecast(**changes: Any) -> WorkerMemory:
    volume = changes.pop("volume", volume_of((64, 64, 64)))
    options = {"denoiser": MadeUp(), "sizes": SIZES, "dtype": "uint16", "tasks": 2} | changes
    return worker_memory(volume, **options)


def test_a_block_holds_what_it_reads_and_what_it_writes() -> None:
    plain = forecast()
    assert (plain.base, plain.tile, plain.tasks) == (3_000_000_000, 1_500_000_000, 2)
    read = write = 2 * 32**3
    encoding = 3 * 2 * 16**3
    assert plain.block == read + write + encoding
    assert forecast(dtype="float32").block == read + 2 * write + 2 * encoding
    bytes_ = forecast(volume=volume_of((64, 64, 64), dtype="uint8"))
    assert bytes_.block == read // 2 + write + encoding


def test_standard_deviations_are_a_second_result() -> None:
    both, one = forecast(dtype="float32", parts=2), forecast(dtype="float32")
    assert both.block == one.block + 4 * 32**3
    assert (both.base, both.tile) == (one.base, one.tile)


def test_more_blocks_in_hand_take_more() -> None:
    assert forecast(tasks=8).total == forecast().total + 6 * forecast().block


def test_a_halo_and_large_input_chunks_take_more() -> None:
    assert forecast(denoiser=MadeUp(((8, 8),) * 3)).block > forecast().block
    planes = replace(volume_of((64, 512, 512)), chunk=(1, 512, 512))
    assert forecast(volume=planes).block >= 2 * 10 * 512 * 512 * 2
    many = replace(planes, chunk_images=6)  # channels and time points that are decoded for nothing
    assert forecast(volume=many).block >= 6 * 2 * 10 * 512 * 512 * 2


def test_another_order_of_axes_is_copied() -> None:
    """Into (z, y, x): two of what is read are there for a moment."""
    ordered = forecast(volume=volume_of((64, 64, 64), "tczyx")).block
    turned = forecast(volume=volume_of((64, 64, 64), "xyz")).block
    assert ordered == forecast().block
    assert turned == ordered + 2 * 32**3


def test_a_mask_is_read_with_every_block() -> None:
    mask = SimpleNamespace(memory_bytes=lambda region: region.size // 64)
    assert forecast(mask=mask).block == forecast().block + 32**3 // 64


# The check


def check(limit: int | None) -> None:
    check_budget(volume_of((64, 64, 64)), MadeUp(), SIZES, "uint16", Budget(limit))


def test_the_budget_is_the_last_byte() -> None:
    needed = forecast().total
    check(None)
    check(needed)
    with pytest.raises(PlanError):
        check(needed - 1)


def test_a_forward_pass_must_fit_into_the_gpu_too() -> None:
    """MadeUp takes 1.5 GB for one, and 4.5 GB in all."""
    volume = volume_of((64, 64, 64))
    fits = Budget(10**10, device="cuda", device_bytes=1_500_000_000)
    check_budget(volume, MadeUp(), SIZES, "uint16", fits)
    small = replace(fits, device_bytes=1_499_999_999)
    with pytest.raises(PlanError, match=r"needs 1.500 GB and the cuda has 1.500 GB.*--tile"):
        check_budget(volume, MadeUp(), SIZES, "uint16", small)


def test_a_refusal_has_the_numbers_and_the_cures() -> None:
    with pytest.raises(PlanError) as caught:
        check(4_000_000_000)
    text = str(caught.value)
    for words in (
        "block (32, 32, 32) with tile (16, 16, 16) needs 4.500 GB",
        "3.000 GB for the program and the model",
        "1.500 GB for the forward pass",
        "2 times 0.000 GB",
        "a worker has 4.000 GB",
        "--block, --tile or --shard",
        "--memory",
    ):
        assert words in text
