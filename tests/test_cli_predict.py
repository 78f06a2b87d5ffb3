"""The commands plan, predict, verify and pyramid: options, exit codes, text and JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import click
import numpy as np
import pytest
import zarr

from n2v_scale import cli
from n2v_scale.costs import Forecast
from n2v_scale.ledger import Ledger
from n2v_scale.memory import WorkerMemory
from n2v_scale.outlook import outlook_text

from .commands import Run

pytestmark = pytest.mark.usefixtures("workers")

SHAPE = (8, 32, 64)
SIZES = ("--block", "8,16,16", "--tile", "8,16,16", "--chunk", "8")
COMMANDS = ("plan", "predict", "verify", "pyramid")


def noise(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape).astype(np.uint16)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    zarr.create_array(str(tmp_path / "v.zarr"), data=noise(), chunks=(8, 16, 16))
    return tmp_path / "v.zarr"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "o.zarr"


def voxels(path: Path) -> np.ndarray:
    values: np.ndarray = zarr.open_array(path / "0", mode="r")[...]
    return values


def record(path: Path) -> dict[str, Any]:
    return Ledger(str(path), "0.5").record() or {}


# plan


def forecast_of(text: str) -> Forecast:
    content = json.loads(text)
    del content["memory"]["total"]
    return Forecast(**{**content, "memory": WorkerMemory(**content["memory"])})


def test_plan_says_the_same_in_words_and_in_json(run: Run, volume: Path, tiny_model: Path) -> None:
    arguments = ("plan", volume, tiny_model, *SIZES, "--speed", 0.5, "--workers", 2)
    words, numbers = run(*arguments), run(*arguments, "--json")
    assert (words.code, numbers.code) == (0, 0)
    found = forecast_of(numbers.out)
    assert words.out == outlook_text(found) + "\n"
    assert (found.blocks, found.tiles, found.block) == (8, 8, [8, 16, 16])
    assert (found.speed, found.speed_measured, found.workers) == (500_000, False, 2)
    assert found.seconds == pytest.approx(np.prod(SHAPE) / 2 / 500_000)
    assert "8 of 8x16x16 voxels" in words.out


def test_plan_measures_the_speed(run: Run, volume: Path, tiny_model: Path) -> None:
    said = run("plan", volume, tiny_model)
    assert said.code == 0
    assert "measured here on one tile" in said.out


def test_plan_writes_nothing_and_may_be_run_anywhere(
    run: Run, volume: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(volume.parent.rglob("*"))
    for place, name in ((volume, "."), (volume.parent, volume.name)):
        monkeypatch.chdir(place)
        assert run("plan", name, tiny_model, "--speed", 1).code == 0
    assert sorted(volume.parent.rglob("*")) == before


def test_plan_refuses_what_does_not_fit(run: Run, volume: Path, tiny_model: Path) -> None:
    said = run("plan", volume, tiny_model, "--memory", "100MB")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: block ")
    assert "a worker has 0.100 GB" in said.err


def test_plan_takes_the_memory_that_it_is_told(run: Run, volume: Path, tiny_model: Path) -> None:
    for text, size in (("4GB", 4 * 10**9), ("4GiB", 2**32), ("4000000000", 4 * 10**9)):
        said = run("plan", volume, tiny_model, "--speed", 1, "--json", "--memory", text)
        assert forecast_of(said.out).memory_allowed == size


@pytest.mark.parametrize("value", ["much", "16 apples", "-4GB", "0"])
def test_a_memory_that_is_none(run: Run, value: str) -> None:
    said = run("plan", "v", "m", f"--memory={value}")
    assert said.code == 2
    assert f"'--memory': {value!r} is no amount of memory, such as 16GB" in said.err


def test_plan_knows_what_a_mask_leaves_out(
    run: Run, tmp_path: Path, volume: Path, tiny_model: Path
) -> None:
    mask = np.zeros((1, 2, 4), bool)
    mask[..., :2] = True  # one voxel a block
    zarr.create_array(str(tmp_path / "m.zarr"), data=mask, chunks=(1, 2, 4))
    arguments = ("plan", volume, tiny_model, *SIZES, "--speed", 1, "--mask", tmp_path / "m.zarr")
    assert forecast_of(run(*arguments, "--json").out).empty_blocks == 4
    assert "; 4 are empty" in run(*arguments).out


# predict


def test_predict_says_what_it_did(run: Run, volume: Path, tiny_model: Path, out: Path) -> None:
    said = run("predict", volume, tiny_model, out, *SIZES)
    assert said.code == 0
    first, second = said.out.splitlines()
    assert first.startswith(f"{out}: 8 blocks of 8 in ")
    assert first.endswith("voxel/s")
    assert second.startswith("  1 worker computed for ")
    assert "predicting: " in said.err
    assert "pyramid level 1: " in said.err
    again = run("predict", volume, tiny_model, out)
    assert (again.code, again.out) == (0, f"{out}: was finished already, nothing to do\n")


def test_predict_in_json(run: Run, volume: Path, tiny_model: Path, out: Path) -> None:
    said = run("predict", volume, tiny_model, out, *SIZES, "--json")
    content = json.loads(said.out)
    assert (content["blocks"], content["computed"], content["missing"]) == (8, 8, 0)
    assert content["voxels"] == np.prod(SHAPE)
    assert content["already_finished"] is False
    assert 0 < content["busy"] <= 2
    assert "predicting" not in said.out


def test_only_some_blocks(run: Run, volume: Path, tiny_model: Path, out: Path) -> None:
    said = run("predict", volume, tiny_model, out, *SIZES, "--only", "2:5")
    assert said.code == 0
    assert "3 blocks of 8" in said.out
    assert said.out.endswith("  5 blocks still to do\n")
    said = run("predict", volume, tiny_model, out, "--only", "0,7,3", "--json")
    assert (json.loads(said.out)["computed"], json.loads(said.out)["missing"]) == (2, 3)
    said = run("predict", volume, tiny_model, out, "--only", "7")
    assert said.out == f"{out}: no block was computed\n  3 blocks still to do\n"
    said = run("predict", volume, tiny_model, out)
    assert "3 blocks of 8" in said.out
    assert "still to do" not in said.out
    assert (voxels(out) > 0).all()


def test_workers_are_started_only_for_what_there_is_to_do(
    run: Run, volume: Path, tiny_model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("predict", volume, tiny_model, out, *SIZES, "--only", "7").code == 0
    none = Mock(side_effect=AssertionError("workers were started"))
    with monkeypatch.context() as patched:
        patched.setattr("n2v_scale.execution.open_client", none)
        assert run("predict", volume, tiny_model, out, "--only", "7").code == 0
        assert run("pyramid", out).code == 3
    assert run("predict", volume, tiny_model, out, "--no-pyramid").code == 0
    monkeypatch.setattr("n2v_scale.execution.open_client", none)
    said = run("predict", volume, tiny_model, out, "--no-pyramid")
    assert (said.code, none.called) == (0, False)


@pytest.mark.parametrize("verb", [("verify",), ("verify", "--repair"), ("pyramid",)])
def test_jobs_are_not_asked_for_an_output_that_is_none(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    none = Mock(side_effect=AssertionError("jobs were asked for"))
    monkeypatch.setattr("n2v_scale.place.job_client", none)
    monkeypatch.setattr("n2v_scale.execution.open_client", none)
    said = run(*verb, out, "--cluster", "slurm")
    assert (said.code, none.called) == (1, False)
    assert "is no output of n2v-scale" in said.err


def test_a_secret_is_in_no_script(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Mock(side_effect=AssertionError("submitted"))
    monkeypatch.setattr("n2v_scale.jobqueue.driver.submit_driver", none)
    options = ("--cluster", "slurm", "--submit-only", "--storage-option", "secret=HUSH")
    said = run("predict", "s3://b/v.zarr", "m.n2v", out, *options)
    assert (said.code, none.called) == (2, False)
    assert "--storage-option" in said.err
    assert "HUSH" not in said.err


def test_blocks_that_do_not_exist(run: Run, volume: Path, tiny_model: Path, out: Path) -> None:
    said = run("predict", volume, tiny_model, out, *SIZES, "--only", "8")
    assert said.code == 1
    assert "go from 0 to 7" in said.err
    assert run("predict", volume, tiny_model, out, *SIZES, "--only", "one").code == 2


def test_the_pyramid_may_be_made_later(run: Run, volume: Path, tiny_model: Path, out: Path) -> None:
    assert run("predict", volume, tiny_model, out, *SIZES, "--no-pyramid").code == 0
    said = run("verify", out)
    assert said.code == 3
    assert "level 1: " in said.out
    assert "level 0" not in said.out
    assert "the command pyramid makes the rest" in said.err
    said = run("pyramid", out)
    assert said.code == 0
    assert said.out.startswith(f"{out}: all blocks were there; lower resolutions and metadata in ")
    assert run("verify", out).code == 0
    assert run("pyramid", out).out == f"{out}: was finished already, nothing to do\n"
    assert json.loads(run("pyramid", out, "--json").out)["already_finished"] is True


def test_a_pyramid_needs_all_blocks(run: Run, volume: Path, tiny_model: Path, out: Path) -> None:
    run("predict", volume, tiny_model, out, *SIZES, "--only", "1:")
    said = run("pyramid", out)
    assert said.code == 3
    assert said.err.splitlines()[-1].startswith(f"incomplete: {out}: 1 of 8 blocks")


def test_events_are_appended(
    run: Run, tmp_path: Path, volume: Path, tiny_model: Path, out: Path
) -> None:
    log = tmp_path / "events.jsonl"
    for blocks in (":3", "3:"):
        options = ("--events", log, "--only", blocks, "--no-pyramid")
        assert run("predict", volume, tiny_model, out, *SIZES, *options).code == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    done = [line["number"] for line in lines if line["event"] == "BlockDone"]
    assert sorted(done[:3]) == [0, 1, 2]
    assert sorted(done) == list(range(8))
    assert [line["outcome"] for line in lines if line["event"] == "RunEnded"] == ["finished"] * 2


def test_events_that_have_no_place(
    run: Run, tmp_path: Path, volume: Path, tiny_model: Path, out: Path
) -> None:
    said = run("predict", volume, tiny_model, out, "--events", tmp_path / "none" / "e.jsonl")
    assert said.code == 1
    assert said.err.startswith("error: --events: ")
    assert not out.exists()


def test_a_mask_keeps_the_rest(
    run: Run, tmp_path: Path, volume: Path, tiny_model: Path, out: Path
) -> None:
    mask = np.zeros((1, 2, 4), bool)
    mask[..., :2] = True
    zarr.create_array(str(tmp_path / "m.zarr"), data=mask, chunks=(1, 2, 4))
    said = run("predict", volume, tiny_model, out, *SIZES, "--mask", tmp_path / "m.zarr")
    assert said.code == 0
    assert "50% was empty" in said.out
    np.testing.assert_array_equal(voxels(out)[..., 32:], noise()[..., 32:])
    assert (voxels(out)[..., :32] != noise()[..., :32]).mean() > 0.5
    said = run("predict", volume, tiny_model, out)
    assert said.code == 1
    assert "--mask was " in said.err
    said = run("predict", volume, tiny_model, out, "--mask", tmp_path / "none.zarr")
    assert said.code == 1
    assert "none.zarr does not exist" in said.err


def test_no_data_is_kept(run: Run, tmp_path: Path, tiny_model: Path, out: Path) -> None:
    values = noise()
    values[..., 48:] = 7
    zarr.create_array(str(tmp_path / "v.zarr"), data=values, chunks=(8, 16, 16))
    arguments = ("predict", tmp_path / "v.zarr", tiny_model, out, *SIZES, "--nodata")
    assert run(*arguments, 7, "--json").code == 0
    assert (voxels(out)[..., 48:] == 7).all()
    assert json.loads(run(*arguments, 7, "--json").out)["already_finished"]
    said = run(*arguments, 0)
    assert said.code == 1
    assert "--nodata was 7.0, now 0.0" in said.err


def test_precision_is_recorded_and_held_to(
    run: Run, volume: Path, tiny_model: Path, out: Path
) -> None:
    arguments = ("predict", volume, tiny_model, out, "--device", "cpu", "--precision")
    assert run(*arguments, "float32", *SIZES, "--only", "0").code == 0
    assert record(out)["plan"]["precision"] == "float32"
    said = run(*arguments, "bfloat16")
    assert said.code == 1
    assert "--precision was float32, now bfloat16" in said.err
    assert run(*arguments, "double").code == 2


@pytest.mark.parametrize(("wanted", "started"), [(1, 1), (3, 3), (100, 5)])
def test_workers_are_as_many_as_asked_for_and_as_there_are_blocks_to_do(
    run: Run,
    volume: Path,
    tiny_model: Path,
    out: Path,
    workers: list[int],
    wanted: int,
    started: int,
) -> None:
    options = ("--workers", wanted, "--memory", "2GB", "--only", "0:5", "--no-pyramid")
    assert run("predict", volume, tiny_model, out, *SIZES, *options).code == 0
    assert workers == [started]


def test_options_from_a_file(
    run: Run, tmp_path: Path, volume: Path, tiny_model: Path, out: Path, workers: list[int]
) -> None:
    (tmp_path / "c.toml").write_text(
        '[predict]\nmemory = "2GB"\nworkers = 3\nblock = [8, 16, 16]\nchunk = [8, 8, 8]\n'
    )
    config = ("--config", tmp_path / "c.toml")
    said = run("plan", volume, tiny_model, *config, "--speed", 1, "--json")
    found = forecast_of(said.out)
    assert (found.memory_allowed, found.workers, found.blocks) == (2 * 10**9, 3, 8)
    options = (*config, "--workers", 2, "--only", "0:2", "--json")
    assert json.loads(run("predict", volume, tiny_model, out, *options).out)["blocks"] == 8
    assert workers == [2]


# Secrets


def test_storage_options_are_written_nowhere(
    run: Run, tmp_path: Path, volume: Path, tiny_model: Path, out: Path
) -> None:
    log = tmp_path / "e.jsonl"
    secret = ("--storage-option", "secret=s3cr3t", "--storage-option", "key=AKID")
    said = run("predict", volume, tiny_model, out, *SIZES, *secret, "--events", log, "--json")
    assert said.code == 0
    written = [path for path in (*out.rglob("*"), log) if path.is_file()]
    assert len(written) > 10
    for text in (said.out, said.err, *(path.read_bytes().decode("latin1") for path in written)):
        assert "s3cr3t" not in text
        assert "AKID" not in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_storage_option_that_is_none_is_not_repeated(run: Run, command: str) -> None:
    arguments = {"plan": ("v", "m"), "predict": ("v", "m", "o")}.get(command, ("o",))
    said = run(command, *arguments, "--storage-option", "s3cr3t")
    assert said.code == 2
    assert "KEY=VALUE" in said.err
    assert "s3cr3t" not in said.err


# verify


def test_verify_in_words_and_in_json(run: Run, volume: Path, tiny_model: Path, out: Path) -> None:
    run("predict", volume, tiny_model, out, *SIZES)
    whole = run("verify", out)
    assert (whole.code, whole.out) == (
        0,
        f"{out}: whole, 8 blocks and the lower resolutions are as written\n",
    )
    assert json.loads(run("verify", out, "--json").out) == {
        "whole": True,
        "output": str(out),
        "blocks": 8,
        "missing": {},
        "damaged": {},
        "problems": [],
    }


def test_verify_finds_damage_and_repairs_it(
    run: Run, volume: Path, tiny_model: Path, out: Path
) -> None:
    run("predict", volume, tiny_model, out, *SIZES)
    before = voxels(out)
    (out / "0" / "c" / "0" / "1" / "2").write_bytes(b"torn")
    said = run("verify", out)
    assert said.code == 3
    assert said.out == f"{out}: not whole\n  level 0: 1 block damaged (number 6)\n"
    assert said.err.splitlines()[-1].startswith(f"incomplete: {out} is not whole; run ")
    said = run("verify", out, "--json")
    assert said.code == 3
    assert json.loads(said.out)["damaged"] == {"0": [6]}
    said = run("verify", out, "--repair", "--json")
    assert said.code == 0
    assert json.loads(said.out)["computed"] == 1
    assert run("verify", out).code == 0
    np.testing.assert_array_equal(voxels(out), before)
    assert run("verify", out, "--repair").out.endswith("was finished already, nothing to do\n")


def test_repair_needs_the_model(
    run: Run, tmp_path: Path, volume: Path, tiny_model: Path, out: Path
) -> None:
    moved = tmp_path / "m.n2v"
    moved.symlink_to(tiny_model)
    run("predict", volume, moved, out, *SIZES, "--only", "0")
    moved.unlink()
    said = run("verify", out, "--repair")
    assert said.code == 1
    assert "m.n2v" in said.err


@pytest.mark.parametrize("command", ["verify", "pyramid"])
def test_what_is_no_output(run: Run, tmp_path: Path, volume: Path, command: str) -> None:
    for place in (volume, tmp_path / "none.zarr"):
        said = run(command, place)
        assert (said.code, said.out) == (1, "")
        assert "is no output of n2v-scale" in said.err
    assert not (tmp_path / "none.zarr").exists()


# All of them


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option(run: Run, command: str) -> None:
    said = run(command, "--help")
    assert said.code == 0
    listed = said.out.split("Options:")[1]
    for option in cli.cli.commands[command].params:
        if isinstance(option, click.Option):
            assert all(name in listed for name in (*option.opts, *option.secondary_opts))
    assert f"n2v-scale {command} " in said.out.split("Example:")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "v"),
        ("plan", "v", "m", "--overwrite"),  # it writes nothing
        ("plan", "v", "m", "--speed", "0"),
        ("predict", "v", "m"),
        ("predict", "v", "m", "o", "--workers", "0"),
        ("predict", "v", "m", "o", "--precision", "int8"),
        ("verify",),
        ("verify", "o", "--block", "8"),
        ("pyramid",),
    ],
)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    said = run(*arguments)
    assert (said.code, said.out) == (2, "")
    assert f"n2v-scale {arguments[0]} --help" in said.err


def test_an_interrupt(
    run: Run, volume: Path, tiny_model: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("n2v_scale.execution.run_level", stop)
    said = run("predict", volume, tiny_model, out, *SIZES)
    assert said.code == 130
    assert said.err.splitlines()[-1].startswith("interrupted: ")
