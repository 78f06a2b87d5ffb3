"""Pairs: which statistic each loss learns, what is paired with what, and what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from n2v_scale.api import train
from n2v_scale.config import TrainSettings
from n2v_scale.errors import ConfigError, InputError, OutputError
from n2v_scale.io.open import open_volume
from n2v_scale.local_cluster import thread_client
from n2v_scale.methods.paired import Paired
from n2v_scale.pairing import pair_request, paired_volume
from n2v_scale.patches import PatchSampler
from n2v_scale.sources import open_sources
from n2v_scale.streams import Streams


@pytest.mark.parametrize(("error", "statistic"), [("l2", np.mean), ("l1", np.median)])
def test_squared_errors_learn_the_mean_and_absolute_ones_the_median(error, statistic):
    """Of skewed noise, by a network that can say one number."""
    noise = np.random.default_rng(0).exponential(2.0, (1, 2, 8, 24, 24)).astype(np.float32)
    method, batch = Paired(error), torch.from_numpy(noise)
    example = method.prepare(batch, Streams([(0,)]))
    number = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([number], lr=0.05)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        loss = method.loss(number.expand_as(example.target), example)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert number.item() == pytest.approx(statistic(noise[:, 1]), abs=0.03)


def test_alike_captures_are_each_the_target_half_of_the_time():
    batch = torch.stack([torch.zeros(64, 4, 4, 4), torch.ones(64, 4, 4, 4)], dim=1)
    streams = Streams([(0, k) for k in range(64)])
    example = Paired(swaps=True).prepare(batch, streams)
    assert torch.equal(example.input, 1 - example.target)
    assert 16 < example.target[:, 0, 0, 0, 0].sum() < 48
    assert not Paired().prepare(batch, streams).input.any()


def test_the_second_volume_is_cut_where_the_first_is(tmp_path, write_volume, client):
    image = np.random.default_rng(0).normal(100, 5, (16, 40, 48)).astype(np.float32)
    volume = write_volume(tmp_path / "a.zarr", image, chunk=(8, 16, 16))
    other = write_volume(
        tmp_path / "b.zarr", (3 * image + 7).astype(np.float32), chunk=(16, 40, 48)
    )
    sources = open_sources([volume], (8, 16, 16), client, target=other)
    sampler = PatchSampler(sources, client, patch=(8, 16, 16), batch=2)
    offset, scale = sources[0].normalisation.offset[0], sources[0].normalisation.scale[0]
    patches = [*sampler.next_batch(), *sampler.validation(), *sampler.initial(3)]
    assert len(patches) > 5
    for patch in patches:
        assert patch.shape == (2, 8, 16, 16)
        first, second = (p.astype(np.float64) * scale + offset for p in patch)
        np.testing.assert_allclose(second, 3 * first + 7, rtol=1e-4)


def test_time_points_are_paired_with_their_neighbours(tmp_path, write_volume):
    movie = np.arange(5, dtype=np.float32)[:, None, None, None] + np.zeros((1, 4, 32, 32))
    movie = movie.astype(np.float32)
    movie += np.random.default_rng(0).normal(0, 0.1, movie.shape).astype(np.float32)
    write_volume(tmp_path / "m.zarr", movie, "tzyx")
    volume = open_volume(tmp_path / "m.zarr", timepoints=slice(0, 4))
    settings = TrainSettings(method="n2n", pair=str(tmp_path / "m.zarr"), pair_timepoints="1:5")
    paired = paired_volume([volume], settings)
    assert paired.timepoints == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "n2n"}, "method n2n needs a pair"),
        ({"method": "supervised"}, "method supervised needs a target"),
        ({"pair": "x.zarr"}, "pair is for method n2n"),
        (
            {"method": "n2n", "target": "x.zarr", "pair": "y.zarr"},
            "target is for method supervised",
        ),
    ],
)
def test_what_belongs_together_is_asked_for(settings, message, tmp_path, write_volume):
    volume = write_volume(tmp_path / "a.zarr", np.ones((4, 32, 32), np.float32))
    with pytest.raises(ConfigError, match=message):
        train(volume, tmp_path / "m", **settings)


def test_a_volume_is_not_its_own_pair(tmp_path, write_volume):
    image = np.random.default_rng(0).normal(100, 5, (4, 32, 32)).astype(np.float32)
    volume = write_volume(tmp_path / "a.zarr", image)
    with pytest.raises(ConfigError, match="only the noise would be learned"):
        train(volume, tmp_path / "m", method="n2n", pair=str(tmp_path / "a.zarr"))


def test_a_pair_that_has_changed_is_another_one(tmp_path, write_volume):
    images = np.random.default_rng(0).normal(100, 5, (3, 4, 32, 32)).astype(np.float32)
    volume = write_volume(tmp_path / "a.zarr", images[0])
    write_volume(tmp_path / "b.zarr", images[1])
    settings = TrainSettings(method="n2n", pair=str(tmp_path / "b.zarr"))
    before = pair_request([volume], settings)
    assert pair_request([volume], settings) == before
    shutil.rmtree(tmp_path / "b.zarr")
    write_volume(tmp_path / "b.zarr", images[2])
    assert pair_request([volume], settings) != before


@pytest.mark.parametrize("text", ["1:2:3:4", "0:5:0", "a", "1:b"])
def test_time_points_that_are_none_are_refused(text, tmp_path, write_volume):
    volume = write_volume(tmp_path / "a.zarr", np.ones((2, 4, 32, 32), np.float32), "tzyx")
    settings = {"method": "n2n", "pair": str(tmp_path / "a.zarr"), "pair_timepoints": text}
    with pytest.raises(ConfigError, match="is no list such as 0,2"):
        train(volume, tmp_path / "m", **settings)


def test_a_model_is_not_written_into_its_pair(tmp_path, write_volume):
    volume = write_volume(tmp_path / "a.zarr", np.ones((4, 32, 32), np.float32))
    pair = tmp_path / "b.zarr"
    write_volume(pair, np.ones((4, 32, 32), np.float32))
    with pytest.raises(OutputError, match="would lie inside"):
        train(volume, pair / "m", method="n2n", pair=str(pair))


def test_a_pair_of_another_shape_is_refused(tmp_path, write_volume):
    volume = write_volume(tmp_path / "a.zarr", np.ones((4, 32, 32), np.float32))
    write_volume(tmp_path / "b.zarr", np.ones((4, 32, 33), np.float32))
    with pytest.raises(InputError, match="select the same part of both"):
        train(volume, tmp_path / "m", method="n2n", pair=str(tmp_path / "b.zarr"))


def test_a_noisy_target_is_nearly_as_good_as_a_clean_one(tmp_path, write_volume):
    """After a few steps; the filter that both begin with has not seen the voxel itself."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[:16, :64, :64]
    truth = 20 * (1 + np.sin(z / 3) * np.sin(y / 4) * np.cos(x / 5)).astype(np.float32)
    write_volume(tmp_path / "clean.zarr", truth)
    captures = [rng.poisson(truth + 4).astype(np.float32) - 4 for _ in range(2)]
    volume, _ = (
        write_volume(tmp_path / f"{k}.zarr", values, chunk=(16, 32, 32))
        for k, values in enumerate(captures)
    )
    errors = {}
    small = {"steps": 60, "filters": 4, "depth": 1, "patch": (8, 32, 32), "threads": 1}
    with thread_client(1) as client:
        for method, option in (("n2n", {"pair": "1"}), ("supervised", {"target": "clean"})):
            ((name, other),) = option.items()
            given = small | {name: str(tmp_path / f"{other}.zarr")}
            model = train(volume, tmp_path / method, method=method, client=client, **given)
            from n2v_scale.denoiser import Region
            from n2v_scale.geometry import Box

            whole = Box.whole(truth.shape)
            found = model.denoise(captures[0], Region(0, 0, whole, truth.shape)).mean
            errors[method] = float(np.mean((found - truth) ** 2))
    noisy = float(np.mean((captures[0] - truth) ** 2))
    assert errors["supervised"] < 0.3 * noisy
    assert errors["n2n"] < 1.25 * errors["supervised"]
