"""Training: repeatable, budgeted, and the best weights are what is delivered."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import n2v_scale
from n2v_scale import training
from n2v_scale.architecture import design_for
from n2v_scale.budget import Budget
from n2v_scale.config import TrainSettings
from n2v_scale.denoiser import Region
from n2v_scale.errors import TrainingError
from n2v_scale.geometry import Box
from n2v_scale.loop import train_network
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.nets import build_network
from n2v_scale.patches import PatchSampler
from n2v_scale.progress import LineProgress
from n2v_scale.run import Run
from n2v_scale.sources import open_sources
from n2v_scale.step import augment
from n2v_scale.streams import Streams
from n2v_scale.validation import validate

TINY = {"steps": 6, "filters": 2, "depth": 1, "batch": 2, "patch": (8, 16, 16), "validate_every": 2}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr(training, "available_cores", lambda: 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def waves(*shape: int) -> np.ndarray:
    z, y, x = np.meshgrid(*map(np.arange, shape[-3:]), indexing="ij")
    field = 200 + 60 * np.sin(x / 5) * np.cos(y / 6 + z / 4)
    return np.broadcast_to(field, shape)


def noisy(clean: np.ndarray, seed: int = 0) -> np.ndarray:
    return (clean + np.random.default_rng(seed).normal(0, 40, clean.shape)).astype("f4")


@pytest.fixture
def volume(tmp_path, write_volume):
    return write_volume(tmp_path / "v.zarr", noisy(waves(16, 32, 48)), chunk=(8, 8, 16))


# Augmentation


def streams(seed: int, patches: int) -> Streams:
    return Streams([(seed, lane) for lane in range(patches)])


@pytest.mark.parametrize(("turns", "count"), [(False, 8), (True, 16)])
def test_augmentation_flips_and_turns_planes_and_keeps_z_apart(turns, count):
    z, y, x = torch.meshgrid(*[torch.arange(4)] * 3, indexing="ij")
    batch = torch.stack([1000 * s + 100 * z + 10 * y + x for s in range(2)])[:, None]
    seen = [set(), set()]
    for seed in range(150):
        out = augment(batch, streams(seed, 2), turns)
        assert out.shape == batch.shape
        assert torch.equal(out.flatten(1).sort().values, batch.flatten(1).sort().values)
        planes = out // 100 % 10
        assert (planes.flatten(3) == planes[..., :1, :1].flatten(3)).all()
        for k in range(2):
            seen[k].add(tuple((out[k] - 1000 * k).flatten().tolist()))
    assert [len(s) for s in seen] == [count, count]


def test_a_patch_is_turned_the_same_way_whatever_is_beside_it():
    batch = torch.rand(3, 1, 2, 4, 4)
    for seed in range(20):
        together = augment(batch, streams(seed, 3), turns=True)
        alone = augment(batch[2:], Streams([(seed, 2)]), turns=True)
        assert torch.equal(together[2:], alone)


def test_without_turns_y_and_x_keep_their_places():
    batch = torch.arange(2 * 3 * 5).reshape(1, 1, 2, 3, 5)
    for seed in range(50):
        out = augment(batch, streams(seed, 1), turns=False)
        assert out.shape == batch.shape
        along_x = out.diff(dim=4).abs()
        assert (along_x == 1).all()


# Whole runs


def weights_file(volume, folder, client, **settings) -> bytes:
    n2v_scale.train(volume, folder, client=client, **(TINY | settings))
    return (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("net", ["filter-unet", "unet"])
def test_the_seed_decides_the_weights(volume, tmp_path, client, net):
    one, again = (weights_file(volume, tmp_path / n, client, net=net, seed=3) for n in "ab")
    assert one == again
    assert weights_file(volume, tmp_path / "c", client, net=net, seed=4) != one


def test_training_leaves_the_random_numbers_of_others_alone(volume, tmp_path, client):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    weights_file(volume, tmp_path / "m", client)
    assert torch.equal(torch.rand(3), expected)


def test_the_state_of_others_does_not_matter(volume, tmp_path, client):
    files = []
    for k in range(2):
        torch.manual_seed(k)
        np.random.seed(k)
        files.append(weights_file(volume, tmp_path / str(k), client, net="unet"))
    assert files[0] == files[1]


def test_the_card_tells_how_the_model_came_to_be(volume, tmp_path, client):
    weights_file(volume, tmp_path / "m", client)
    card = json.loads((tmp_path / "m" / "model.json").read_text())
    training = card["training"]
    assert (training["steps"], training["steps_done"], training["threads"]) == (6, 6, 1)
    assert (training["patch"], training["batch"]) == ([8, 16, 16], 2)
    assert training["patch_voxels"] == 2 * 8 * 16 * 16
    assert [h["step"] for h in card["history"]] == [0, 2, 4, 6]
    assert all(math.isfinite(h["held_out"]) for h in card["history"])
    assert card["trained_on"]["offset"][0] == pytest.approx(200, abs=5)


def test_a_loss_that_is_not_finite_names_the_learning_rate(volume, tmp_path, client):
    with pytest.raises(
        TrainingError, match=r"not finite at step \d+: .*--learning-rate than 1e\+30"
    ):
        weights_file(volume, tmp_path / "m", client, learning_rate=1e30, steps=40)
    assert not (tmp_path / "m").exists()


def trained(volume, client, **settings):
    """The result of a run, and the held-out loss of the weights that it delivers."""
    chosen = TrainSettings(**(TINY | settings))
    design = design_for(chosen, volume.spatial_shape, volume.voxel_size)
    sources = open_sources([volume], design.patch, client, seed=chosen.seed)
    sampler = PatchSampler(
        sources, client, patch=design.patch, batch=design.batch, seed=chosen.seed
    )
    method = Noise2Void(chosen.voxels_per_site, design.radius)
    budget = Budget(chosen.steps, chosen.minutes)
    run = Run(chosen, design, method, sampler, budget, torch.device("cpu"))
    result = train_network(run)
    network = build_network(design.network, design.network_config).eval()
    network.load_state_dict(result.weights)
    held_out = [torch.from_numpy(v)[None, None] for v in sampler.validation()]
    return result, validate(run, network, held_out).get("held_out")


@pytest.mark.parametrize(
    ("net", "rate"), [("filter-unet", 0.3), ("filter-unet", 2e-3), ("unet", 0.02)]
)
def test_the_weights_with_the_lowest_held_out_loss_are_delivered(volume, client, net, rate):
    result, loss = trained(volume, client, net=net, learning_rate=rate, steps=20)
    history = [h["held_out"] for h in result.history]
    assert loss == pytest.approx(min(history), rel=1e-6)
    if rate == 0.3:  # the run spoils what the filter began with
        assert history[-1] > 1.01 * min(history)


def test_without_held_out_regions_the_last_weights_are_delivered(volume, client):
    result, loss = trained(volume, client, patch=(16, 32, 48), steps=3)
    assert loss is None
    assert not any("held_out" in h for h in result.history)
    assert result.weights["unet.head.weight"].abs().max() > 0


def test_minutes_end_a_run(volume, tmp_path, client):
    settings = {k: v for k, v in TINY.items() if k != "steps"}
    model = n2v_scale.train(volume, tmp_path / "m", client=client, **settings, minutes=0.05)
    last = model.card.history[-1]
    assert last["step"] >= 1


def test_a_run_is_shown(volume, tmp_path, client, capsys):
    n2v_scale.train(volume, tmp_path / "m", client=client, progress=LineProgress(), **TINY)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:2] == [
        "looking at a sample of the volume",
        "fitting the linear filter",
    ]
    assert err.splitlines()[-1].startswith("training: 6 steps in ")


def denoised(model, volume, t: int = 0, c: int = 0) -> np.ndarray:
    box = Box.whole(volume.spatial_shape)
    return model.denoise(volume.read(t, c, box), Region(t, c, box, volume.spatial_shape)).mean


def gain(estimate: np.ndarray, data: np.ndarray, clean: np.ndarray) -> float:
    return float(np.mean((data - clean) ** 2) / np.mean((estimate - clean) ** 2))


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((1, 64, 64), (1, 16, 16)), ((5, 48, 48), (5, 16, 16)), ((2, 32, 32), None)],
)
def test_thin_volumes_are_denoised(tmp_path, write_volume, client, shape, patch):
    clean = waves(*shape)
    volume = write_volume(tmp_path / "v.zarr", noisy(clean), chunk=(1, 16, 16))
    model = n2v_scale.train(volume, tmp_path / "m", client=client, **(TINY | {"patch": patch}))
    assert gain(denoised(model, volume), noisy(clean), clean) > 2


def test_channels_and_time_points_share_a_network(tmp_path, write_volume, client):
    clean = np.stack([waves(2, 8, 32, 32), 5000 - 20 * waves(2, 8, 32, 32)], axis=1)
    data = clean.copy()
    data[:, 0] += np.random.default_rng(0).normal(0, 40, data[:, 0].shape)
    data[:, 1] += np.random.default_rng(1).normal(0, 800, data[:, 1].shape)
    volume = write_volume(tmp_path / "v.zarr", data.astype("f4"), chunk=(1, 1, 8, 16, 16))
    model = n2v_scale.train(volume, tmp_path / "m", client=client, **TINY)
    trained_on = model.card.trained_on
    assert trained_on.offset == pytest.approx((data[:, 0].mean(), data[:, 1].mean()), rel=1e-4)
    assert trained_on.scale == pytest.approx((data[:, 0].std(), data[:, 1].std()), rel=1e-4)
    for t in range(2):
        for c in range(2):
            assert gain(denoised(model, volume, t, c), data[t, c], clean[t, c]) > 2


def test_the_plain_unet_trains_its_statistics_and_predicts_by_tiles(volume, tmp_path, client):
    settings = TINY | {"net": "unet", "steps": 30, "filters": 4}
    model = n2v_scale.train(volume, tmp_path / "m", client=client, **settings)
    weights = load_file(tmp_path / "m" / "weights.safetensors")
    means = [v for name, v in weights.items() if name.endswith("running_mean")]
    assert means
    assert all(v.abs().max() > 1e-4 for v in means)
    history = [h["held_out"] for h in model.card.history]
    assert min(history) < history[0]
    shape = volume.spatial_shape
    whole = denoised(model, volume)
    assert whole.std() > 1
    core = Box((0, 0, 32), (16, 32, 48))
    # Two samples of a batch and two tiles do not see each other's statistics.
    low = max(0, 32 - -(-model.halo[2][0] // 2) * 2)
    tile = volume.read(0, 0, Box((0, 0, low), shape))
    part = model.denoise(tile, Region(0, 0, core, shape)).mean
    np.testing.assert_allclose(part, whole[core.slices], rtol=0, atol=1e-4 * whole.std())


def test_missing_voxels_are_left_out_on_fill(tmp_path, write_volume, client):
    clean = waves(16, 32, 48)
    data = noisy(clean)
    data[np.random.default_rng(5).random(data.shape) < 0.002] = np.nan
    volume = write_volume(tmp_path / "v.zarr", data, chunk=(8, 8, 16))
    with pytest.raises(n2v_scale.N2VScaleError, match="are NaN or infinite"):
        n2v_scale.train(volume, tmp_path / "m", client=client, **TINY)
    model = n2v_scale.train(volume, tmp_path / "m", client=client, on_nan="fill", **TINY)
    whole = write_volume(tmp_path / "w.zarr", noisy(clean), chunk=(8, 8, 16))
    assert gain(denoised(model, whole), noisy(clean), clean) > 2
