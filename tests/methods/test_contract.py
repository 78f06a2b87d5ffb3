"""What holds for every method: trained and applied by the same two calls, exactly, and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import Client

from n2v_scale.api import estimate_error, predict, train
from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import OpenOptions, Region, open_denoiser, tile_boxes
from n2v_scale.diagnosis import diagnose_volume
from n2v_scale.errors import ConfigError, PlanError
from n2v_scale.geometry import NO_HALO, Box, round_up
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.known_noise import noise_for
from n2v_scale.methods import METHODS, method_from_dict, method_to_dict
from n2v_scale.methods.base import Method
from n2v_scale.methods.linear import Linear
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.methods.paired import Paired
from n2v_scale.methods.ssdn import BlindSpot
from n2v_scale.model import Model, load_model
from n2v_scale.model_card import read_card
from n2v_scale.noise import NoiseModel
from n2v_scale.progress import NoProgress
from n2v_scale.streams import Streams

NOISE = NoiseModel(0.2, -1.5, 0.4)
LINE = ((0, 0, -2), (0, 0, -1), (0, 0, 1), (0, 0, 2))
EXAMPLES: dict[str, Method] = {
    "linear": Linear(),
    "n2s": Noise2Self((2, 3, 3), NOISE),
    "n2n": Paired(swaps=True),
    "n2v": Noise2Void(noise=NOISE),
    "n2v2": Noise2Void(replacement="median", name="n2v2"),
    "ssdn": BlindSpot(NOISE),
    "structn2v": Noise2Void(blind_mask=LINE, name="structn2v"),
    "supervised": Paired("l1", name="supervised"),
}
BRANCHES = "ssdn branch-unet"
APPLIED = [*EXAMPLES, BRANCHES]
"""Methods with their own networks, and with others that are applied in another way."""
PAIRED = ("n2n", "supervised")
ASKED = {
    "structn2v": {"blind_mask": "x:2"},
    "ssdn": {"gain": 1.0, "offset": 90.0, "read_noise": 3.0},
    "n2s": {"partition": (2, 2, 2)},
}
CAMERA = {"gain": 1.0, "offset": 90.0, "read_noise": 3.0}
SHAPE = (16, 40, 48)


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(seed))


def streams(seed: int = 0) -> Streams:
    return Streams([(seed,), (seed, 1)], torch.device("cpu"))


def output_of(method: Method, example_input: torch.Tensor) -> torch.Tensor:
    """Of a network that repeats its input, with as many channels as the method wants."""
    channels = 2 if method.name == "ssdn" else 1
    return torch.cat([example_input, torch.zeros_like(example_input)], dim=1)[:, :channels]


def test_every_method_is_here():
    assert sorted(EXAMPLES) == sorted(METHODS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_method_survives_json(name):
    method = EXAMPLES[name]
    assert method.name == name
    assert method_from_dict(name, method_to_dict(method)) == method


@pytest.mark.parametrize("shape", [(8, 12, 16), (1, 16, 24)])
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_repeatable_and_aims_at_the_patch(name, shape):
    method, patches = EXAMPLES[name], batch(*shape)
    if name in PAIRED:
        patches = torch.cat([patches, batch(*shape, seed=1)], dim=1)
    if shape[0] == 1 and name == "n2s":
        method = Noise2Self((1, 3, 3))
    first, again = method.prepare(patches, streams()), method.prepare(patches, streams())
    assert torch.equal(first.input, again.input)
    assert torch.equal(first.weight, again.weight)
    if name not in PAIRED:
        assert torch.equal(first.target, patches)
    assert (first.weight > 0).any()
    assert torch.isfinite(method.loss(output_of(method, first.input), first))


@pytest.mark.parametrize("name", EXAMPLES)
def test_where_there_is_no_data_nothing_is_learned(name):
    method, patches = EXAMPLES[name], batch(8, 12, 16)
    if name in PAIRED:
        patches = torch.cat([batch(8, 12, 16, seed=1), patches], dim=1)
    patches[:, -1:, 2:5, 3:9] = torch.nan
    example = method.prepare(patches, streams())
    assert torch.isfinite(example.input).all()
    assert torch.isfinite(example.target).all()
    assert not example.weight[:, :, 2:5, 3:9].any()


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n not in PAIRED])
def test_a_voxel_that_counts_is_not_in_what_the_network_sees(name):
    """Or the network is blind by itself."""
    method, patches = EXAMPLES[name], batch(8, 12, 16)
    example = method.prepare(patches, streams())
    if name in ("linear", "ssdn"):
        assert torch.equal(example.input, patches)
        return
    for at in torch.nonzero(example.weight)[::17]:
        changed = patches.clone()
        changed[tuple(at)] += 1000
        again = method.prepare(changed, streams())
        torch.testing.assert_close(again.input[tuple(at)], example.input[tuple(at)])
        assert again.target[tuple(at)] > 500


# Trained and applied


@pytest.fixture(scope="module")
def volume(tmp_path_factory, write_volume: Callable[..., Volume]) -> Volume:
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[:16, :40, :48]
    signal = 60 * (1 + np.sin(z / 3) * np.sin(y / 4) * np.cos(x / 5))
    values = 90 + rng.poisson(signal) + rng.normal(0, 3, SHAPE)
    path = tmp_path_factory.mktemp("volumes") / "v.zarr"
    return write_volume(path, values.astype(np.float32), chunk=(16, 20, 24))


@pytest.fixture(scope="module")
def capture(tmp_path_factory, volume: Volume, write_volume: Callable[..., Volume]) -> Volume:
    """Another one of the same."""
    noise = np.random.default_rng(1).normal(0, 3, SHAPE)
    values = (volume.read(0, 0, Box.whole(SHAPE)) + noise).astype(np.float32)
    return write_volume(tmp_path_factory.mktemp("captures") / "v.zarr", values)


@pytest.fixture(scope="module")
def models(
    tmp_path_factory, volume: Volume, capture: Volume, client: Client
) -> Callable[[str], Path]:
    """The folder of a model of one of :data:`APPLIED`, trained for three steps."""
    folder = tmp_path_factory.mktemp("models")

    def made(name: str) -> Path:
        if not (folder / name).exists():
            settings = {"steps": 3, "depth": 1, "filters": 4, "patch": (8, 16, 24), "batch": 2}
            method, _, net = name.partition(" ")
            options = settings | {"threads": 1, "net": net or None} | ASKED.get(method, {})
            if name in PAIRED:
                options["pair" if name == "n2n" else "target"] = capture.address
            train(volume, folder / name, method=method, client=client, **options)
        return folder / name

    return made


@pytest.mark.parametrize("name", APPLIED)
def test_it_is_trained_and_applied_and_blocks_do_not_matter(name, models, volume, client, tmp_path):
    model = models(name)
    card = read_card(model)
    assert card.method == name.split()[0]
    assert card.blind == EXAMPLES[card.method].blind
    assert np.isfinite([row["held_out"] for row in card.history if "held_out" in row]).all()
    camera = CAMERA if card.blind else {}
    results = []
    for blocks in ({"block": (16, 40, 48)}, {"block": (8, 24, 16), "chunk": (8, 8, 8)}):
        out = tmp_path / f"{len(results)}.zarr"
        sizes = {"tile": (8, 16, 24), "pyramid": False, "threads": 1, "dtype": "float32"}
        predict(volume, model, out, client=client, **sizes, **blocks, **camera)
        results.append(open_volume(out).read(0, 0, Box.whole(SHAPE)))
    assert results[0].std() > 0
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize(
    ("name", "tta"),
    [*((n, False) for n in APPLIED), ("n2s", True), ("n2v2", True), (BRANCHES, True)],
)
def test_tiles_of_other_shapes_give_the_same(name, tta, models, volume):
    trained = load_model(models(name))
    noise = (NoiseModel(**CAMERA),) if trained.blind else None
    options = OpenOptions(trained.options.normalisation, threads=1, noise=noise, tta=tta)
    values = volume.read(0, 0, Box.whole(SHAPE)).astype(np.float64)
    model = Model(trained.folder, options)
    model.network.double()
    whole = Box.whole(SHAPE)
    estimate = model.denoise(values, Region(0, 0, whole, SHAPE))
    assert model.knows_std == (estimate.std is not None)
    for core in (Box((0, 16, 24), (16, 32, 48)), Box((8, 24, 0), (16, 40, 16))):
        data = tile_boxes(core, model.halo, model.stride, SHAPE).data
        found = model.denoise(values[data.slices], Region(0, 0, core, SHAPE))
        np.testing.assert_allclose(found.mean, estimate.mean[core.slices], rtol=0, atol=1e-8)
        if found.std is not None:
            np.testing.assert_allclose(found.std, estimate.std[core.slices], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_it_knows_of_its_error_without_a_posterior(name, models, volume):
    model = load_model(models(name))
    whole = Box.whole(SHAPE)
    estimate = model.denoise(volume.read(0, 0, whole), Region(0, 0, whole, SHAPE))
    assert model.knows_std == (estimate.std is not None) == (name == "ssdn")


@pytest.mark.parametrize("name", APPLIED)
def test_the_halo_is_what_the_prediction_sees(name, models):
    """A voxel beyond it changes nothing; the farthest within it is not always seen."""
    model = load_model(models(name))
    low, high = model.halo[1]
    shape = (8, round_up(low + high + 17, model.stride[1]), 16)
    x = batch(*shape).double()[:1]
    network, at = model.network.double(), round_up(low, model.stride[1]) + 4
    with torch.no_grad():
        before = model.method.infer(network, x, NO_HALO, None).mean[0, 0, :, at]
        x[0, 0, :, at + high + 1 :] += 100
        x[0, 0, :, : at - low] += 100
        after = model.method.infer(network, x, NO_HALO, None).mean[0, 0, :, at]
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in APPLIED if EXAMPLES[n.split()[0]].blind])
def test_a_blind_prediction_does_not_see_its_voxel(name, models, volume):
    """Rule of the posterior: evidence counts once."""
    model = load_model(models(name))
    model.network.double()
    x = batch(16, 24, 24).double()[:1]
    at = (0, 0, 8, 13, 10)
    with torch.no_grad():
        before = model.method.infer(model.network, x, NO_HALO, None)
        x[at] += 100.0
        after = model.method.infer(model.network, x, NO_HALO, None)
    torch.testing.assert_close(after.mean[at], before.mean[at], rtol=0, atol=1e-10)
    assert not torch.equal(after.mean, before.mean)
    if before.std is not None and after.std is not None:
        torch.testing.assert_close(after.std[at], before.std[at], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "linear"])
def test_a_model_of_the_same_method_can_be_begun_with(
    name, models, volume, capture, client, tmp_path
):
    options = {"steps": 1, "client": client, "init": str(models(name))} | ASKED.get(name, {})
    if name in PAIRED:
        options["pair" if name == "n2n" else "target"] = capture.address
    assert train(volume, tmp_path / "m", method=name, **options).card.method == name


@pytest.mark.parametrize(
    ("method", "of", "more"),
    [("structn2v", "n2v", {"blind_mask": "x:2"}), ("n2v", "structn2v", {}), ("n2v", "ssdn", {})],
)
def test_a_network_of_another_method_is_not_begun_with(method, of, more, models, volume, tmp_path):
    with pytest.raises(ConfigError, match="--init"):
        train(volume, tmp_path / "m", method=method, init=str(models(of)), steps=1, **more)


@pytest.mark.parametrize("partition", [(1, 1, 1), (64, 2, 2)])
def test_a_partition_that_hides_all_or_nothing_is_refused(partition, volume, client, tmp_path):
    with pytest.raises(ConfigError, match="a cell holds at least two voxels"):
        train(volume, tmp_path / "m", method="n2s", partition=partition, steps=1, client=client)


def test_a_method_that_sees_its_voxel_has_no_posterior(models, volume, client, tmp_path):
    with pytest.raises(ConfigError, match="without having seen it"):
        predict(volume, models("n2v"), tmp_path / "o.zarr", client=client, posterior=True)
    assert open_denoiser(str(models("n2v"))).blind is False


def test_a_plain_pass_sees_every_voxel_and_has_no_posterior(models, volume, client, tmp_path):
    plain = Model(models("n2s"), OpenOptions(plain=True))
    assert not plain.blind
    assert plain.method.passes == 1
    core = ((16, 16, 16), ((8, 8),) * 3)
    assert plain.work(*core) < 0.2 * load_model(models("n2s")).work(*core)
    with pytest.raises(ConfigError, match="without having seen it"):
        predict(
            volume, models("n2s"), tmp_path / "o.zarr", client=client, plain=True, posterior=True
        )
    out = tmp_path / "p.zarr"
    predict(volume, models("n2s"), out, client=client, plain=True, pyramid=False)
    assert open_volume(out).read(0, 0, Box.whole(SHAPE)).std() > 0


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n != "n2s"])
def test_a_plain_pass_is_for_what_takes_several(name, models, volume, client, tmp_path):
    with pytest.raises(ConfigError, match="several passes"):
        predict(volume, models(name), tmp_path / "o.zarr", client=client, plain=True)
    assert Model(models(name), OpenOptions(plain=True)).blind == EXAMPLES[name].blind


def test_a_begun_output_keeps_its_posterior(models, volume, client, tmp_path, monkeypatch):
    """Whatever a sample says when it goes on."""
    out, options = tmp_path / "o.zarr", {"block": (8, 24, 16), "chunk": (8, 8, 8)}
    predict(volume, models("linear"), out, client=client, only=[0], posterior=True, **options)
    monkeypatch.setattr("n2v_scale.known_noise._seen", lambda *_: (NoiseModel(9.0, 0.0, 9.0),))
    predict(volume, models("linear"), out, client=client, **options)
    with pytest.raises(PlanError, match="posterior"):
        predict(volume, models("linear"), out, client=client, posterior=False, **options)


def test_an_output_of_one_plain_pass_is_not_taken_for_blind(models, volume, client, tmp_path):
    out = tmp_path / "o.zarr"
    predict(volume, models("n2s"), out, client=client, plain=True, pyramid=False, dtype="float32")
    found = estimate_error(out, volume, **CAMERA)
    assert found.masked_psnr is not None


def test_correlated_noise_and_noise_that_does_not_show_have_no_posterior_unless_asked_for(
    models, client, tmp_path, write_volume
):
    """Neighbours that share the noise tell of it: what seems to be missed is the noise itself."""
    rng = np.random.default_rng(3)
    z, y, x = np.ogrid[:24, :64, :96]
    signal = 400 + 200 * np.sin(z / 5) * np.sin(y / 6) * np.cos(x / 7)
    white = rng.normal(0, 1, (24, 64, 97))
    for name, noise in (
        ("lines", white[..., 1:] + 0.7 * white[..., :-1]),
        ("white", white[..., 1:]),
    ):
        values = signal + np.sqrt(signal) * noise
        volume = write_volume(tmp_path / f"{name}.zarr", values.astype(np.float32))
        denoiser = open_denoiser(str(models("linear")))
        found = noise_for(denoiser, volume, PredictSettings())
        assert (found.noise is None) == (name == "lines")
        assert (found.why_not is not None) == (name == "lines")
        assert noise_for(denoiser, volume, PredictSettings(posterior=True)).noise is not None
        off = noise_for(denoiser, volume, PredictSettings(posterior=False))
        assert (off.noise, off.why_not) == (None, "--no-posterior was given")


def test_a_prediction_says_that_one_channel_s_noise_leaves_out_the_posterior_of_all(
    models, client, tmp_path, write_volume
):
    rng = np.random.default_rng(3)
    z, y, x = np.ogrid[:24, :64, :96]
    signal = 400 + 200 * np.sin(z / 5) * np.sin(y / 6) * np.cos(x / 7)
    white = rng.normal(0, 1, (2, 24, 64, 97))
    noise = white[..., 1:] + np.array([0, 0.7]).reshape(2, 1, 1, 1) * white[..., :-1]
    values = (signal + np.sqrt(signal) * noise).astype(np.float32)
    volume = write_volume(tmp_path / "v.zarr", values, "czyx")
    said: list[str] = []
    progress = NoProgress()
    progress.say = said.append
    out = tmp_path / "o.zarr"
    options = {"client": client, "pyramid": False, "block": (24, 64, 64)}
    first = predict(volume, models("linear"), out, progress=progress, only=[0], **options)
    assert first.posterior is False
    assert "channel 1: the noise is correlated along x" in first.no_posterior
    assert "none of the channels" in first.no_posterior
    assert "channel 0" not in first.no_posterior
    assert [line for line in said if first.no_posterior in line]
    again = predict(volume, models("linear"), out, **options)  # the reason is on record
    assert again.to_dict()["no_posterior"] == first.no_posterior
    other = predict(volume, models("linear"), tmp_path / "p.zarr", posterior=True, **options)
    assert (other.posterior, other.no_posterior) == (True, None)
    seen = predict(volume, models("n2v"), tmp_path / "q.zarr", **options)
    assert (seen.posterior, seen.no_posterior) == (None, None)


def test_a_camera_that_training_was_told_of_is_the_prediction_s(models, volume):
    denoiser = open_denoiser(str(models("ssdn")))
    (found,) = noise_for(denoiser, volume, PredictSettings()).noise
    assert (found.gain, found.offset, found.read_noise) == (1.0, 90.0, 3.0)


def test_auto_is_what_the_diagnosis_recommends(volume, client, tmp_path, write_volume):
    rng = np.random.default_rng(0)
    white = rng.normal(0, 1, (32, 96, 97))
    z, y, x = np.ogrid[:32, :96, :96]
    signal = 400 + 200 * np.sin(z / 5) * np.sin(y / 6) * np.cos(x / 7)
    values = signal + np.sqrt(signal) * (white[..., 1:] + 0.7 * white[..., :-1])
    lines = write_volume(tmp_path / "lines.zarr", values.astype(np.float32))
    recommended = diagnose_volume(lines).recommendation
    assert recommended.method == "structn2v"
    short = {"steps": 2, "filters": 2, "patch": (8, 32, 32), "client": client}
    model = train(lines, tmp_path / "m", method="auto", **short)
    assert model.card.method == "structn2v"
    assert model.card.training["blind_mask"] == recommended.mask
    assert model.card.method_config["blind_mask"]
    assert train(lines, tmp_path / "m", method="auto", **short).key == model.key  # is finished
    masked = train(lines, tmp_path / "a", method="structn2v", blind_mask="auto", **short)
    assert masked.card.training["blind_mask"] == recommended.mask
    with pytest.raises(ConfigError, match="no noise that is alike"):
        train(volume, tmp_path / "w", method="structn2v", blind_mask="auto", **short)


def test_the_posterior_of_the_filter_beats_the_filter(models, volume, client, tmp_path):
    z, y, x = np.ogrid[:16, :40, :48]
    truth = 90 + 60 * (1 + np.sin(z / 3) * np.sin(y / 4) * np.cos(x / 5))
    errors = {}
    for name, options in (("with", CAMERA), ("without", {"posterior": False})):
        out = tmp_path / f"{name}.zarr"
        predict(volume, models("linear"), out, client=client, pyramid=False, **options)
        errors[name] = np.mean((open_volume(out).read(0, 0, Box.whole(SHAPE)) - truth) ** 2)
    assert errors["with"] < 0.95 * errors["without"]
