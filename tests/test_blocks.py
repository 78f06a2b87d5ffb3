"""Exactness: blocks and tiles do not matter, whatever they are."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

import n2v_scale.blocks as blocks_module
from n2v_scale.api import train
from n2v_scale.blocks import as_dtype, denoise_tiles, predict_block
from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import IDENTITY, Denoiser, Identity, Normalisation, OpenOptions
from n2v_scale.errors import InputError, OutputError
from n2v_scale.events import Events
from n2v_scale.geometry import NO_HALO, Box, Shape, padded_shape, round_up
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.io.writer import read_output
from n2v_scale.ledger import Ledger
from n2v_scale.levels import Driver, LevelTotals, run_level
from n2v_scale.lock import driver_lock
from n2v_scale.methods.base import TensorEstimate
from n2v_scale.model import Model
from n2v_scale.nets import NetworkConfig
from n2v_scale.network_config import (
    BlindUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    UNetConfig,
)
from n2v_scale.noise import NoiseModel
from n2v_scale.output import begin_output, check_output
from n2v_scale.plan import Plan, make_plan
from n2v_scale.posterior import with_own_value
from n2v_scale.progress import NoProgress
from n2v_scale.recovery import levels_of
from n2v_scale.window import Crew

CONSTANTS = Normalisation((100.0, 50.0), (10.0, 20.0))
HERE = Path(__file__).parent


def plan_for(
    volume: Volume,
    denoiser: Denoiser,
    *,
    address: str = IDENTITY,
    store: str = "/nowhere.zarr",
    normalisation: Normalisation | None = None,
    **options: Any,
) -> Plan:
    on_nan = options.pop("on_nan", "error")
    plan = make_plan(
        volume,
        denoiser,
        address,
        store,
        PredictSettings(**options),
        normalisation=normalisation,
        device="cpu",
        threads=1,
    )
    return replace(plan, on_nan=on_nan)


def begin(plan: Plan, **options: Any) -> None:
    check_output(plan)
    begin_output(plan, PredictSettings(**options))


def run_missing(plan: Plan, client: Client) -> LevelTotals:
    """What is missing of the full resolution, on a cluster."""
    totals, ledger = LevelTotals(), Ledger(plan.output.store, "0.5")
    missing = ~ledger.done("0", plan.blocks)
    with driver_lock(plan.output.store) as lock:
        driver = Driver(Crew(client), ledger, lock, NoProgress(), Events())
        task = partial(predict_block, plan)
        run_level(driver, task, levels_of(plan)[0], missing, totals, name="test")
    return totals


def done(plan: Plan) -> list[int]:
    ledger = Ledger(plan.output.store, "0.5")
    ledger.fold_loose("0")
    return ledger.done("0", plan.blocks).nonzero()[0].tolist()


def run_all(plan: Plan, **options: Any) -> np.ndarray:
    """Prepare the output, compute every block here, and read all of it: (t, c, z, y, x)."""
    begin(plan, **options)
    for block in plan.iterate():
        predict_block(plan, block)
    array = zarr.open_array(plan.output.store, path="0", mode="r")[...]
    return np.asarray(array).reshape(plan.volume.shape)


@contextmanager
def denoised_by(denoiser: Denoiser) -> Iterator[None]:
    """``denoiser`` instead of the one that the plan names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "opened", lambda *_: denoiser)
        yield


def write_plain(path: Path, data: np.ndarray, **options: Any) -> Volume:
    """Without OME metadata, which would take longer."""
    zarr.create_array(str(path), data=data, **options)
    return open_volume(path)


# The identity, bit for bit


@st.composite
def cut(draw: st.DrawFn, n: int) -> int:
    """A length that cuts ``n`` into at most three, or none."""
    return min(n + 3, -(-n // draw(st.integers(1, 3))) + draw(st.integers(0, 2)))


@st.composite
def random_data(draw: st.DrawFn) -> np.ndarray:
    """(t, c, z, y, x) of every type that we take, with its odd values."""
    t, c = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 2)]))
    n = st.integers(1, 17)
    shape = (t, c, draw(st.just(1) | n), draw(n), draw(n))
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint16", "int16", "float32"])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        data = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    else:
        data = (rng.standard_normal(shape) * 10.0 ** rng.integers(-30, 30, shape)).astype(dtype)
        odd = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-45, 3e38], np.float32)
        data[rng.random(shape) < 0.2] = rng.choice(odd)
    empty = Box(tuple(k // 2 for k in shape[2:]), shape[2:])
    if draw(st.booleans()):
        data[(..., *empty.slices)] = 0  # shards that are not stored
    return data


@settings(max_examples=30, deadline=None)
@given(st.data(), random_data())
def test_the_identity_is_the_identity_under_every_blocking(
    data: st.DataObject, image: np.ndarray
) -> None:
    shape = image.shape[2:]
    side, stride = st.integers(0, 3), st.sampled_from([1, 2, 4])
    identity = Identity(
        data.draw(st.tuples(*[st.tuples(side, side)] * 3)), data.draw(st.tuples(*[stride] * 3))
    )
    geometry = {
        "block": data.draw(st.none() | st.tuples(*(cut(n) for n in shape))),
        "shard": data.draw(st.none() | st.tuples(*(cut(n) for n in shape))),
        "chunk": data.draw(st.none() | st.tuples(*(cut(n) for n in shape))),
        "tile": data.draw(st.none() | st.tuples(*(cut(n) for n in shape))),
        "ome_version": data.draw(st.sampled_from(["0.4", "0.5"])),
        "on_nan": "keep",
    }
    stored_chunk = data.draw(st.tuples(*(cut(n) for n in shape)))
    with tempfile.TemporaryDirectory() as folder, denoised_by(identity), np.errstate(all="ignore"):
        volume = write_plain(Path(folder, "v.zarr"), image, chunks=(1, 1, *stored_chunk))
        plan = plan_for(volume, identity, store=str(Path(folder, "o.zarr")), **geometry)
        found = run_all(plan, **{k: v for k, v in geometry.items() if k != "on_nan"})
    assert found.dtype == image.dtype
    assert found.tobytes() == image.tobytes()


# A network: tiled against the whole volume, in float64


UNETS = {
    "unet": UNetConfig(depth=2, filters=2, pooled=(1, 2, 2)),
    "flat unet": UNetConfig(depth=1, filters=2, kernel=(1, 3, 3), pooled=(0, 1, 1)),
    "norm unet": UNetConfig(depth=1, filters=2, pooled=(1, 1, 1), batch_norm=True),
    "filter-unet": FilterUNetConfig(
        (3, 5, 5), UNetConfig(in_channels=2, depth=2, filters=2, pooled=(0, 1, 2))
    ),
    "filter": FilterConfig((3, 5, 5)),
    "blind-unet": BlindUNetConfig(
        (3, 5, 3),
        2,
        UNetConfig(in_channels=3, out_channels=2, depth=1, filters=2, pooled=(0, 0, 1)),
    ),
    "filter-unet 1": FilterUNetConfig(
        (5, 3, 3), UNetConfig(in_channels=2, depth=1, filters=3, pooled=(1, 1, 1))
    ),
}
NOISE = (NoiseModel(gain=0.5, offset=90.0, read_noise=3.0),)
MODELS = [*UNETS, "filter with its posterior", "blind-unet with its posterior"]


@pytest.fixture(scope="session")
def model_of(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]
) -> Callable[[str], Model]:
    """One of :data:`MODELS`, in float64."""

    @lru_cache
    def made(name: str) -> Model:
        network, posterior, _ = name.partition(" with its posterior")
        config: NetworkConfig = UNETS[network]
        folder = tmp_path_factory.mktemp("models") / "model"
        write_model(folder, config, offset=CONSTANTS.offset, scale=CONSTANTS.scale)
        model = Model(folder, OpenOptions(CONSTANTS, noise=NOISE if posterior else None))
        model.network.double()
        return model

    return made


def whole_volume(model: Model, values: np.ndarray, channel: int = 0) -> np.ndarray:
    """One forward pass over a volume (z, y, x), padded with zeros to the stride."""
    shape: Shape = values.shape
    offset, scale = CONSTANTS.offset[channel], CONSTANTS.scale[channel]
    padded = np.zeros(padded_shape(shape, model.stride), values.dtype)
    padded[Box.whole(shape).slices] = (values - offset) / scale
    x = torch.from_numpy(padded)[None, None]
    with torch.inference_mode():
        found = model.method.infer(model.network, x, NO_HALO, Box.whole(shape))
        if model.options.noise:
            here = (..., *Box.whole(shape).slices)
            std = None if found.std is None else found.std[here]
            noise = model.options.noise[channel].normalised(offset, scale)
            found = with_own_value(x[here], TensorEstimate(found.mean[here], std), noise)
    result: np.ndarray = found.mean[0, 0].numpy()[Box.whole(shape).slices] * scale + offset
    return result


def tiled(model: Model, plan: Plan, values: np.ndarray) -> np.ndarray:
    """Block by block, tile by tile."""
    out = np.full(values.shape, np.nan, values.dtype)
    for block in plan.iterate():
        if (block.t, block.c) == (0, 0):
            box = plan.read_box(block)
            tiles = plan.tiles(block)
            data = values[box.slices]
            (out[block.write.slices],) = denoise_tiles(model, plan, block, tiles, data, box)
    return out


def bare_volume(shape: Shape) -> Volume:
    """Of which only the shape is looked at."""
    axes = open_axes()
    return Volume("/nowhere", "zarr", "", axes, shape, "float32", (0,), (0,), shape, None, "", "")


@lru_cache
def open_axes() -> Any:
    from n2v_scale.io.volume import Axis

    return tuple(Axis(a) for a in "zyx")


lengths = st.sampled_from([1, 2, 3, 5, 8, 9, 16, 17, 23, 31])


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=7, deadline=None)
@given(
    data=st.data(),
    shape=st.tuples(st.just(1) | st.integers(1, 12), lengths, lengths),
    tile=st.tuples(*[st.sampled_from([4, 6, 8, 12, 16])] * 3),
)
def test_tiles_equal_the_whole_volume(
    model_of: Callable[[str], Model], name: str, data: st.DataObject, shape: Shape, tile: Shape
) -> None:
    model = model_of(name)
    block = data.draw(st.none() | st.tuples(*(cut(n) for n in shape)))
    values = np.random.default_rng(0).normal(100, 10, shape)
    expected = whole_volume(model, values)
    plan = plan_for(bare_volume(shape), model, tile=tile, block=block)
    found = tiled(model, plan, values)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * max(1, expected.std()))


@pytest.mark.parametrize("name", MODELS)
def test_the_comparison_sees_a_halo_that_is_too_small(
    model_of: Callable[[str], Model], name: str
) -> None:
    """The test above can fail."""
    model = model_of(name)
    shape = (4, 48, 48)
    values = np.random.default_rng(0).normal(100, 10, shape)
    expected = whole_volume(model, values)
    plan = plan_for(bare_volume(shape), model, tile=(4, 8, 8), block=(4, 48, 48))
    assert np.abs(tiled(model, plan, values) - expected).max() <= 1e-10 * expected.std()
    halved = tuple((low // 2, high // 2) for low, high in model.halo)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Model, "halo", halved)
        narrow = plan_for(bare_volume(shape), model, tile=(4, 8, 8), block=(4, 48, 48))
        assert np.abs(tiled(model, narrow, values) - expected).max() > 1e-6 * expected.std()


# Files: blockings, channels, dtypes


def image_of(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(100, 10, shape)
    return np.rint(values).astype(dtype)


BLOCKINGS = [
    {},
    {"block": (8, 16, 24)},
    {"block": (10, 12, 20), "shard": (10, 6, 10), "chunk": (5, 3, 10)},
    {"block": (7, 7, 26), "ome_version": "0.4"},
]


def test_blocks_do_not_change_a_bit_of_a_network(tmp_path: Path, tiny_model: Path) -> None:
    volume = write_plain(tmp_path / "v.zarr", image_of((1, 2, 10, 18, 26)), chunks=(1, 1, 8, 8, 8))
    found = set()
    for number, blocking in enumerate(BLOCKINGS):
        options = {**blocking, "tile": (8, 8, 16), "dtype": "float32"}
        plan = plan_for(
            volume,
            Model(tiny_model),
            address=str(tiny_model),
            store=str(tmp_path / f"{number}.zarr"),
            normalisation=CONSTANTS,
            **options,
        )
        result = run_all(plan, **options)
        assert result.std() > 0
        found.add(result.tobytes())
    assert len(found) == 1


def test_each_channel_has_its_own_normalisation(tmp_path: Path, tiny_model: Path) -> None:
    image = image_of((2, 2, 5, 12, 13))
    volume = write_plain(tmp_path / "v.zarr", image)
    model = Model(tiny_model, OpenOptions(CONSTANTS))
    plan = plan_for(
        volume,
        model,
        address=str(tiny_model),
        store=str(tmp_path / "o.zarr"),
        normalisation=CONSTANTS,
        dtype="float32",
    )
    found = run_all(plan, dtype="float32")
    for t in range(2):
        for c in range(2):
            expected = whole_volume(model, image[t, c].astype(np.float32), c)
            np.testing.assert_allclose(found[t, c], expected, atol=1e-5 * expected.std())
    assert not np.allclose(found[0, 0], found[0, 1])


def test_a_trained_model_equals_its_whole_volume_pass(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2v_scale.training.available_cores", lambda: 1)
    rng = np.random.default_rng(1)
    z, y, x = np.meshgrid(*(np.linspace(0, 6, n) for n in (24, 45, 51)), indexing="ij")
    image = rng.poisson(200 + 100 * np.sin(x + z) * np.cos(y)).astype(np.uint16)
    volume = write_plain(tmp_path / "v.zarr", image, chunks=(24, 45, 51))
    model = train(
        volume,
        tmp_path / "model",
        client=client,
        steps=8,
        filters=3,
        depth=1,
        patch=(8, 16, 16),
        batch=2,
        device="cpu",
    )
    trained = model.card.trained_on
    constants = Normalisation(trained.offset, trained.scale)
    plan = plan_for(
        volume,
        model,
        address=str(model.folder),
        store=str(tmp_path / "o.zarr"),
        normalisation=constants,
        tile=(8, 16, 16),
        dtype="float32",
    )
    found = run_all(plan, tile=(8, 16, 16), dtype="float32")[0, 0]
    padded = np.zeros(padded_shape(volume.spatial_shape, model.stride), np.float32)
    padded[Box.whole(volume.spatial_shape).slices] = (
        image.astype(np.float32) - trained.offset[0]
    ) / trained.scale[0]
    with torch.inference_mode():
        out = model.network(
            torch.from_numpy(padded)[None, None], NO_HALO, Box.whole(volume.spatial_shape)
        )
    whole = out[0, 0].numpy()[Box.whole(volume.spatial_shape).slices]
    expected = whole * trained.scale[0] + trained.offset[0]
    assert np.abs(found - expected).max() <= 1e-5 * expected.std()


def test_integers_are_rounded_and_clipped() -> None:
    values = np.array([-1e9, -0.6, -0.4, 0.49, 0.5, 1.5, 2.5, 254.6, 255.4, 300, 1e9], np.float32)
    found = as_dtype(values, "uint8")
    assert found.dtype == np.uint8
    assert found.tolist() == [0, 0, 0, 0, 0, 2, 2, 255, 255, 255, 255]
    edges = np.array([-40000, -32768.4, -1.5, 32767.4, 40000, 1e30], np.float32)
    assert as_dtype(edges, "int16").tolist() == [-32768, -32768, -2, 32767, 32767, 32767]
    assert as_dtype(np.array([65534.6, 65536], np.float32), "uint16").tolist() == [65535, 65535]
    assert as_dtype(values, "float32").tolist() == values.tolist()


def test_a_result_beyond_the_dtype_is_clipped_in_the_file(tmp_path: Path) -> None:
    class Stretch(Identity):
        def denoise(self, tile: Any, region: Any) -> Any:
            estimate = super().denoise(tile, region)
            return replace(estimate, mean=(estimate.mean - 100) * 10.06)

    image = image_of((1, 1, 4, 6, 8), "uint8")
    with denoised_by(Stretch()):
        volume = write_plain(tmp_path / "v.zarr", image)
        found = run_all(plan_for(volume, Identity(), store=str(tmp_path / "o.zarr")))
    expected = np.clip(np.rint((image.astype(np.float32) - 100) * np.float32(10.06)), 0, 255)
    assert expected.min() == 0
    np.testing.assert_array_equal(found, expected)


# What is wrong with an input


def with_nan(path: Path) -> Volume:
    data = np.arange(6 * 8 * 10, dtype=np.float32).reshape(6, 8, 10)
    data[4, 5, 6] = np.nan
    data[4, 5, 7] = np.inf
    data[5, 0, 0] = -np.inf
    return write_plain(path, data, chunks=(3, 8, 10))


def test_a_nan_is_counted_and_placed(tmp_path: Path) -> None:
    plan = plan_for(with_nan(tmp_path / "v.zarr"), Identity(), block=(3, 8, 10))
    good, bad = plan.iterate()
    message = r"t=0, c=0: 3 voxels in .* are NaN or infinite, the first at z=4, y=5, x=6"
    with pytest.raises(InputError, match=message) as caught:
        predict_block(plan, bad)
    assert "--on-nan fill" in str(caught.value)
    assert plan.read_box(good).stop == (3, 8, 10)


def test_a_nan_is_filled_with_the_mean(tmp_path: Path) -> None:
    volume = with_nan(tmp_path / "v.zarr")
    plan = plan_for(
        volume,
        Identity(),
        store=str(tmp_path / "o.zarr"),
        on_nan="fill",
        normalisation=Normalisation((77.5,), (3.0,)),
    )
    found = run_all(plan, on_nan="fill")[0, 0]
    image = volume.read(0, 0, Box.whole((6, 8, 10)))
    np.testing.assert_array_equal(found, np.where(np.isfinite(image), image, 77.5))


def test_a_nan_is_kept(tmp_path: Path) -> None:
    volume = with_nan(tmp_path / "v.zarr")
    plan = plan_for(volume, Identity(), store=str(tmp_path / "o.zarr"), on_nan="keep")
    found = run_all(plan)[0, 0]
    np.testing.assert_array_equal(found, volume.read(0, 0, Box.whole((6, 8, 10))))


def test_a_chunk_that_cannot_be_decoded_is_the_end_of_one_block(
    tmp_path: Path, client: Client
) -> None:
    image = image_of((12, 8, 8))
    volume = write_plain(tmp_path / "v.zarr", image, chunks=(2, 8, 8))
    (tmp_path / "v.zarr/c/3/0/0").write_bytes(b"garbage")
    plan = plan_for(volume, Identity(), store=str(tmp_path / "o.zarr"), block=(2, 8, 8))
    begin(plan)
    totals = run_missing(plan, client)
    assert (totals.computed, totals.failures, list(totals.failed)) == (5, 1, [3])
    assert "(6, 0, 0)" in totals.failed[3]
    assert done(plan) == [0, 1, 2, 4, 5]
    for block in plan.iterate():
        written = read_output(plan.output, 0, 0, block.write)
        if block.number == 3:
            assert not written.any()
        else:
            np.testing.assert_array_equal(written, image[block.write.slices])


def test_a_full_disk_is_named_and_leaves_no_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = write_plain(tmp_path / "v.zarr", image_of((4, 8, 8)))
    plan = plan_for(volume, Identity(), store=str(tmp_path / "o.zarr"))
    begin(plan)

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blocks_module, "write_box", full)
    with pytest.raises(OutputError, match=r"block 0 cannot be written: .*No space left"):
        predict_block(plan, next(plan.iterate()))
    assert done(plan) == []


def test_the_marker_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = write_plain(tmp_path / "v.zarr", image_of((4, 8, 8)))
    plan = plan_for(volume, Identity(), store=str(tmp_path / "o.zarr"))
    begin(plan)
    seen = []
    mark = Ledger.mark

    def look(self: Ledger, path: str, marker: Any) -> None:
        seen.append(read_output(plan.output, 0, 0, Box.whole((4, 8, 8))).any())
        mark(self, path, marker)

    monkeypatch.setattr(Ledger, "mark", look)
    predict_block(plan, next(plan.iterate()))
    assert seen == [True]


def test_a_block_computed_again_writes_the_same_bytes(tmp_path: Path, tiny_model: Path) -> None:
    volume = write_plain(tmp_path / "v.zarr", image_of((8, 20, 20)))
    plan = plan_for(
        volume,
        Model(tiny_model),
        address=str(tiny_model),
        store=str(tmp_path / "o.zarr"),
        normalisation=CONSTANTS,
        block=(8, 10, 20),
    )
    begin(plan)
    states = []
    for _ in range(2):
        for block in plan.iterate():
            predict_block(plan, block)
        files = sorted(Path(plan.output.store).rglob("*"))
        states.append({f: f.read_bytes() for f in files if f.is_file()})
    assert states[0] == states[1]
    assert done(plan) == [0, 1]


def test_one_thread_computes_for_all_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one tile at a time, however many blocks a worker has in hand."""
    volume = write_plain(tmp_path / "v.zarr", image_of((12, 8, 8)))
    plan = plan_for(volume, Identity(), store=str(tmp_path / "o.zarr"), block=(2, 8, 8))
    begin(plan)
    seen: list[int] = []
    here: list[int] = []

    def watched(*args: Any, **options: Any) -> Any:
        here.append(1)
        assert len(here) == 1
        seen.append(threading.get_ident())
        time.sleep(0.01)
        here.pop()
        return denoise_tiles(*args, **options)

    monkeypatch.setattr(blocks_module, "denoise_tiles", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda block: predict_block(plan, block), plan.iterate()))
    assert len(seen) == plan.blocks == 6
    assert len(set(seen)) == 1


def test_only_missing_blocks_are_computed(tmp_path: Path, client: Client) -> None:
    volume = write_plain(tmp_path / "v.zarr", image_of((12, 8, 8)))
    plan = plan_for(volume, Identity(), store=str(tmp_path / "o.zarr"), block=(2, 8, 8))
    begin(plan)
    for number, block in zip(count(), plan.iterate(), strict=False):
        if number in (1, 4):
            predict_block(plan, block)
    assert done(plan) == [1, 4]
    totals = run_missing(plan, client)
    assert (totals.computed, totals.failures, totals.voxels) == (4, 0, 4 * 2 * 8 * 8)
    assert done(plan) == [0, 1, 2, 3, 4, 5]
    assert run_missing(plan, client) == LevelTotals()


def test_tiles_at_a_face_see_zeros_past_the_end_and_nothing_else(
    model_of: Callable[[str], Model],
) -> None:
    """A volume's end on the stride and one off it: what lies behind the face is the same."""
    model = model_of("unet")
    values = np.random.default_rng(3).normal(100, 10, (3, 9, 21))
    assert round_up(21, model.stride[2]) == 24
    plan = plan_for(bare_volume((3, 9, 21)), model, tile=(4, 4, 4))
    np.testing.assert_allclose(tiled(model, plan, values), whole_volume(model, values), atol=1e-9)
