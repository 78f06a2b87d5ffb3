"""Slab by slab gives what whole arrays give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from n2v_scale import evaluation
from n2v_scale.api import evaluate
from n2v_scale.errors import ConfigError, InputError
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.metrics import psnr, si_psnr, ssim


@pytest.fixture
def pair(tmp_path: Path, write_volume: Callable[..., Volume]) -> tuple[Volume, Volume]:
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(0, 5, n) for n in (13, 20, 24)), indexing="ij")
    truth = 1000 + 300 * np.sin(x + z) * np.cos(y)
    truth = np.stack([truth, 2 * truth])[None].repeat(2, 0)  # (t, c, z, y, x)
    noisy = rng.normal(0.8 * truth + 30, 40)
    return (
        write_volume(tmp_path / "noisy.zarr", noisy.astype(np.uint16), chunk=(1, 1, 4, 20, 9)),
        write_volume(tmp_path / "truth.zarr", truth.astype(np.float32), chunk=(1, 2, 5, 7, 24)),
    )


def arrays(pair: tuple[Volume, Volume]) -> tuple[np.ndarray, np.ndarray]:
    import zarr

    noisy, truth = (zarr.open_array(v.address, path="0", mode="r")[...] for v in pair)
    return np.asarray(noisy), np.asarray(truth)


@pytest.mark.parametrize("slab", [1, 20 * 24 * 3, 2**25])
def test_it_equals_the_metrics_of_whole_arrays(
    pair: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch, slab: int
) -> None:
    monkeypatch.setattr(evaluation, "SLAB_VOXELS", slab)
    found = evaluate(*pair, data_range=1200.0)
    noisy, truth = arrays(pair)
    assert found.psnr == pytest.approx(psnr(noisy, truth, 1200.0), rel=1e-12)
    assert found.si_psnr == pytest.approx(si_psnr(noisy, truth, 1200.0), rel=1e-12)
    assert found.ssim == pytest.approx(ssim(noisy, truth, 1200.0), rel=1e-12)
    assert found.voxels == noisy.size
    assert found.data_range == 1200.0
    assert found.si_psnr > found.psnr + 3


def test_the_range_is_the_reference_s(pair: tuple[Volume, Volume]) -> None:
    found = evaluate(*pair)
    noisy, truth = arrays(pair)  # so small that the sample is all of it
    expected = np.percentile(truth, 99.9) - truth.min()
    assert found.data_range == pytest.approx(expected)
    assert found.psnr == pytest.approx(psnr(noisy, truth, expected))


def test_equal_volumes_are_equal(pair: tuple[Volume, Volume]) -> None:
    found = evaluate(pair[1], pair[1].address)
    assert found.psnr == found.si_psnr == np.inf
    assert found.ssim == pytest.approx(1)


def test_other_shapes_are_refused(pair: tuple[Volume, Volume]) -> None:
    one = open_volume(pair[1].address, channels=[1])
    with pytest.raises(InputError, match=r"\(2, 2, 13, 20, 24\).*\(2, 1, 13, 20, 24\)") as caught:
        evaluate(pair[0], one)
    assert "--channel" in str(caught.value)


def test_the_same_selection_of_both_can_be_compared(pair: tuple[Volume, Volume]) -> None:
    selected = [open_volume(v.address, channels=[1], timepoints=[0]) for v in pair]
    noisy, truth = arrays(pair)
    found = evaluate(*selected, data_range=500)
    assert found.psnr == pytest.approx(psnr(noisy[0, 1], truth[0, 1], 500))


def test_small_planes_have_no_ssim(tmp_path: Path, write_volume: Callable[..., Volume]) -> None:
    image = np.arange(30 * 10 * 40, dtype=np.uint16).reshape(30, 10, 40)
    a, b = write_volume(tmp_path / "a.zarr", image), write_volume(tmp_path / "b.zarr", image + 1)
    found = evaluate(a, b, data_range=100)
    assert found.ssim is None
    assert found.psnr == pytest.approx(40)
    assert found.to_dict()["ssim"] is None


def test_a_constant_reference_needs_a_range(
    tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    flat = write_volume(tmp_path / "a.zarr", np.full((4, 16, 16), 9, np.uint8))
    with pytest.raises(InputError, match="is constant: pass the PSNR's range with --range"):
        evaluate(flat, flat)
    assert evaluate(flat, flat, data_range=1.0).psnr == np.inf


def test_a_range_that_is_none_is_refused(pair: tuple[Volume, Volume]) -> None:
    with pytest.raises(ConfigError):
        evaluate(*pair, data_range=0)


@pytest.mark.parametrize("which", [0, 1])
def test_nan_is_refused(tmp_path: Path, write_volume: Callable[..., Volume], which: int) -> None:
    images = np.random.default_rng(0).normal(size=(2, 4, 16, 16)).astype(np.float32)
    images[which, 2, 3, 4] = np.nan
    volumes = [write_volume(tmp_path / f"{i}.zarr", image) for i, image in enumerate(images)]
    with pytest.raises(InputError, match="NaN"):
        evaluate(*volumes)
