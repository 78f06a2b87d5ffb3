"""Lower resolutions: local means of what was written above."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.api import import_volume
from n2v_scale.geometry import Shape
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.plan import PyramidLevel, pyramid_levels
from n2v_scale.pyramid import local_mean

FACTORS = list(itertools.product([1, 2], repeat=3))


def brute_force(values: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """The mean of each cell, one by one."""
    shape = [-(-n // f) for n, f in zip(values.shape, factors, strict=True)]
    out = np.empty(shape)
    for index in np.ndindex(*shape):
        cell = tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factors, strict=True))
        out[index] = values[cell].astype(np.float64).mean()
    return out


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    factors=st.tuples(*[st.integers(1, 3)] * 3),
    seed=st.integers(0, 999),
)
def test_local_mean(shape: Shape, factors: Shape, seed: int) -> None:
    values = np.random.default_rng(seed).normal(100, 30, shape).astype(np.float32)
    found = local_mean(values, factors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(values, factors), rtol=1e-6)


@pytest.mark.parametrize("factors", FACTORS)
def test_the_mean_of_integers_is_exact(factors: Shape) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(local_mean(values, factors), brute_force(values, factors))


def written_levels(path: Path) -> list[np.ndarray]:
    """All levels of an output, (t, c, z, y, x)."""
    group = zarr.open_group(str(path), mode="r")
    attributes = group.attrs.asdict()
    entry = attributes.get("ome", attributes)["multiscales"][0]
    levels = []
    for dataset in entry["datasets"]:
        array = np.asarray(group[dataset["path"]][...])
        levels.append(array.reshape((1,) * (5 - array.ndim) + array.shape))
    return levels


CASES: list[tuple[tuple[int, ...], str, str, dict[str, Any]]] = [
    ((21, 35, 40), "uint16", "0.5", {"chunk": (8, 8, 8), "shard": (16, 16, 16)}),
    ((2, 2, 9, 17, 15), "uint8", "0.5", {"chunk": (4, 8, 4), "shard": (8, 8, 8)}),
    ((9, 30, 25), "int16", "0.4", {"chunk": (8, 8, 8)}),
    ((13, 16, 33), "float32", "0.5", {"chunk": (4, 4, 8), "shard": (4, 8, 8)}),
    ((40, 33), "uint16", "0.5", {"chunk": (1, 8, 8), "shard": (1, 16, 16)}),
]


@pytest.mark.parametrize(("shape", "dtype", "version", "storage"), CASES)
def test_every_level_is_the_mean_of_the_written_one_above(
    tmp_path: Path,
    client: Client,
    write_volume: Callable[..., Volume],
    shape: tuple[int, ...],
    dtype: str,
    version: str,
    storage: dict[str, Any],
) -> None:
    image = np.random.default_rng(0).normal(0 if dtype == "int16" else 120, 30, shape)
    image = image.astype(dtype)
    scale = {5: (1, 1, 1, 0.5, 0.5), 3: (1, 0.5, 0.5), 2: (0.5, 0.5)}[len(shape)]
    volume = write_volume(tmp_path / "v.zarr", image, scale=scale)
    import_volume(volume, tmp_path / "o.zarr", client=client, ome_version=version, **storage)
    levels = written_levels(tmp_path / "o.zarr")
    np.testing.assert_array_equal(levels[0].reshape(shape), image)
    assert len(levels) >= 3
    for above, below in itertools.pairwise(levels):
        factors = tuple(-(-a // b) for a, b in zip(above.shape, below.shape, strict=True))
        assert factors[:2] == (1, 1)
        assert below.dtype == image.dtype
        for t, c in np.ndindex(*above.shape[:2]):
            expected = brute_force(above[t, c], factors[2:])
            if dtype != "float32":
                expected = np.rint(expected)
            np.testing.assert_allclose(below[t, c], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_voxel_lies_in_the_middle_of_what_it_averages(
    tmp_path: Path, client: Client, write_volume: Callable[..., Volume], version: str
) -> None:
    """An image of its own coordinates: at every level, values are positions."""
    z, y, x = np.meshgrid(*(np.arange(n) for n in (8, 32, 32)), indexing="ij")
    scale, start = (2.0, 0.5, 0.25), (7.0, -3.0, 1.5)
    for axis, position in enumerate((z, y, x)):
        physical = (position * scale[axis] + start[axis]).astype(np.float32)
        name = tmp_path / f"{axis}{version}"
        volume = write_volume(name, physical, scale=scale, translation=start)
        output = tmp_path / f"o{axis}{version}"
        import_volume(volume, output, client=client, ome_version=version, chunk=(8, 8, 8))
        count = len(open_volume(output).levels)
        assert count == 4
        for level in range(count):
            found = open_volume(output, level=level)
            values = written_levels(output)[level][0, 0]
            described = found.axes[axis]
            index = np.arange(values.shape[axis])
            along = [1, 1, 1]
            along[axis] = -1
            expected = (index * described.scale + described.translation).reshape(along)
            np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), rtol=1e-6)


def test_the_blocks_of_a_level_cover_it_once(
    tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    from n2v_scale.config import PredictSettings
    from n2v_scale.prediction import make_copy_plan

    volume = write_volume(tmp_path / "v.zarr", np.ones((2, 2, 20, 30, 40), np.uint8))
    settings_ = PredictSettings(chunk=(4, 4, 4), shard=(8, 8, 8))
    plan = make_copy_plan(volume, tmp_path / "o.zarr", settings_)
    levels: tuple[PyramidLevel, ...] = pyramid_levels(plan.output, volume.voxel_size)
    for level in levels:
        owners = np.zeros((2, 2, *level.array.spatial_shape), int)
        blocks = list(plan.level_grid(level))
        for block in blocks:
            owners[(block.t, block.c, *block.write.slices)] += 1
        assert (owners == 1).all()
        assert [block.number for block in blocks] == list(range(len(blocks)))


def test_nan_and_infinity_stay_in_their_cells(
    tmp_path: Path, client: Client, write_volume: Callable[..., Volume]
) -> None:
    image = np.ones((16, 16, 16), np.float32)
    image[0, 0, 0] = np.nan
    image[9, 9, 9] = np.inf
    volume = write_volume(tmp_path / "v.zarr", image)
    import_volume(volume, tmp_path / "o.zarr", client=client, chunk=(8, 8, 8))
    below = written_levels(tmp_path / "o.zarr")[1][0, 0]
    assert np.isnan(below[0, 0, 0])
    assert below[4, 4, 4] == np.inf
    assert (below == 1).sum() == 8**3 - 2
