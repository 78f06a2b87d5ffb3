"""What a user meets: commands, messages, exit codes, and never a traceback."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile
import zarr

import n2v_scale
from n2v_scale import cli
from n2v_scale.demo import run_demo
from n2v_scale.errors import ConfigError
from n2v_scale.ledger import Ledger

SHAPE = (16, 48, 64)


def noisy_values(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    return rng.poisson(60 + 40 * np.sin(3 * x + y) * np.cos(2 * y + z)).astype(np.uint16)


def write_zarr(path, values, chunks=(16, 16, 32)):
    array = zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype)
    array[...] = values
    return path


@pytest.fixture
def volume(tmp_path):
    return write_zarr(tmp_path / "volume.zarr", noisy_values())


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    source = write_zarr(folder / "source.zarr", noisy_values())
    n2v_scale.train(source, folder / "model.n2v", steps=3, patch=(8, 32, 32), filters=2, batch=1)
    return folder / "model.n2v"


def test_the_five_lines(run, tmp_path):
    """import, info, train, predict, evaluate, as the README has them."""
    values = noisy_values()
    tifffile.imwrite(tmp_path / "stack.tif", values, metadata={"axes": "ZYX"})
    noisy = tmp_path / "volume.zarr"
    assert run("import", tmp_path / "stack.tif", noisy, "--voxel-size", "2,0.4,0.4")[0] == 0
    code, out, _ = run("info", noisy)
    assert code == 0
    assert "z 16 × 2 micrometer" in out
    facts = json.loads(run("info", noisy, "--json")[1])
    assert facts["shape"] == list(SHAPE)
    assert facts["voxel_size_zyx"] == [2.0, 0.4, 0.4]
    trained = run("train", noisy, "-o", tmp_path / "m.n2v", "--steps", 3, "--patch", "8,32,32")
    assert trained[0] == 0
    assert "3 steps" in trained[1]
    denoised = tmp_path / "denoised.zarr"
    code, out, err = run("predict", noisy, tmp_path / "m.n2v", denoised, "--json")
    assert code == 0
    assert json.loads(out)["voxels"] == np.prod(SHAPE)
    assert "predicting" in err
    code, out, _ = run("evaluate", denoised, "--reference", noisy, "--json")
    assert code == 0
    assert set(json.loads(out)) == {"psnr", "si_psnr", "ssim", "data_range", "voxels"}
    assert "dB" in run("evaluate", denoised, "--reference", noisy)[1]
    code, out, _ = run("predict", noisy, tmp_path / "m.n2v", denoised)
    assert code == 0
    assert "finished already" in out


def test_simulate_writes_a_volume_and_its_truth(run, tmp_path):
    noisy, clean = tmp_path / "noisy.zarr", tmp_path / "clean.zarr"
    code, out, _ = run("simulate", noisy, "--clean", clean, "--shape", "6,40,48", "--seed", 3)
    assert code == 0
    assert out.split() == [str(noisy), str(clean)]
    assert n2v_scale.open_volume(noisy).shape == (1, 1, 6, 40, 48)
    assert n2v_scale.open_volume(clean).dtype == "float32"


def test_a_demo_that_cannot_end_well_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr("n2v_scale.demo.simulate_volumes", lambda *_, **__: pytest.fail("begun"))
    with pytest.raises(ConfigError, match="minutes"):
        run_demo(tmp_path / "d", minutes=float("nan"))
    assert not (tmp_path / "d").exists()
    monkeypatch.setattr("n2v_scale.reporting.plots.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"n2v-scale\[report\]"):
        run_demo(tmp_path / "d")


def test_demo_draws_a_picture_and_writes_a_report(run, tmp_path):
    code, out, _ = run("demo", tmp_path / "d", "--minutes", 0.02, "--shape", "8,64,64")
    assert code == 0
    assert "over the best Gaussian" in out
    result = json.loads((tmp_path / "d" / "demo.json").read_text())
    assert Path(result["picture"]).read_bytes().startswith(b"\x89PNG")
    assert "Against the reference" in Path(result["report"]).read_text()


def test_selection(run, tmp_path):
    values = np.stack([noisy_values(seed=s) for s in range(2)])
    write_zarr(tmp_path / "two.zarr", values, chunks=(1, 16, 16, 32))
    assert run("import", tmp_path / "two.zarr", tmp_path / "one.zarr", "--channel", 1)[0] == 0
    copied = zarr.open_array(tmp_path / "one.zarr" / "0", mode="r")[...]
    np.testing.assert_array_equal(copied, values[1:])


def test_a_config_file_and_what_overrides_it(run, tmp_path, volume):
    (tmp_path / "c.toml").write_text("steps = 2\nfilters = 2\npatch = [8, 32, 32]\n")
    out = tmp_path / "m.n2v"
    assert run("train", volume, "-o", out, "--config", tmp_path / "c.toml", "--steps", 1)[0] == 0
    training = json.loads((out / "model.json").read_text())["training"]
    assert (training["steps_done"], training["filters"], training["patch"]) == (1, 2, [8, 32, 32])


BAD_INPUT = {
    "missing": (lambda p: p / "none.zarr", "none.zarr"),
    "text": (lambda p: _file(p / "a.zarr", b"hello"), "a.zarr"),
    "empty folder": (lambda p: _folder(p / "b.zarr"), "b.zarr"),
    "dtype": (lambda p: write_zarr(p / "d.zarr", np.zeros(SHAPE)), "float64"),
    "axes": (
        lambda p: write_zarr(p / "e.zarr", np.zeros((2,) * 6, "u1"), chunks=(2,) * 6),
        "6 dimensions",
    ),
}


def _file(path, content):
    path.write_bytes(content)
    return path


def _folder(path):
    path.mkdir()
    return path


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.parametrize("command", ["train", "predict", "import"])
def test_bad_input(run, tmp_path, model, case, command):
    make, word = BAD_INPUT[case]
    source, out = make(tmp_path), tmp_path / "out"
    arguments = {
        "train": (source, "-o", out),
        "predict": (source, model, out),
        "import": (source, out),
    }
    code, _, err = run(command, *arguments[command])
    assert code == 1
    assert err.startswith("error: ")
    assert word in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--level", "7", ["level", "7"]),
        ("--channel", "5", ["channel", "5"]),
        ("--timepoints", "9", ["time", "9"]),
        ("--axes", "zzx", ["axes"]),
    ],
)
def test_a_selection_that_is_not_there(run, tmp_path, volume, option, value, words):
    code, _, err = run("info", volume, option, value)
    assert code == 1
    assert all(word in err for word in words)


def test_a_volume_smaller_than_a_patch(run, tmp_path, volume):
    code, _, err = run("train", volume, "-o", tmp_path / "m", "--patch", "32,32,32")
    assert code == 1
    assert "(16, 48, 64)" in err
    assert "smaller --patch" in err


def test_a_volume_too_small_to_train_on(run, tmp_path):
    tiny = write_zarr(tmp_path / "t.zarr", noisy_values((4, 8, 8)), chunks=(4, 8, 8))
    code, _, err = run("train", tiny, "-o", tmp_path / "m")
    assert code == 1
    assert "(4, 8, 8)" in err


def test_a_constant_volume(run, tmp_path, model):
    flat = write_zarr(tmp_path / "f.zarr", np.full(SHAPE, 7, np.uint16))
    for arguments in (("train", flat, "-o", tmp_path / "m"), ("predict", flat, model, "out")):
        code, _, err = run(*arguments)
        assert code == 1
        assert "are 7: a constant volume" in err


def test_nan_in_training(run, tmp_path):
    values = noisy_values().astype(np.float32)
    values[3, 4, 5] = np.nan
    bad = write_zarr(tmp_path / "n.zarr", values)
    code, _, err = run("train", bad, "-o", tmp_path / "m", "--steps", 2)
    assert code == 1
    assert "z=3, y=4, x=5" in err
    assert "--on-nan fill" in err
    filled = ("--steps", 2, "--filters", 2, "--on-nan", "fill")
    assert run("train", bad, "-o", tmp_path / "m", *filled)[0] == 0


def test_nan_in_prediction(run, tmp_path, model):
    values = noisy_values().astype(np.float32)
    values[3, 4, 5] = np.inf
    bad = write_zarr(tmp_path / "n.zarr", values)
    out = tmp_path / "out.zarr"
    code, _, err = run("predict", bad, model, out)
    assert code == 3
    assert "are NaN or infinite, the first at z=3, y=4, x=5" in err
    assert run("predict", bad, model, tmp_path / "filled.zarr", "--on-nan", "fill")[0] == 0
    filled = zarr.open_array(tmp_path / "filled.zarr" / "0", mode="r")[...]
    assert np.isfinite(filled).all()


def test_models_that_do_not_fit(run, tmp_path, volume, model):
    code, _, err = run("predict", volume, tmp_path / "none.n2v", tmp_path / "out")
    assert code == 1
    assert "n2v-scale train" in err
    card = json.loads((model / "model.json").read_text())
    newer = tmp_path / "newer.n2v"
    newer.mkdir()
    (newer / "model.json").write_text(json.dumps({**card, "format": 99}))
    code, _, err = run("predict", volume, newer, tmp_path / "out")
    assert code == 1
    assert "format 99" in err
    flat = write_zarr(tmp_path / "flat.zarr", noisy_values((1, 48, 64)), chunks=(1, 48, 64))
    code, _, err = run("predict", flat, model, tmp_path / "out")
    assert code == 1
    assert "trained on 16 planes" in err


def test_an_output_that_exists(run, tmp_path, volume, model):
    out = tmp_path / "out.zarr"
    assert run("predict", volume, model, out)[0] == 0
    code, _, err = run("predict", volume, model, out, "--codec", "gzip")
    assert code == 1
    assert "--codec was blosc-zstd, now gzip" in err
    assert "--overwrite" in err
    assert run("predict", volume, model, out, "--codec", "gzip", "--overwrite")[0] == 0
    code, _, err = run("train", volume, "-o", model)
    assert code == 1
    assert "exists" in err


def test_foreign_things_are_never_deleted(run, tmp_path, volume, model):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for arguments in (
        ("predict", volume, model, precious, "--overwrite"),
        ("predict", volume, model, precious),
        ("import", volume, precious, "--overwrite"),
        ("train", volume, "-o", precious, "--steps", 1, "--filters", 2, "--overwrite"),
    ):
        assert run(*arguments)[0] == 1
        assert (precious / "thesis.txt").read_text() == "years of work"


def test_an_output_inside_its_input(run, volume, model):
    for out in (volume, volume / "out.zarr", volume.parent):
        code, _, err = run("predict", volume, model, out, "--overwrite")
        assert code == 1
        assert "choose another name" in err
    assert zarr.open_array(volume, mode="r").shape == SHAPE


def test_usage_errors_exit_with_2(run, volume):
    assert run("train", volume)[0] == 2
    assert run("predict", volume)[0] == 2
    assert run("info", volume, "--nonsense")[0] == 2
    assert run("train", volume, "-o", "m", "--patch", "1,2")[0] == 2
    assert run("nonsense")[0] == 2


def test_settings_out_of_range(run, tmp_path, volume, model):
    code, _, err = run("train", volume, "-o", tmp_path / "m", "--steps", 5, "--minutes", 1)
    assert code == 1
    assert "steps and minutes" in err
    (tmp_path / "c.toml").write_text("stepps = 5\n")
    code, _, err = run("train", volume, "-o", tmp_path / "m", "--config", tmp_path / "c.toml")
    assert code == 1
    assert "stepps: there is no such setting" in err
    out = tmp_path / "out"
    code, _, err = run("predict", volume, model, out, "--codec", "gzip", "--codec-level", 12)
    assert code == 1
    assert "gzip goes up to 9" in err


def start(*arguments, **keywords):
    return subprocess.Popen(
        [sys.executable, "-m", "n2v_scale", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **keywords,
    )


@pytest.fixture(scope="session")
def many_blocks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    return write_zarr(folder / "v.zarr", noisy_values((16, 192, 192)), chunks=(16, 64, 64))


BLOCKS = ("--block", "16,32,32", "--tile", "16,32,32")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on(tmp_path, model, many_blocks, client, number):
    out = tmp_path / "out.zarr"
    process = start("predict", many_blocks, model, out, *BLOCKS)
    markers = out / "0" / "n2v_scale.ledger" / "blocks"
    deadline = time.monotonic() + 120
    while not (markers.exists() and len(list(markers.iterdir())) >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted" in err
    ledger = Ledger(str(out), "0.5")
    ledger.fold_loose("0")
    kept = int(ledger.done("0", 36).sum())
    assert 2 <= kept < 36

    chosen = {"block": (16, 32, 32), "tile": (16, 32, 32), "client": client}
    again = n2v_scale.predict(many_blocks, model, out, **chosen)
    assert again.computed == 36 - kept
    whole = n2v_scale.predict(many_blocks, model, tmp_path / "whole.zarr", **chosen)
    assert whole.computed == 36
    resumed, undisturbed = (
        zarr.open_array(path / "0", mode="r")[...] for path in (out, tmp_path / "whole.zarr")
    )
    np.testing.assert_array_equal(resumed, undisturbed)


def test_a_chunk_that_cannot_be_decoded(run, tmp_path, model):
    source = write_zarr(tmp_path / "v.zarr", noisy_values((16, 192, 192)), chunks=(16, 64, 64))
    chunk = source / "c" / "0" / "0" / "0"
    intact, written = chunk.read_bytes(), chunk.stat()

    def replace(content):
        chunk.write_bytes(content)
        os.utime(chunk, ns=(written.st_atime_ns, written.st_mtime_ns))

    replace(bytes(len(intact)))
    out = tmp_path / "out.zarr"
    blocks = ("--block", "16,64,64", "--tile", "16,64,64")
    code, _, err = run("predict", source, model, out, *blocks)
    assert code == 3
    assert "4 of 9 blocks failed" in err
    assert "The same command computes only what is missing" in err
    assert "block 0: " in err
    assert "cannot read box" in err
    replace(intact)
    code, out_text, _ = run("predict", source, model, out, *blocks)
    assert code == 0
    assert "4 blocks of 9" in out_text


def test_a_disk_that_is_full(tmp_path, model, many_blocks, client):
    """A limit on the size of files stands in for the disk: shards do not fit, metadata does."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    out = tmp_path / "out.zarr"
    arguments = ("predict", many_blocks, model, out, "--block", "16,64,64", "--codec", "none")
    process = start(*arguments, preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "cannot be written" in err
    chosen = {"block": (16, 64, 64), "codec": "none", "client": client}
    summary = n2v_scale.predict(many_blocks, model, out, **chosen)
    assert summary.computed == 9


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys, n2v_scale, n2v_scale.cli\n"
        "loaded = [m for m in ('torch', 'zarr', 'dask', 'numpy', 'scipy') if m in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_command_has_help_with_an_example(run):
    for name, command in cli.cli.commands.items():
        code, out, _ = run(name, "--help")
        assert code == 0
        assert f"n2v-scale {name}" in out.split("Usage:")[1].split("Options:")[0]
        assert "Example:" in out
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (name, parameter.name)
