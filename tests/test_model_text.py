"""A model's card for people, of every kind."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from n2v_scale.cli import cli
from n2v_scale.errors import ModelError
from n2v_scale.filter_card import Calibration, FilterCard, write_filter
from n2v_scale.method_facts import FACTS
from n2v_scale.methods import METHODS
from n2v_scale.methods.linear import Linear
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.methods.paired import Paired
from n2v_scale.methods.ssdn import BlindSpot
from n2v_scale.network_config import (
    BlindUNetConfig,
    BranchUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    UNetConfig,
)
from n2v_scale.noise import NoiseModel

TWO = UNetConfig(in_channels=1, out_channels=2, depth=1, filters=2)
FILTERED = FilterUNetConfig((3, 3, 3), UNetConfig(in_channels=2, depth=1, filters=2))
SEEN = {"gain": 2.2, "offset": 100.0, "read_noise": 3.8, "misfit": 0.5}
KINDS = {
    "linear": (Linear(), FilterConfig((3, 3, 3))),
    "n2n": (Paired(), FILTERED),
    "n2s": (Noise2Self((2, 2, 2)), FILTERED),
    "n2v": (Noise2Void(), FILTERED),
    "n2v2": (Noise2Void(name="n2v2"), UNetConfig(depth=1, filters=2, blur=True, top_skip=False)),
    "ssdn": (BlindSpot(NoiseModel(0.1, -1.0, 0.3)), BranchUNetConfig((3, 3, 3), TWO)),
    "structn2v": (Noise2Void(name="structn2v"), FILTERED),
    "supervised": (Paired(name="supervised"), UNetConfig(depth=1, filters=2, batch_norm=True)),
}


def show(*arguments):
    command = ["model", "show", *map(str, arguments)]
    return CliRunner().invoke(cli, command, catch_exceptions=True)


def rows(text):
    """Of the terminal's text: rows by name, one after the other where a name comes again."""
    found = {}
    for line in text.splitlines():
        name = line[:19].strip()
        found[name] = f"{found.get(name, '')} {line[19:]}".strip()
    return found


def test_every_method_has_its_facts():
    assert set(FACTS) == set(METHODS) == set(KINDS)
    assert len({facts.title for facts in FACTS.values()}) == len(FACTS)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model(tmp_path, write_model, name):
    method, config = KINDS[name]
    folder = write_model(tmp_path / "m.n2v", config, method=method, survey=[{"noise": SEEN}])
    done = show(folder)
    assert done.exit_code == 0
    found = rows(done.output)
    card = json.loads((folder / "model.json").read_text())
    assert found["method"].startswith(f"{name} (")
    assert found["assumes"] == FACTS[name].assumes
    assert FACTS[name].source.doi in found["source"]
    assert found["network"].startswith(card["network"])
    assert found["parameters"] == f"{card['parameters']:,}"
    assert found["channel 0"] == "normalised as (value - 100) / 10"
    assert "gain 2.2" in found["noise"]
    assert "not trusted" in found["noise"]
    assert card["weights_sha256"] in found["checksum"]
    assert f"predict VOLUME {folder}" in found["apply it"]
    assert ("blind" in found) == method.blind
    assert ("8 passes" in found.get("applied in", "")) == (name == "n2s")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_volume):
    import n2v_scale

    place = tmp_path_factory.mktemp("card")
    values = np.random.default_rng(0).poisson(60, (2, 16, 48, 48)).astype(np.uint16)
    volume = write_volume(
        place / "noisy.zarr", values, "czyx", chunk=(1, 8, 16, 16), scale=(1, 2.0, 0.4, 0.4)
    )
    asked = {"steps": 3, "patch": (8, 32, 32), "filters": 2, "batch": 1, "validate_every": 1}
    n2v_scale.train(volume, place / "m.n2v", **asked)
    return place / "m.n2v"


def test_a_trained_model(trained):
    found = rows(show(trained).output)
    assert found["trained on"].endswith("noisy.zarr")
    assert found["shape (z, y, x)"] == "16 × 48 × 48, 2 channels"
    assert found["voxel (z, y, x)"] == "2 × 0.4 × 0.4 micrometer"
    assert found["voxel type"] == "uint16"
    assert {"channel 0", "channel 1"} <= set(found)
    assert found["steps"] == "3"
    assert found["time"].endswith("on cpu")
    assert found["held-out loss"] == "none"  # of so small a volume nothing is held out


def test_the_best_of_the_losses_is_told(tmp_path, write_model):
    folder = write_model(tmp_path / "m.n2v", FILTERED)
    card = json.loads((folder / "model.json").read_text())
    losses = [0.5, 0.25, 0.375]
    history = [{"step": k, "seconds": 30.0 * k, "held_out": v} for k, v in enumerate(losses)]
    card |= {"history": history, "training": {"device": "cpu"}}
    (folder / "model.json").write_text(json.dumps(card))
    found = rows(show(folder).output)
    assert found["held-out loss"].startswith("0.25 at best")
    assert found["time"] == "1:00 on cpu"


def test_settings_are_those_that_differ_from_the_defaults(trained):
    asked = rows(show(trained).output)["settings"].split(", ")
    expected = ["filters 2", "patch 8,32,32", "batch 1", "steps 3", "validate-every 1"]
    assert sorted(asked) == sorted(expected)


def test_json_has_the_card_and_what_follows_from_it(trained):
    found = json.loads(show(trained, "--json").stdout)
    assert found["settings"]["steps"] == "3"
    card = json.loads((trained / "model.json").read_text())
    assert {**found, **card} == found
    assert found["assumes"] == FACTS["n2v"].assumes


def test_a_calibrated_filter(tmp_path):
    card = FilterCard(
        package_version="1.2.3",
        filter="gaussian",
        values=(0.8,),
        ratio=(1.0, 1.0, 1.0),
        channels=(0,),
        offset=(100.0,),
        scale=(7.0,),
        request={"input": "uint16-8x8x8-abc"},
    )
    write_filter(tmp_path / "f", card, Calibration(filter="gaussian", parameter="sigma", curves=()))
    found = rows(show(tmp_path / "f").output)
    assert found["filter"].startswith("gaussian (classical")
    assert found["parameter"].startswith("0.8 for channel 0")
    assert json.loads(show(tmp_path / "f", "--json").stdout)["values"] == [0.8]
    exported = CliRunner().invoke(
        cli, ["export", str(tmp_path / "f"), "--torchscript", str(tmp_path / "f.pt")]
    )
    assert isinstance(exported.exception, ModelError)
    assert "nothing to export" in str(exported.exception)


def test_no_model(tmp_path):
    done = show(tmp_path / "none")
    assert isinstance(done.exception, ModelError)
    assert "no model at" in str(done.exception)


def test_a_blind_network_on_lattices_is_described(tmp_path, write_model):
    unet = UNetConfig(in_channels=4, out_channels=2, depth=1, filters=2)
    config = BlindUNetConfig((3, 3, 3), features=4, unet=unet)
    found = rows(show(write_model(tmp_path / "m.n2v", config)).output)
    assert "blind-unet, window 3 × 3 × 3" in found["network"]
    assert found["settings"] == "the defaults"
