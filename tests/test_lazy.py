"""``denoise``: a lazy array in, a lazy array out, as exact as everything else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from distributed import Client

from n2v_scale.api import denoise, predict
from n2v_scale.blocks import as_dtype
from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import InputError
from n2v_scale.geometry import NO_HALO, Box, padded_shape
from n2v_scale.io.volume import Volume
from n2v_scale.model import Model

CONSTANTS = Normalisation((100.0, 50.0, 70.0), (10.0, 20.0, 5.0))


@pytest.fixture(autouse=True)
def in_this_thread() -> Any:
    with dask.config.set(scheduler="synchronous"):
        yield


def image_of(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(dtype)


def whole(model: Model, values: np.ndarray, channel: int = 0) -> np.ndarray:
    """One forward pass over (z, y, x)."""
    inside = Box.whole(values.shape)  # type: ignore[arg-type]
    offset, scale = CONSTANTS.offset[channel], CONSTANTS.scale[channel]
    padded = np.zeros(padded_shape(inside.shape, model.stride), np.float32)
    padded[inside.slices] = (values.astype(np.float32) - offset) / scale
    with torch.inference_mode():
        out = model.network(torch.from_numpy(padded)[None, None], NO_HALO, inside)
    result: np.ndarray = out[0, 0].numpy()[inside.slices] * scale + offset
    return result


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((7, 20, 23), (3, 9, 23)),
        ((9, 21, 30), ((1, 6, 2), (5, 16), (2, 3, 25))),
        ((5, 16, 16), (5, 16, 16)),
        ((1, 30, 9), (1, 7, 4)),
        ((40, 31), (13, 8)),
    ],
)
def test_it_equals_one_pass_over_the_whole_array(
    tiny_model: Path, shape: tuple[int, ...], chunks: Any
) -> None:
    image = image_of(shape)
    lazy = denoise(da.from_array(image, chunks=chunks), tiny_model, normalisation=CONSTANTS)
    expected = whole(Model(tiny_model), image.reshape((1,) * (3 - image.ndim) + shape))
    found = lazy.compute()
    assert found.shape == shape
    assert np.abs(found - expected.reshape(shape)).max() <= 1e-5 * expected.std()


@pytest.mark.parametrize(
    ("axes", "chunks"),
    [("czyx", (2, 3, 9, 12)), ("tzyx", (1, 5, 6, 12)), ("tczyx", (2, 1, 5, 9, 7)), ("tyx", None)],
)
def test_times_and_channels(tiny_model: Path, axes: str, chunks: Any) -> None:
    shape = tuple({"t": 2, "c": 3, "z": 5, "y": 9, "x": 12}[a] for a in axes)
    image = image_of(shape)
    source = da.from_array(image, chunks=chunks or shape)
    found = denoise(source, tiny_model, axes=axes, normalisation=CONSTANTS).compute()
    where = tuple(slice(None) if a in axes else None for a in "tczyx")
    full, out = image[where], found[where]
    for t, c in np.ndindex(*full.shape[:2]):
        expected = whole(Model(tiny_model), full[t, c], c)
        assert np.abs(out[t, c] - expected).max() <= 1e-5 * expected.std()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_chunks_and_dtype_are_kept(tiny_model: Path, dtype: str) -> None:
    image = image_of((6, 13, 11), dtype)
    source = da.from_array(image, chunks=((4, 2), (5, 5, 3), (11,)))
    lazy = denoise(source, tiny_model, normalisation=CONSTANTS)
    assert lazy.chunks == source.chunks
    assert lazy.dtype == dtype
    found = lazy.compute()
    assert found.dtype == dtype
    expected = as_dtype(whole(Model(tiny_model), image), dtype)
    difference = found.astype(float) - expected
    rounding = 1e-5 * expected.std() + 2 * np.spacing(np.abs(expected).max())
    assert np.abs(difference).max() <= (rounding if dtype == "float32" else 1)
    assert (difference == 0).mean() > (0 if dtype == "float32" else 0.99)


def test_it_equals_predict(
    tmp_path: Path,
    client: Client,
    write_volume: Callable[..., Volume],
    write_model: Callable[..., Path],
) -> None:
    image = image_of((12, 26, 30), "uint16")
    volume = write_volume(tmp_path / "v.zarr", image, chunk=(12, 13, 15))
    model = write_model(tmp_path / "m", volume=volume, offset=[90.0], scale=[8.0])
    predict(
        volume,
        model,
        tmp_path / "o.zarr",
        client=client,
        tile=(8, 8, 16),
        block=(12, 13, 30),
        device="cpu",
        dtype="float32",
    )
    source = da.from_array(image.astype(np.float32), chunks=(5, 11, 30))
    constants = Normalisation((90.0,), (8.0,))
    lazy = denoise(source, model, tile=(8, 8, 16), normalisation=constants)
    written = zarr.open_array(str(tmp_path / "o.zarr/0"), mode="r")[...]
    assert lazy.compute().tobytes() == np.asarray(written).tobytes()


def test_nothing_is_computed_before_it_is_asked_for(tiny_model: Path) -> None:
    asked = []

    def read(block_info: Any = None) -> np.ndarray:
        asked.append(block_info[None]["chunk-location"])
        return np.ones((8, 16, 16), np.float32)

    source = da.map_blocks(
        read, chunks=((8,), (16,) * 6, (16,) * 6), dtype=np.float32, meta=np.empty((0,) * 3, "f4")
    )
    lazy = denoise(source, tiny_model, normalisation=CONSTANTS)
    sampled = denoise(source, tiny_model)
    assert asked == []
    lazy[:, :16, :16].compute()
    assert (0, 0, 0) in asked
    assert len(asked) <= 4  # its neighbours within reach and nobody else
    assert sampled.shape == lazy.shape


def test_a_chunk_is_a_few_tasks(tiny_model: Path) -> None:
    source = da.zeros((32, 128, 128), chunks=(16, 16, 16), dtype=np.float32)
    lazy = denoise(source, tiny_model, normalisation=CONSTANTS)
    (optimised,) = dask.optimize(lazy)
    before, after = (len(dict(a.__dask_graph__())) for a in (source, optimised))
    assert source.npartitions == 128
    assert (after - before) / source.npartitions <= 4


def test_the_sampled_normalisation_is_that_of_each_channel(tiny_model: Path) -> None:
    image = image_of((2, 5, 16, 18)) * np.array([1, 30], np.float32)[:, None, None, None]
    source = da.from_array(image, chunks=(1, 5, 8, 7))
    exact = Normalisation(
        tuple(float(channel.astype(np.float64).mean()) for channel in image),
        tuple(float(channel.astype(np.float64).std()) for channel in image),
    )
    expected = denoise(source, tiny_model, normalisation=exact).compute()
    for chunks in ((1, 5, 8, 7), (2, 3, 16, 18)):
        found = denoise(source.rechunk(chunks), tiny_model, tile=(6, 8, 8)).compute()
        for f, e in zip(found, expected, strict=True):
            assert np.abs(f - e).max() <= 1e-4 * e.std()


def test_a_large_array_is_sampled(tiny_model: Path) -> None:
    """64 chunks a channel are read, not all."""
    asked = []

    def read(block_info: Any = None) -> np.ndarray:
        asked.append(block_info[None]["chunk-location"])
        return np.full((16, 16, 16), len(asked), np.float32)

    source = da.map_blocks(
        read, chunks=((16,), (16,) * 9, (16,) * 9), dtype="f4", meta=np.empty((0,) * 3, "f4")
    )
    denoise(source, tiny_model)[:, :16, :16].compute()
    assert source.npartitions == 81
    assert 64 <= len(set(asked)) <= 64 + 4


@pytest.mark.parametrize(
    ("ndim", "axes"),
    [(3, "yx"), (3, "xyz"), (3, "zyq"), (3, "zzx"), (2, "zy"), (4, "ctyx"), (1, None), (6, None)],
)
def test_axes_that_do_not_fit_are_refused(tiny_model: Path, ndim: int, axes: str | None) -> None:
    with pytest.raises(InputError, match=f"do not fit an array of {ndim} dimensions"):
        denoise(da.zeros((16,) * ndim, dtype=np.float32), tiny_model, axes=axes)


@pytest.mark.parametrize("dtype", ["int32", "uint64", "complex64", "bool", "float64"])
def test_a_dtype_that_is_not_taken_is_refused(tiny_model: Path, dtype: str) -> None:
    with pytest.raises(InputError, match=dtype):
        denoise(da.zeros((8, 16, 16), dtype=dtype), tiny_model)


def test_a_constant_array_says_so(tiny_model: Path) -> None:
    lazy = denoise(da.full((8, 16, 16), 7, dtype="uint8"), tiny_model)
    with pytest.raises(InputError, match="are 7: a constant volume"):
        lazy.compute()


def test_nan_is_left_out_of_the_statistics(tiny_model: Path) -> None:
    image = image_of((4, 16, 48))
    image[2, 3, 40] = np.nan
    found = denoise(da.from_array(image, chunks=(4, 16, 16)), tiny_model).compute()
    assert np.isfinite(found[:, :, :16]).all()
    assert np.isnan(found[2, 3, 40])
