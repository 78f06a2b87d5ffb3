"""The estimated error is the true one, which simulated volumes know."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

import n2v_scale
from n2v_scale.cli import cli
from n2v_scale.errors import ConfigError, InputError, ModelError
from n2v_scale.local_cluster import thread_client
from n2v_scale.simulate import simulate_light_sheet

SHAPE = (32, 128, 128)
KNOWN = {"gain": 2.2, "offset": 100.0, "read_noise": 3.52}


def write(path, values):
    chunks = tuple(min(n, c) for n, c in zip(values.shape, (32, 64, 64), strict=True))
    zarr.create_array(str(path), data=values, chunks=chunks)
    return str(path)


class Case:
    """A noisy volume, its truth, a model of it, and what the model makes of it."""

    def __init__(self, folder, noisy, clean, data_range, camera, **train):
        self.folder, self.data_range, self.camera = folder, data_range, camera
        self.noisy = write(folder / "noisy.zarr", noisy)
        self.clean = write(folder / "clean.zarr", clean)
        self.model = str(folder / "model.n2v")
        n2v_scale.train(self.noisy, self.model, **train)

    def predict(self, name, **settings):
        out = self.folder / f"{name}.zarr"
        if not out.exists():
            with thread_client(2) as client:
                n2v_scale.predict(
                    self.noisy, self.model, out, client=client, pyramid=False, **settings
                )
        return str(out)

    def estimate(self, denoised, **options):
        return n2v_scale.estimate_error(denoised, self.noisy, data_range=self.data_range, **options)

    def truth(self, denoised):
        return n2v_scale.evaluate(denoised, self.clean, data_range=self.data_range).psnr


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    made = simulate_light_sheet(SHAPE, seed=1)
    folder = tmp_path_factory.mktemp("linear")
    return Case(folder, made.noisy, made.clean, made.data_range, KNOWN, method="linear")


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    made = simulate_light_sheet((16, 96, 96), seed=2)
    folder = tmp_path_factory.mktemp("network")
    options = {"steps": 20, "patch": (8, 32, 32), "filters": 4, "batch": 2}
    return Case(folder, made.noisy, made.clean, made.data_range, KNOWN, **options)


@pytest.fixture
def blind(linear):
    return linear.predict("blind", posterior=False)


@pytest.fixture
def posterior(linear):
    return linear.predict("posterior", **KNOWN)


def test_a_blind_prediction_with_a_known_camera(linear, blind):
    found = linear.estimate(blind, **KNOWN)
    true = linear.truth(blind)
    assert found.of == "the blind prediction"
    assert found.psnr == pytest.approx(true, abs=0.5)
    assert found.psnr_low <= true <= found.psnr_high
    assert found.psnr_high - found.psnr_low < 1.5
    assert found.noise_known
    assert found.masked_psnr is None
    assert abs(found.residual_with_signal) < 0.03
    assert found.notes == ()


def test_a_posterior_is_asked_of_its_model(linear, posterior, blind):
    found = linear.estimate(posterior, **KNOWN)
    assert found.of == "the posterior mean"
    assert found.psnr == pytest.approx(linear.truth(posterior), abs=0.5)
    assert found.psnr > linear.estimate(blind, **KNOWN).psnr
    assert found.notes == ()


@pytest.mark.parametrize("name", ["blind", "posterior"])
def test_without_a_camera_the_interval_is_wide_and_right(linear, request, name):
    denoised = request.getfixturevalue(name)
    found = linear.estimate(denoised)
    assert found.psnr_low <= linear.truth(denoised) <= found.psnr_high
    assert found.psnr_high - found.psnr_low > 1.5
    assert not found.noise_known
    assert any("interval wide" in note for note in found.notes)


def test_a_network_that_sees_what_it_predicts(network):
    denoised = network.predict("network")
    found = network.estimate(denoised, **KNOWN)
    assert found.of == "the network's prediction"
    assert found.psnr == pytest.approx(network.truth(denoised), abs=0.5)
    assert found.masked_psnr == pytest.approx(found.psnr, abs=2)


@pytest.mark.parametrize("name", ["gaussian", "median", "tv"])
def test_a_filter_that_sees_what_it_makes(network, name):
    """So that a filter and a network can be held side by side without a clean volume."""
    denoised = network.folder / f"{name}.zarr"
    with thread_client(2) as client:
        n2v_scale.baseline(network.noisy, denoised, filter=name, client=client, pyramid=False)
    found, true = network.estimate(denoised, **KNOWN), network.truth(denoised)
    assert found.of == "what the filter makes"
    assert found.psnr_low <= true <= found.psnr_high
    assert found.psnr == pytest.approx(true, abs=0.5)
    assert not any("is not what" in note for note in found.notes)


def test_a_filter_of_one_channel_of_two(tmp_path, write_volume, client):
    """Each channel has a parameter of its own, which is found by the channel's place."""
    made = [
        simulate_light_sheet((16, 96, 96), seed=seed, photons=p) for seed, p in ((1, 9), (2, 90))
    ]
    pair, clean = (np.stack([getattr(m, name) for m in made]) for name in ("noisy", "clean"))
    noisy = write_volume(tmp_path / "v.zarr", pair, "czyx")
    truth = write_volume(tmp_path / "c.zarr", clean, "czyx")
    output = tmp_path / "o.zarr"
    n2v_scale.baseline(noisy, output, filter="median", client=client, pyramid=False)
    for c in (0, 1):
        parts = [n2v_scale.open_volume(v, channels=[c]) for v in (output, noisy.address)]
        found = n2v_scale.estimate_error(*parts, **KNOWN)
        clean_part = n2v_scale.open_volume(truth.address, channels=[c])
        true = n2v_scale.evaluate(parts[0], clean_part, data_range=found.data_range)
        assert found.psnr_low <= true.psnr <= found.psnr_high
        assert not any("is not what" in note for note in found.notes)


def test_a_filter_that_is_told_must_fit(linear, blind, tmp_path, write_volume):
    with thread_client(2) as client:
        told = linear.folder / "told.zarr"
        n2v_scale.baseline(linear.noisy, told, filter="gaussian", values=[1.0], client=client)
    model = f"{told}.filter"
    found = linear.estimate(blind, model=model, **KNOWN)
    assert found.of == "what the filter makes"
    assert any("is not what" in note for note in found.notes)
    flat = np.random.default_rng(0).normal(100, 9, (2, 16, 64, 64)).astype("u2")
    other = write_volume(tmp_path / "two.zarr", flat, "czyx")
    with pytest.raises(ModelError, match="was calibrated on channels"):
        n2v_scale.estimate_error(other, other, model=model, **KNOWN)


def test_what_nothing_is_known_of_is_taken_for_blind_and_says_so(linear, blind, tmp_path):
    values = np.asarray(zarr.open_array(blind, path="0", mode="r")[...])
    plain = write(tmp_path / "plain.zarr", values)
    found = linear.estimate(plain, **KNOWN)
    assert found.mse == pytest.approx(linear.estimate(blind, **KNOWN).mse)
    assert any("nothing says what made this volume" in note for note in found.notes)
    told = linear.estimate(plain, model=linear.model, **KNOWN)
    assert told.of == "the posterior mean"  # what predict does with such a model by itself


def test_another_model_is_told(linear, blind, network):
    found = linear.estimate(blind, model=network.model, **KNOWN)
    assert found.of == "the network's prediction"
    other = linear.estimate(linear.noisy, model=linear.model, **KNOWN)
    assert any("is not what" in note for note in other.notes)


def test_a_model_that_is_gone_is_named(linear, posterior, tmp_path):
    gone = tmp_path / "away.n2v"
    shutil.move(linear.model, gone)
    try:
        with pytest.raises(InputError, match="--model"):
            linear.estimate(posterior, **KNOWN)
        assert linear.estimate(posterior, model=gone, **KNOWN).of == "the posterior mean"
    finally:
        shutil.move(gone, linear.model)


def test_correlated_noise_is_said(tmp_path):
    made = simulate_light_sheet(SHAPE, seed=1)
    rows = 6 * np.random.default_rng(0).standard_normal((*SHAPE[:2], 1))
    noisy = write(tmp_path / "noisy.zarr", (made.noisy + rows).astype("f4"))
    clean = write(tmp_path / "clean.zarr", made.clean)
    found = n2v_scale.estimate_error(clean, noisy)
    assert any("correlated along x" in note for note in found.notes)
    assert any("alike along" in note for note in found.notes)


def test_shapes_cameras_and_ranges_are_checked(linear, blind, network):
    with pytest.raises(InputError, match="--channel"):
        linear.estimate(blind, **KNOWN) and n2v_scale.estimate_error(blind, network.noisy)
    with pytest.raises(ConfigError, match="belong together"):
        linear.estimate(blind, gain=2.0)
    found = n2v_scale.estimate_error(blind, linear.noisy, **KNOWN)
    assert found.data_range == pytest.approx(linear.data_range, rel=0.1)


@pytest.fixture(scope="module")
def half(linear):
    """A mask that holds the right half and, a cell at 8 voxels, a little of the left one."""
    mask = np.zeros((4, 16, 16), np.uint8)
    mask[:, :, 8:] = 1
    mask[1, 2, 3] = 1
    return write(linear.folder / "mask.zarr", mask)


def true_error(linear, denoised, computed):
    values, clean, noisy = (
        np.asarray(zarr.open_array(str(a), mode="r")[...], np.float64)
        for a in (f"{denoised}/0", linear.clean, linear.noisy)
    )
    assert (values[~computed] == noisy[~computed]).all()
    return np.mean((values - clean)[computed] ** 2)


@pytest.mark.parametrize("posterior", [False, True])
def test_what_a_mask_left_as_it_was_is_not_counted(linear, half, posterior):
    settings = KNOWN if posterior else {"posterior": False}
    sizes = {"chunk": 32, "shard": 32, "block": 32} | {"mask": half}
    sizes = {k: (v,) * 3 if isinstance(v, int) else v for k, v in sizes.items()}
    denoised = linear.predict(f"masked{posterior}", **sizes, **settings)
    computed = np.zeros(SHAPE, bool)
    computed[:, :, 64:] = True
    computed[:, :32, :32] = True  # the cell of 32 voxels that the little of the left lies in
    found = linear.estimate(denoised, **KNOWN)
    true = true_error(linear, denoised, computed)
    assert found.voxels == computed.sum()
    assert found.mse == pytest.approx(true, rel=0.12)
    assert found.mse - found.mse_error <= true <= found.mse + found.mse_error
    (note,) = found.notes
    assert "left as they were" in note


def test_what_holds_no_data_is_not_counted(linear, tmp_path):
    noisy = np.asarray(zarr.open_array(linear.noisy, mode="r")[...])
    noisy[:, 64:] = 0
    holed = write(tmp_path / "holed.zarr", noisy)
    out = tmp_path / "out.zarr"
    with thread_client(2) as client:
        n2v_scale.predict(
            holed, linear.model, out, nodata=0, posterior=False, pyramid=False, client=client
        )
    found = n2v_scale.estimate_error(out, holed, data_range=linear.data_range, **KNOWN)
    assert found.voxels == noisy.size // 2
    values = np.asarray(zarr.open_array(str(out), path="0", mode="r")[...], np.float64)
    clean = zarr.open_array(linear.clean, mode="r")[...]
    assert found.mse == pytest.approx(np.mean((values - clean)[:, :64] ** 2), rel=0.12)


def test_a_mask_that_changed_or_hides_all_is_told(linear, half, tmp_path):
    mask = tmp_path / "mask.zarr"
    shutil.copytree(half, mask)
    denoised = linear.predict("changed", mask=str(mask), posterior=False)
    opened = zarr.open_array(str(mask), mode="r+")
    opened[...] = 0
    with pytest.raises(InputError, match="has changed since"):
        linear.estimate(denoised, **KNOWN)
    empty = linear.predict("empty", mask=str(mask), posterior=False)
    with pytest.raises(InputError, match="none of the sampled ones was denoised"):
        linear.estimate(empty, **KNOWN)


def test_a_constant_volume_needs_a_range(linear, tmp_path):
    flat = write(tmp_path / "flat.zarr", np.full(SHAPE, 7, "u2"))
    with pytest.raises(InputError, match="--range"):
        n2v_scale.estimate_error(flat, linear.noisy, **KNOWN)


def run(*arguments):
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)], catch_exceptions=False)


CAMERA = ["--gain", 2.2, "--offset", 100, "--read-noise", 3.52]


def test_the_command(linear, blind):
    done = run(blind, "--noisy", linear.noisy, *CAMERA)
    assert done.exit_code == 0
    assert "of the blind prediction" in done.output
    assert "residual along x" in done.output
    both = run(blind, "--noisy", linear.noisy, "--reference", linear.clean, *CAMERA, "--json")
    found = json.loads(both.stdout)
    assert found["estimate"]["data_range"] == found["data_range"]
    assert found["estimate"]["psnr"] == pytest.approx(found["psnr"], abs=0.5)
    assert set(json.loads(run(blind, "--reference", linear.clean, "--json").stdout)) == {
        "psnr",
        "si_psnr",
        "ssim",
        "data_range",
        "voxels",
    }


def test_the_command_needs_something_to_compare_with(linear, blind):
    assert run(blind).exit_code == 2
    assert run(blind, "--reference", linear.clean, "--model", linear.model).exit_code == 2


@pytest.mark.data
def test_a_real_brain_with_known_noise(data_dir, tmp_path):
    import tifffile

    brain = tifffile.imread(data_dir / "volumes" / "mousebrain_atlas_clean.tif")
    crop = brain[60:156, 0:192, 8:264].astype("f4")
    clean = (40 * crop / np.percentile(crop, 99.9)).astype("f4")
    rng = np.random.default_rng(0)
    noisy = (rng.poisson(clean) + 2.5 * rng.standard_normal(clean.shape)).astype("f4")
    camera = {"gain": 1.0, "offset": 0.0, "read_noise": 2.5}
    case = Case(tmp_path, noisy, clean, 40.0, camera, method="linear")
    for name, settings in (("blind", {"posterior": False}), ("posterior", camera)):
        denoised = case.predict(name, **settings)
        true = case.truth(denoised)
        found = case.estimate(denoised, **camera)
        assert found.psnr == pytest.approx(true, abs=0.5)
        assert found.psnr_low <= true <= found.psnr_high
        unknown = case.estimate(denoised)
        assert unknown.psnr_low <= true <= unknown.psnr_high
