"""The commands of a page are commands of this package, and mean what was run."""

from __future__ import annotations

import shlex
import subprocess

import numpy as np
import pytest

import n2v_scale
from n2v_scale.cli import cli
from n2v_scale.io.open import open_volume
from n2v_scale.reporting.commands import commands, wrapped

SHORT = {"steps": 2, "filters": 2, "patch": (8, 32, 32), "batch": 1, "device": "cpu", "threads": 1}


def parsed(line):
    """The verb, and what the command line understands of the rest."""
    program, verb, *rest = shlex.split(line)
    assert program == "n2v-scale"
    params = cli.commands[verb].make_context(verb, rest).params
    return verb, {k: v for k, v in params.items() if v not in (None, (), {}) and v is not False}


@pytest.fixture(scope="module")
def coloured(tmp_path_factory, write_volume):
    """Three time points and three channels."""
    values = np.random.default_rng(0).normal(100, 9, (4, 3, 16, 40, 40)).astype("u2")
    folder = tmp_path_factory.mktemp("coloured")
    return write_volume(folder / "a volume.zarr", values, chunk=(1, 1, 16, 20, 20))


def test_the_whole_way(case, linear):
    train, predict = map(parsed, commands(case.found))
    assert train == (
        "train",
        {
            "volumes": (case.noisy.address,),
            "output": str(linear),
            "method": "linear",
            "device": "cpu",
            "threads": 1,
        },
    )
    verb, told = predict
    assert (verb, told["volume"], told["model"]) == ("predict", case.noisy.address, str(linear))
    assert told["output"] == str(case.output)
    assert (told["gain"], told["offset"], told["read_noise"]) == (2.2, 100, 3.52)
    assert (told["block"], told["chunk"], told["tile"]) == ((16, 32, 32), (16,) * 3, (16,) * 3)
    assert "write" not in told


def test_a_long_command_is_wrapped_as_a_shell_takes_it(case):
    line = f"{commands(case.found)[1]} --mask 'a b' --codec zstd"
    text = wrapped(line)
    assert text.count("\\\n") >= 2
    assert max(map(len, text.splitlines())) < 120
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {text}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words == shlex.split(line)


METHODS = {
    "structn2v": {"blind_mask": "x:5", "seed": 3},
    "n2s": {"partition": (1, 2, 2), "learning_rate": 0.002, "on_nan": "fill"},
    "ssdn": {"gain": 1.5, "offset": 20.0, "read_noise": 4.0, "pool_memory": 10**8},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_training_is_told_as_it_was_asked_for(name, coloured, make_output, report_on, tmp_path):
    asked = {**SHORT, "method": name, **METHODS[name]}
    part = open_volume(coloured.address, channels=[2], timepoints=slice(1, 3))
    model = tmp_path / "m.n2v"
    n2v_scale.train(part, model, **asked)
    other = open_volume(coloured.address, channels=[2], timepoints=[0, 3])
    output = make_output(other, model, only=[0], posterior=False)
    lines = commands(report_on(output).found)
    train, predict = (parsed(line)[1] for line in lines)
    assert train.pop("volumes") == (coloured.address,)
    assert train.pop("output") == str(model)
    assert (train.pop("channels"), train.pop("timepoints")) == ([2], [1, 2])
    assert train == asked
    assert (predict["channels"], predict["timepoints"]) == ([2], [0, 3])
    assert ("--no-posterior" in lines[1]) == (name in ("n2s", "ssdn"))


def test_a_prediction_is_told_as_it_was_asked_for(
    coloured, make_output, report_on, tmp_path, write_volume
):
    mask = write_volume(tmp_path / "mask.zarr", np.ones((4, 10, 10), "u1"), scale=(4, 4, 4))
    part = open_volume(coloured.address, channels=[0, 1], timepoints=[1])
    asked = {
        "nodata": 0.0,
        "on_nan": "fill",
        "mask": mask.address,
        "codec": "zstd",
        "codec_level": 1,
        "ome_version": "0.4",
        "shard": None,
    }
    output = make_output(part, **asked, dtype="float32", only=[0])
    _, told = parsed(commands(report_on(output).found)[-1])
    for name, value in asked.items():
        assert told.get(name) == value
    assert told["dtype"] == "float32"
    assert (told["channels"], told["timepoints"]) == ([0, 1], [1])


def test_standard_deviations_and_mirrors(noisy, linear, make_output, report_on):
    output = make_output(noisy, linear, write="mean,std", tta=True, only=[0])
    _, told = parsed(commands(report_on(output).found)[-1])
    assert told["write"] == "mean,std"
    assert told["tta"] is True
    assert "dtype" not in told


def test_a_baseline(coloured, tmp_path, client, report_on):
    output, folder = tmp_path / "o.zarr", tmp_path / "kept.filter"
    part = open_volume(coloured.address, channels=[1], timepoints=[0])
    n2v_scale.baseline(
        part, output, filter="median", values=[1.0, 2.0], calibrated=folder, nodata=0, client=client
    )
    found = report_on(output)
    (line,) = commands(found.found)
    verb, told = parsed(line)
    assert verb == "baseline"
    assert told["values"] == [1, 2]
    assert (told["filter"], told["calibrated"]) == ("median", str(folder))
    assert (told["nodata"], told["channels"], told["timepoints"]) == (0, [1], [0])
    assert "Calibration" in found.page.words
    assert "median" in found.page.words


def test_levels_and_axes(tmp_path, client, make_output, report_on, case):
    import zarr

    values = np.random.default_rng(0).normal(100, 9, (16, 24, 2, 24)).astype("u2")
    array = zarr.create_array(tmp_path / "v.zarr", data=values)
    del array
    plain = open_volume(tmp_path / "v.zarr", axes="zycx", channels=[1])
    _, told = parsed(commands(report_on(make_output(plain, only=[0])).found)[-1])
    assert (told["axes"], told["channels"]) == ("zycx", [1])
    lower = open_volume(case.output, level=1)
    _, told = parsed(commands(report_on(make_output(lower, only=[0])).found)[-1])
    assert told["level"] == "1"
    assert told["volume"] == str(case.output)


def test_a_model_of_an_older_version_says_what_it_came_to(case):
    from dataclasses import replace

    training = {k: v for k, v in case.found.card.training.items() if k != "request"}
    card = case.found.card.model_copy(update={"training": training})
    verb, told = parsed(commands(replace(case.found, card=card))[0])
    assert (verb, told["method"]) == ("train", "linear")
