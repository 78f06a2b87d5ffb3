"""Baselines: calibrated without the truth, near the best, applied block by block, resumed."""

from __future__ import annotations

import importlib.util
import json
import logging
import sys

import numpy as np
import pytest
import zarr

import n2v_scale
from n2v_scale import baselines, calibration
from n2v_scale.baselines import filter_settings
from n2v_scale.blocks import denoise_tiles
from n2v_scale.calibration import calibrated_filter
from n2v_scale.calibration_plot import draw_calibration
from n2v_scale.classical import FILTERS, axis_ratio
from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Region, open_denoiser
from n2v_scale.donut import PERIOD, hidden_sites, hide, measure_losses
from n2v_scale.errors import ConfigError, IncompleteError, InputError, ModelError, OutputError
from n2v_scale.filter_card import read_calibration, read_filter_card
from n2v_scale.filtering import CalibratedFilter
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.model_card import read_card
from n2v_scale.plan import make_plan
from n2v_scale.simulate import simulate_light_sheet

NAMES = [n for n in FILTERS if n != "wavelet" or importlib.util.find_spec("pywt")]
SHAPE = (12, 64, 64)
VOXEL = (2.0, 0.4, 0.4)
MOST_LOSS_DB = 0.6
"""Of the chosen value behind the best of the candidates."""


@pytest.fixture(scope="module")
def simulated():
    return simulate_light_sheet(SHAPE, voxel_size=VOXEL, seed=5)


@pytest.fixture
def volume(tmp_path, simulated, write_volume):
    chunk = (12, 32, 32)
    return write_volume(tmp_path / "noisy.zarr", simulated.noisy, chunk=chunk, scale=VOXEL)


def stored(path):
    return np.asarray(zarr.open_array(str(path), path="0", mode="r")[...])


def normalised(simulated):
    """Noisy and true values in units of the noise, and that unit."""
    camera = simulated.parameters.camera
    variance = camera.gain**2 * (simulated.electrons + camera.read_noise**2)
    unit = float(np.sqrt(variance.mean()))
    offset = float(simulated.noisy.mean())
    return (simulated.noisy - offset) / unit, (simulated.clean - offset) / unit, variance / unit**2


# The donut


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 9), (2, 3, 4), (9, 10, 11)])
def test_hidden_voxels_are_never_neighbours(shape):
    sites = hidden_sites(shape)
    assert sites.any()
    where = np.argwhere(sites)
    apart = np.abs(where[:, None] - where[None]).max(axis=-1)
    assert len(where) == 1 or apart[apart > 0].min() == PERIOD


def test_what_stands_in_a_hidden_voxel_does_not_depend_on_it():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((9, 12, 12)).astype(np.float32)
    sites, ratio = hidden_sites(values.shape), (0.2, 1.0, 1.0)
    hollow = hide(values, sites, ratio, np.random.default_rng(1))
    np.testing.assert_array_equal(hollow[~sites], values[~sites])
    other = np.where(sites, 1000, values)
    np.testing.assert_array_equal(hollow, hide(other, sites, ratio, np.random.default_rng(1)))


def test_what_stands_in_a_hidden_voxel_is_as_noisy_as_the_others():
    noise = np.random.default_rng(0).standard_normal((30, 60, 60)).astype(np.float32)
    sites = hidden_sites(noise.shape)
    hollow = hide(noise, sites, (1.0, 1.0, 1.0), np.random.default_rng(1))
    assert hollow[sites].std() == pytest.approx(1, abs=0.03)


def test_the_loss_is_the_error_and_the_noise(simulated):
    """Noise2Self, equation 2: of the filter as it is with voxels hidden."""
    noisy, clean, variance = normalised(simulated)
    ratio = axis_ratio(SHAPE, VOXEL)
    filters = [FILTERS["gaussian"](v, ratio) for v in (0.5, 1.0, 2.0, 3.5)]
    losses = measure_losses(noisy, filters, np.random.default_rng(3))
    sites = hidden_sites(SHAPE)
    hollow = hide(noisy.astype(np.float32), sites, ratio, np.random.default_rng(3))
    error = np.array([np.mean((one(hollow)[sites] - clean[sites]) ** 2) for one in filters])
    expected = error + variance[sites].mean()
    np.testing.assert_allclose(losses.hidden / losses.voxels, expected, rtol=0.08)
    assert losses.voxels == sites.sum()
    assert (np.diff(losses.seen) > 0).all()  # what is taken away grows with the filter


def test_voxels_that_are_not_finite_are_not_counted():
    values = np.random.default_rng(0).standard_normal((3, 12, 12)).astype(np.float32)
    values[1, 1, 1] = np.nan
    found = measure_losses(values, [FILTERS["gaussian"](1.0)], np.random.default_rng(0))
    assert found.voxels == hidden_sites(values.shape).sum() - 1
    assert np.isfinite(found.hidden).all()


# Calibration


@pytest.mark.parametrize("name", NAMES)
def test_it_chooses_near_the_best_without_the_truth(tmp_path, volume, simulated, name):
    card = calibrated_filter(volume, tmp_path / "f", name)
    errors = {}
    for value in FILTERS[name].candidates:
        one = FILTERS[name](value, card.ratio)
        estimate = one((simulated.noisy - card.offset[0]) / card.scale[0]) * card.scale[0]
        errors[value] = np.mean((estimate + card.offset[0] - simulated.clean) ** 2)
    behind = 10 * np.log10(errors[card.values[0]] / min(errors.values()))
    assert behind <= MOST_LOSS_DB, errors
    assert errors[card.values[0]] < np.mean((simulated.noisy - simulated.clean) ** 2) / 2
    (curve,) = read_calibration(tmp_path / "f").curves
    assert curve.best == card.values[0]
    assert not curve.at_end
    assert curve.residual[0] < curve.residual[-1]


def test_an_image_without_depth(tmp_path, write_volume):
    simulated = simulate_light_sheet((1, 128, 128), seed=2)
    flat = write_volume(tmp_path / "flat.zarr", simulated.noisy)
    summary = n2v_scale.baseline(flat, tmp_path / "out.zarr", filter="tv", workers=1)
    assert summary.missing == 0
    assert CalibratedFilter(tmp_path / "out.zarr.filter").halo[0] == (0, 0)
    errors = [
        np.mean((v - simulated.clean) ** 2.0) for v in (simulated.noisy, stored(summary.output))
    ]
    assert errors[1] < errors[0] / 2
    deep = write_volume(tmp_path / "deep.zarr", np.zeros((4, 8, 8), np.uint16))
    with pytest.raises(ModelError, match=r"was calibrated on one plane and .* has 4"):
        open_denoiser(str(tmp_path / "out.zarr.filter")).check_fits(deep)


def test_channels_have_values_of_their_own(tmp_path, simulated, write_volume):
    rng = np.random.default_rng(0)
    noisier = rng.poisson((simulated.clean - 100).clip(0) / 12) * 12 + 100
    both = np.stack([simulated.noisy, noisier]).astype(np.uint16)
    volume = write_volume(tmp_path / "two.zarr", both, chunk=(1, 12, 32, 32), scale=(1, *VOXEL))
    card = calibrated_filter(volume, tmp_path / "f", "gaussian")
    assert card.values[0] < card.values[1]
    assert card.scale[0] < card.scale[1]
    second = open_volume(tmp_path / "two.zarr", channels=[1])
    with pytest.raises(ModelError, match=r"on channels \(0, 1\) and .* has \(1,\)"):
        CalibratedFilter(tmp_path / "f").check_fits(second)
    alone = calibrated_filter(second, tmp_path / "g", "gaussian")
    assert alone.channels == (1,)


def test_calibrating_again_gives_the_same(tmp_path, volume):
    cards = [calibrated_filter(volume, tmp_path / n, "median") for n in "fg"]
    assert cards[0] == cards[1]
    texts = [(tmp_path / n / "calibration.json").read_bytes() for n in "fg"]
    assert texts[0] == texts[1]


def test_a_filter_that_is_there_is_not_calibrated_again(tmp_path, volume, monkeypatch):
    folder = tmp_path / "f"
    card = calibrated_filter(volume, folder, "gaussian")
    monkeypatch.setattr(calibration, "calibrate", None)
    assert calibrated_filter(volume, folder, "gaussian") == card
    with pytest.raises(OutputError, match="calibrated with another filter, values: choose another"):
        calibrated_filter(volume, folder, "median")
    with pytest.raises(OutputError, match="another seed"):
        calibrated_filter(volume, folder, "gaussian", seed=1)
    monkeypatch.undo()
    assert calibrated_filter(volume, folder, "median", overwrite=True).filter == "median"


def test_a_folder_of_something_else_is_left_alone(tmp_path, volume):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "thesis.tex").write_text("…")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"it holds thesis.tex\): it is not overwritten"):
            calibrated_filter(volume, tmp_path / "f", "gaussian", overwrite=overwrite)


def test_a_value_at_the_end_of_the_range_is_told(tmp_path, volume, caplog):
    with caplog.at_level(logging.WARNING, "n2v_scale"):
        card = calibrated_filter(volume, tmp_path / "f", "gaussian", values=[0.4, 0.3])
    assert card.values == (0.4,)
    assert "at the end of the values that were tried, 0.4: try more (--values)" in caplog.text


def test_empty_space_does_not_decide(tmp_path, simulated, write_volume):
    """Of a volume that is nearly all background, the boxes with something in them are used."""
    rng = np.random.default_rng(0)
    values = rng.normal(105, 4, (12, 64, 1024)).round().astype(np.uint16)
    values[:, :, :64] = simulated.noisy
    volume = write_volume(tmp_path / "v.zarr", values, chunk=(12, 32, 32), scale=VOXEL)
    assert calibrated_filter(volume, tmp_path / "f", "gaussian").values[0] < 2


BAD = {
    "constant": (np.full((8, 16, 16), 7, np.uint16), "a constant volume holds nothing"),
    "without noise": (np.arange(2048.0).reshape(8, 16, 16).astype(np.uint16), "no noise is seen"),
    "too small": (np.arange(8, dtype=np.uint16).reshape(2, 2, 2), "at least 3 voxels along y"),
    "not finite": (np.full((8, 16, 16), np.nan, np.float32), "no finite, readable voxel"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("error")
def test_bad_input(tmp_path, write_volume, case):
    values, message = BAD[case]
    volume = write_volume(tmp_path / "bad.zarr", values)
    with pytest.raises(InputError, match=message):
        n2v_scale.baseline(volume, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
    assert not (tmp_path / "out.zarr.filter").exists()


# As a denoiser


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_tiles_do_not_matter(tmp_path, volume, name):
    calibrated_filter(volume, tmp_path / "f", name, values=[1.5])
    denoiser = open_denoiser(str(tmp_path / "f"))
    whole = Box.whole(SHAPE)
    values = volume.read(0, 0, whole).astype(np.float64)
    expected = denoiser.denoise(values, Region(0, 0, whole, SHAPE)).mean
    for block, tile in (((12, 32, 64), (12, 32, 32)), ((8, 24, 40), (5, 23, 17))):
        settings = PredictSettings(block=block, tile=tile, chunk=(4, 8, 8), device="cpu")
        plan = make_plan(
            volume,
            denoiser,
            str(tmp_path / "f"),
            "/nowhere.zarr",
            settings,
            normalisation=denoiser.normalisation_for(volume),
            device="cpu",
            threads=1,
        )
        for one in plan.iterate():
            box = plan.read_box(one)
            (found,) = denoise_tiles(denoiser, plan, one, plan.tiles(one), values[box.slices], box)
            np.testing.assert_allclose(found, expected[one.write.slices], rtol=0, atol=1e-6)


def test_it_is_no_network(tmp_path, volume):
    calibrated_filter(volume, tmp_path / "f", "gaussian")
    with pytest.raises(ModelError, match="of kind 'filter', and a trained network is needed"):
        read_card(tmp_path / "f")
    card = json.loads((tmp_path / "f" / "model.json").read_text())
    (tmp_path / "f" / "model.json").write_text(json.dumps(card | {"values": ["many"]}))
    with pytest.raises(ModelError, match="is not a valid model card"):
        open_denoiser(str(tmp_path / "f"))
    (tmp_path / "f" / "calibration.json").unlink()
    with pytest.raises(ModelError, match="is not a record of a calibration"):
        read_calibration(tmp_path / "f")


def test_the_key_is_that_of_what_the_result_depends_on(tmp_path, volume):
    keys = set()
    for n, values in enumerate(([1.0], [1.5], [1.0, 60.0])):
        calibrated_filter(volume, tmp_path / str(n), "gaussian", values=values)
        keys.add(CalibratedFilter(tmp_path / str(n)).key)
    assert len(keys) == 2


# Runs


def test_a_run_resumes_with_the_same_filter(tmp_path, volume, client, monkeypatch):
    sizes = {"block": (12, 32, 32), "chunk": (12, 32, 32)}
    out = tmp_path / "out.zarr"
    first = n2v_scale.baseline(volume, out, only=[0, 3], client=client, **sizes)
    assert (first.computed, first.missing) == (2, 2)
    card = read_filter_card(tmp_path / "out.zarr.filter")
    monkeypatch.setattr(calibration, "calibrate", None)
    second = n2v_scale.baseline(volume, out, client=client, **sizes)
    assert (second.computed, second.missing) == (2, 0)
    assert read_filter_card(tmp_path / "out.zarr.filter") == card
    assert n2v_scale.baseline(volume, out, client=client, **sizes).already_finished
    whole = FILTERS["gaussian"](card.values[0], card.ratio)
    values = (stored(tmp_path / "noisy.zarr").astype(np.float32) - card.offset[0]) / card.scale[0]
    expected = np.rint(whole(values) * card.scale[0] + card.offset[0])
    assert np.abs(stored(out) - expected).max() <= 1  # a half may be rounded either way
    assert (stored(out) == expected).mean() > 0.999


def test_another_filter_needs_another_output(tmp_path, volume, client):
    out = tmp_path / "out.zarr"
    n2v_scale.baseline(volume, out, client=client)
    with pytest.raises(OutputError, match="another filter"):
        n2v_scale.baseline(volume, out, filter="median", client=client)
    with pytest.raises(n2v_scale.N2VScaleError, match="overwrite"):
        n2v_scale.baseline(volume, out, filter="median", calibrated=tmp_path / "m", client=client)
    done = n2v_scale.baseline(volume, out, filter="median", overwrite=True, client=client)
    assert done.computed == done.blocks


def test_what_is_damaged_is_repaired(tmp_path, volume, client):
    out = tmp_path / "out.zarr"
    n2v_scale.baseline(volume, out, client=client, block=(12, 32, 32), chunk=(12, 32, 32))
    before = stored(out)
    (out / "0" / "c" / "0" / "1" / "0").write_bytes(b"torn")
    assert n2v_scale.repair(out, client=client).computed == 1
    np.testing.assert_array_equal(stored(out), before)
    assert n2v_scale.verify(out, client=client).whole


def test_not_a_number_is_filled_with_the_mean(tmp_path, simulated, write_volume, client):
    values = simulated.noisy.astype(np.float32)
    values[3, 10, 10] = np.nan
    volume = write_volume(tmp_path / "nan.zarr", values, scale=VOXEL)
    with pytest.raises(IncompleteError, match="NaN"):
        n2v_scale.baseline(volume, tmp_path / "a.zarr", client=client)
    done = n2v_scale.baseline(
        volume, tmp_path / "a.zarr", client=client, on_nan="fill", overwrite=True
    )
    assert np.isfinite(stored(done.output)).all()


def test_the_output_is_not_in_the_input(tmp_path, volume):
    with pytest.raises(OutputError, match="inside one another"):
        n2v_scale.baseline(volume, tmp_path / "noisy.zarr" / "out.zarr")
    inside = tmp_path / "noisy.zarr" / "f"
    with pytest.raises(OutputError, match="inside one another"):
        n2v_scale.baseline(volume, tmp_path / "out.zarr", calibrated=inside)
    with pytest.raises(ConfigError, match=r"is a URL, .*--calibrated FOLDER"):
        n2v_scale.baseline(volume, "s3://bucket/out.zarr")


def test_settings_of_a_network_are_refused(monkeypatch):
    for given, what in (
        ({"device": "cuda"}, "device cuda"),
        ({"precision": "float16"}, "precision"),
        ({"gain": 1.0, "offset": 0.0, "read_noise": 1.0}, "gain, offset, read-noise"),
    ):
        with pytest.raises(ConfigError, match=f"has no {what}: leave it out"):
            filter_settings(PredictSettings(**given))
    monkeypatch.setattr(baselines, "available_cores", lambda: 6)
    monkeypatch.setattr(baselines, "memory_limit", lambda: 20 * 10**9)
    assert filter_settings(PredictSettings()).workers == 6
    assert filter_settings(PredictSettings(memory="4GB")).workers == 4
    assert filter_settings(PredictSettings(memory="400GB")).workers == 1
    assert filter_settings(PredictSettings(memory="4GB", workers=9)).workers == 9


# The command


def test_the_command(run, tmp_path, volume):
    out = tmp_path / "out.zarr"
    values = ("--values", "0.3,1.5,9", "--filter", "median")
    first = ("baseline", volume.address, out, *values, "--workers", 1)
    code, said, err = run(*first, "--json", "--block", "12,32,64", "--seed", 2)
    assert code == 0, err
    assert json.loads(said)["missing"] == 0
    assert "median: radius, in voxels of the finest axis: 1.5" in err
    code, said, _ = run(*first, "--seed", 2)
    assert (code, "was finished already" in said) == (0, True)
    code, _, err = run(*first)
    assert (code, "calibrated with another seed" in err) == (1, True)
    assert run("plan", volume.address, f"{out}.filter")[0] == 0


@pytest.mark.parametrize("values", ["", "0", "1,x", "-1", "nan", "inf"])
def test_values_that_are_none(run, values):
    code, _, err = run("baseline", "v", "o", "--values", values)
    assert (code, "is not a list of numbers above 0, such as 0.5,1,2" in err) == (2, True)


def test_the_command_knows_every_filter():
    from n2v_scale.cli_baseline import FILTERS as OFFERED

    assert list(OFFERED) == list(FILTERS)


def test_the_plot(tmp_path, volume, monkeypatch):
    pytest.importorskip("matplotlib")
    calibrated_filter(volume, tmp_path / "f", "gaussian")
    found = read_calibration(tmp_path / "f")
    draw_calibration(tmp_path / "curve.png", found)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"curve.xyz cannot be drawn"):
        draw_calibration(tmp_path / "curve.xyz", found)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"n2v-scale\[report\]"):
        draw_calibration(tmp_path / "curve.png", found)
