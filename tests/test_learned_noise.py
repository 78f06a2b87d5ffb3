"""A camera's noise that is trained with the network: found, kept, gone on with, and applied."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import Client
from torch import nn

from n2v_scale import loop, step
from n2v_scale.api import plan_prediction, predict, train
from n2v_scale.config import PredictSettings, TrainSettings, read_settings
from n2v_scale.denoiser import open_denoiser
from n2v_scale.errors import ConfigError, TrainingError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.known_noise import noise_for, same_camera
from n2v_scale.learned_noise import LearnedNoise, as_trained, of_both
from n2v_scale.methods.base import Example
from n2v_scale.methods.ssdn import BlindSpot, LearningNoise
from n2v_scale.model import load_model
from n2v_scale.model_card import read_card
from n2v_scale.noise import NoiseModel
from n2v_scale.train_summary import summary_of

TRUE = NoiseModel(0.2, -2.0, 0.3)
"""Of normalised voxels."""
SHAPE = (16, 40, 48)
TINY = {"steps": 6, "depth": 1, "filters": 4, "patch": (8, 16, 24), "batch": 2, "threads": 1}
LEARNED = {"method": "ssdn", "noise": "learned", **TINY}


@pytest.fixture(scope="module", autouse=True)
def _at_once() -> Iterator[None]:
    """These trainings are short: the noise does not wait for the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("n2v_scale.learned_noise.WAIT", 0)
        yield


class Knowing(nn.Module):
    """Predicts what it is given, and claims one variance in each half of the volume."""

    def __init__(self, claimed: float) -> None:
        super().__init__()
        self.claimed = nn.Parameter(torch.full((2,), claimed))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        claims = self.claimed.repeat_interleave(x.shape[2] // 2).reshape(-1, 1, 1)
        return torch.cat([x, claims.expand_as(x)], dim=1)


def captured(seed: int = 0, missed: float = 0.0) -> tuple[torch.Tensor, Example]:
    """A smooth volume, and what a camera of :data:`TRUE` makes of it; in the second half there is
    something more, of ``missed`` times the noise's variance, that no neighbour tells of.
    """
    clean = torch.linspace(-2, 6, 24).expand(1, 1, 16, 16, 24).contiguous()
    variance = torch.from_numpy(TRUE.variance(clean.numpy()))
    variance[:, :, 8:] *= 1 + missed
    white = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return clean, Example(clean, clean + variance.sqrt() * white, torch.ones_like(clean))


@pytest.mark.parametrize("wrong", [0.7, 1.8])
def test_the_camera_is_found_from_a_guess_that_is_wrong(wrong):
    """What the network claims for itself becomes the noise's, and no more than there is."""
    first = NoiseModel(TRUE.gain * wrong, TRUE.offset, TRUE.read_noise * wrong)
    method, module = LearningNoise(first), LearnedNoise(Knowing(-1.0), first)
    slow, fast = {"params": [module.raw], "lr": 2e-3}, {"params": [module.network.claimed]}
    optimizer = torch.optim.Adam([slow, fast], lr=0.05)
    captures = [captured(seed, missed=1.5) for seed in range(8)]
    for clean, example in captures * 25:
        optimizer.zero_grad()
        method.loss(module(clean), example).backward()
        optimizer.step()
    found = module.noise()
    assert found.gain == pytest.approx(TRUE.gain, rel=0.1)
    assert found.read_noise == pytest.approx(TRUE.read_noise, rel=0.2)
    assert found.offset == TRUE.offset


@pytest.mark.parametrize(("wrong", "sign"), [(0.4, -1), (3.0, 1)])
def test_a_gradient_reaches_gain_and_read_noise(wrong, sign):
    """Downhill is towards the truth; what the network claims does not stand in the way."""
    first = NoiseModel(TRUE.gain * wrong, TRUE.offset, TRUE.read_noise * wrong**0.5)
    module = LearnedNoise(Knowing(-4.0), first)
    clean, example = captured()
    LearningNoise(first).loss(module(clean), example).backward()
    assert (torch.sign(module.raw.grad) == sign).all()
    assert module.network.claimed.grad.abs().min() > 0


def test_the_noise_waits_until_the_network_has_learned_something(monkeypatch):
    monkeypatch.setattr("n2v_scale.learned_noise.WAIT", 2)
    module, method = LearnedNoise(Knowing(-1.0), TRUE), LearningNoise(TRUE)
    clean, example = captured(missed=1.5)
    moved = []
    for _ in range(4):
        module.zero_grad()
        method.loss(module(clean), example).backward()
        moved.append(bool(module.raw.grad.any()))
        module.eval()(clean)  # looks at the held-out regions do not count
        module.train()
    assert moved == [False, False, True, True]


def test_where_network_and_noise_explain_the_voxels_alike_the_noise_grows():
    """The likelihood alone would leave it where it is."""
    first = NoiseModel(TRUE.gain / 2, TRUE.offset, TRUE.read_noise / 2**0.5)
    module, method = LearnedNoise(Knowing(0.0), first), LearningNoise(first)
    clean, _ = captured()
    with torch.no_grad():
        output = module(clean)
        unit = torch.from_numpy(first.variance(clean.numpy()))
        variance = unit + output[:, 2:3] * (clean - first.offset).clamp_min(0) + output[:, 3:4]
    # Errors that are just what both say together, everywhere.
    exact = Example(clean, clean + variance.sqrt(), torch.ones_like(clean))
    method.loss(module(clean), exact).backward()
    assert (module.raw.grad < 0).all()
    assert module.network.claimed.grad.abs().max() < 1e-6


@pytest.mark.parametrize("first", [TRUE, NoiseModel(0.0, -1.0, 0.5), NoiseModel(0.3, -1.0, 0.0)])
def test_it_begins_with_the_guess_and_with_something_of_both(first):
    found = LearnedNoise(Knowing(0.0), of_both(first)).noise()
    assert found.gain > 0
    assert found.read_noise > 0
    mean = np.zeros(())
    assert found.variance(mean) == pytest.approx(first.variance(mean), rel=1e-5)
    if first is TRUE:
        assert found.gain == pytest.approx(first.gain, rel=1e-5)


def test_the_method_goes_on_as_one_that_knows_the_noise():
    """The same distribution from the same output, whatever the noise has become."""
    method, network = LearningNoise(TRUE), Knowing(-1.0)
    module = LearnedNoise(network, TRUE)
    with torch.no_grad():
        module.raw += 0.1
    found, weights, applied = as_trained(module, dict(module.state_dict()), method)
    assert found is network
    assert list(weights) == ["claimed"]
    assert type(applied) is BlindSpot
    assert applied.noise == module.noise() != TRUE
    x = torch.zeros(1, 1, 4, 4, 4)
    whole = [(0, 0)] * 3
    said = [m.infer(lambda t, *_: network(t), x, whole, None) for m in (method, applied)]
    assert torch.equal(said[0].std, said[1].std)


# Trained, kept and applied


def brightness() -> np.ndarray:
    z, y, x = np.ogrid[:16, :40, :48]
    return 60 * (1 + np.sin(z / 3) * np.sin(y / 4) * np.cos(x / 5))


def counts(gain: float, seed: int = 0) -> np.ndarray:
    """Of a camera with an offset of 90 and a read noise of 3."""
    rng = np.random.default_rng(seed)
    photons = gain * rng.poisson(brightness() / gain)
    return (90 + photons + rng.normal(0, 3, SHAPE)).astype(np.float32)


@pytest.fixture(scope="module")
def volume(tmp_path_factory, write_volume: Callable[..., Volume]) -> Volume:
    return write_volume(tmp_path_factory.mktemp("v") / "v.zarr", counts(1.0), chunk=(16, 20, 24))


@pytest.fixture(scope="module")
def model(tmp_path_factory, volume: Volume, client: Client) -> Path:
    folder = tmp_path_factory.mktemp("models") / "m"
    train(volume, folder, client=client, **LEARNED)
    return folder


def test_the_model_keeps_what_was_learned(model, volume):
    card = read_card(model)
    learned = load_model(model).learned_noise
    normalised = load_model(model).method.noise
    (offset,), (scale,) = card.trained_on.offset, card.trained_on.scale
    again = learned.normalised(offset, scale)
    assert (again.gain, again.read_noise) == pytest.approx((normalised.gain, normalised.read_noise))
    assert again.offset == pytest.approx(normalised.offset)
    seen = NoiseModel(**card.trained_on.survey[0]["noise"])
    assert learned.offset == seen.offset
    assert learned.gain != seen.gain
    assert learned.gain == pytest.approx(seen.gain, rel=0.2)  # six steps lead nowhere
    said = summary_of(str(model), card, already_finished=False)
    assert f"gain {learned.gain:.4g}, offset {learned.offset:.4g}" in said.text()
    assert json.loads(json.dumps(said.to_dict()))["learned_noise"]["gain"] == learned.gain


def test_the_posterior_is_made_with_what_was_learned(model, volume, client, tmp_path):
    learned = load_model(model).learned_noise
    assert plan_prediction(volume, model, tmp_path / "p.zarr").noise == (learned,)
    told = {"gain": learned.gain, "offset": learned.offset, "read_noise": learned.read_noise}
    results = []
    for name, camera in {"own": {}, "told": told, "other": told | {"gain": 9.0}}.items():
        out = tmp_path / f"{name}.zarr"
        options = {"pyramid": False, "dtype": "float32", "threads": 1}
        predict(volume, model, out, client=client, **options, **camera)
        results.append(open_volume(out).read(0, 0, Box.whole(SHAPE)))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_another_volume_of_the_same_camera_has_the_learned_noise(model, tmp_path, write_volume):
    denoiser = open_denoiser(str(model))
    for gain, same in ((1.0, True), (6.0, False)):
        other = write_volume(tmp_path / f"{gain}.zarr", counts(gain, seed=1))
        (found,) = noise_for(denoiser, other, PredictSettings()).noise
        assert (found == denoiser.learned_noise) == same


@pytest.mark.parametrize(("factor", "same"), [(0.5, False), (0.9, True), (1.8, True), (3, False)])
def test_structure_adds_to_what_a_sample_shows_and_nothing_takes_from_it(factor, same):
    means = np.array([100, 150, 200, np.nan])
    seen = NoiseModel(2.0 * factor, 90.0, 3.0 * factor**0.5)
    assert same_camera(NoiseModel(2.0, 90.0, 3.0), seen, means) == same
    assert not same_camera(NoiseModel(2.0, 90.0, 3.0), seen, means[3:])


def test_an_interrupted_training_ends_with_the_same_weights_and_noise(
    volume, client, tmp_path, model, monkeypatch
):
    real, taken = step.take_step, []

    def stopped(run, *arguments):
        loss = real(run, *arguments)
        taken.append(run.budget.step)
        if taken == [0, 1, 2]:
            signal.raise_signal(signal.SIGTERM)
        return loss

    monkeypatch.setattr(loop, "take_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(volume, tmp_path / "m", client=client, **LEARNED)
    resumed = train(volume, tmp_path / "m", client=client, **LEARNED)
    assert taken == list(range(6))
    assert resumed.key == load_model(model).key
    assert resumed.learned_noise == load_model(model).learned_noise


def test_a_model_that_knew_the_noise_can_be_begun_with(model, volume, client, tmp_path):
    options = {"init": str(model), "steps": 1, "threads": 1, "client": client}
    told = {"gain": 1.0, "offset": 90.0, "read_noise": 3.0}
    known = train(volume, tmp_path / "k", method="ssdn", **told, **options)
    assert known.learned_noise is None
    options["init"] = str(tmp_path / "k")
    learned = train(volume, tmp_path / "l", method="ssdn", noise="learned", **options)
    assert learned.learned_noise is not None


def test_noise_that_is_not_on_the_camera_s_line_can_be_learned(
    volume, client, tmp_path, monkeypatch
):
    """Where a sample is not to be trusted, a known noise is refused."""
    monkeypatch.setattr("n2v_scale.noise.MOST_MISFIT", 0.01)
    with pytest.raises(TrainingError, match="--noise learned"):
        train(volume, tmp_path / "m", client=client, method="ssdn", **TINY)
    assert train(volume, tmp_path / "m", client=client, **LEARNED).learned_noise is not None


def test_a_sample_without_noise_is_no_beginning(client, tmp_path, write_volume):
    z, y, x = np.ogrid[:16, :40, :48]
    halves = write_volume(tmp_path / "v.zarr", np.where(x < 24, z * 0 + y * 0, 1).astype("f4"))
    with pytest.raises(TrainingError, match="to begin to learn the noise from"):
        train(halves, tmp_path / "m", client=client, **LEARNED)


@pytest.mark.parametrize("method", ["n2v", "n2s", "linear", "auto"])
def test_only_ssdn_learns_the_noise(method):
    with pytest.raises(ConfigError, match="noise learned is for method ssdn"):
        read_settings(TrainSettings, None, method=method, noise="learned")


def test_noise_is_not_both_told_and_learned():
    with pytest.raises(ConfigError, match="both given"):
        read_settings(
            TrainSettings, None, method="ssdn", noise="learned", gain=1, offset=0, read_noise=1
        )
