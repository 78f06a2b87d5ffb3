"""What programs read: one JSON object on stdout, and the exit code."""

from __future__ import annotations

import json
import signal
from itertools import count

import click
import pytest

from n2v_scale import cli, loop
from n2v_scale.errors import IncompleteError, N2VScaleError
from n2v_scale.simulate import simulate_light_sheet

pytestmark = pytest.mark.usefixtures("workers")

SHORT = ("--steps", 3, "--filters", 2, "--patch", "8,32,32", "--batch", 1)
SILENT = {"simulate", "cluster", "completion", "model", "view"}
"""Commands whose answers are names of outputs, a script and links, and groups of commands."""


@pytest.fixture
def summary(run):
    """What a command prints with ``--json``, which must be valid JSON and all of stdout."""

    def call(*arguments):
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    return call


@pytest.fixture(scope="module")
def noisy(tmp_path_factory, write_volume):
    folder = tmp_path_factory.mktemp("summaries")
    image = simulate_light_sheet(shape=(16, 64, 64)).noisy
    return write_volume(folder / "noisy.zarr", image, chunk=(16, 32, 32)).address


def test_every_command_with_a_summary_gives_it_as_json():
    for name, command in cli.cli.commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--json" in options) == (name not in SILENT), name


def test_the_exit_codes_are_those_of_the_help(run):
    code, out, _ = run("--help")
    assert code == 0
    listed = out.split("Exit codes:")[1].splitlines()
    codes = {int(line.split()[0]): line.split(maxsplit=1)[1] for line in listed if line.strip()}
    assert codes == cli.EXIT_CODES
    errors = (N2VScaleError, click.UsageError, IncompleteError)
    assert set(codes) == {0, cli.INTERRUPTED, *(error.exit_code for error in errors)}


def test_a_chain_of_commands(summary, noisy, tmp_path):
    volume, model, out = tmp_path / "v.zarr", tmp_path / "m.n2v", tmp_path / "out.zarr"
    imported = summary("import", noisy, volume)
    assert imported["output"] == str(volume)
    assert imported["voxels"] == 16 * 64 * 64
    assert summary("import", noisy, volume)["already_finished"]
    assert summary("diagnose", volume)["recommendation"]["method"]
    trained = summary("train", volume, "-o", model, "--method", "linear")
    card = json.loads((model / "model.json").read_text())
    assert trained == {
        "model": str(model),
        "method": "linear",
        "network": "filter",
        "parameters": card["parameters"],
        "steps": 0,
        "seconds": card["history"][-1]["seconds"],
        "first_loss": card["history"][0].get("held_out"),
        "loss": card["history"][0].get("held_out"),
        "stopped_early": False,
        "learned_noise": None,
        "already_finished": False,
    }
    again = summary("train", volume, "-o", model, "--method", "linear")
    assert again == trained | {"already_finished": True}
    fresh = summary("train", volume, "-o", model, "--method", "linear", "--overwrite")
    assert not fresh["already_finished"]
    assert summary("predict", volume, model, out)["missing"] == 0
    assert summary("verify", out)["whole"]
    assert summary("evaluate", out, "--reference", out)["psnr"] is None  # no error: infinite
    assert summary("baseline", volume, tmp_path / "g.zarr", "--values", "0.5,1")["computed"] == 1


def test_a_training_that_is_told_to_stop_goes_on(run, summary, noisy, tmp_path, monkeypatch):
    steps, step = count(1), loop.take_step

    def told_to_stop(*arguments):
        if next(steps) == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(loop, "take_step", told_to_stop)
    command = ("train", noisy, "-o", tmp_path / "m.n2v", *SHORT)
    code, out, err = run(*command, "--json")
    assert (code, out) == (cli.INTERRUPTED, "")
    assert "interrupted" in err
    assert not (tmp_path / "m.n2v").exists()
    trained = summary(*command)
    assert (trained["method"], trained["steps"], next(steps)) == ("n2v", 3, 4)  # one was left to do
    assert not trained["already_finished"]
    assert trained["seconds"] > 0
