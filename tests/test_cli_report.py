"""The command that writes a report: a file, a sentence, and errors before anything is read."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import n2v_scale
from n2v_scale.cli import cli
from n2v_scale.errors import ConfigError, OutputError


@pytest.fixture(scope="module")
def output(tmp_path_factory, write_volume, tiny_model, client):
    folder = tmp_path_factory.mktemp("report")
    values = np.random.default_rng(0).normal(100, 9, (2, 8, 32, 32)).astype("u2")
    noisy = write_volume(folder / "v.zarr", values, "czyx", chunk=(1, 8, 32, 32))
    n2v_scale.predict(noisy, tiny_model, folder / "d.zarr", client=client, device="cpu")
    return folder / "d.zarr"


def run(*arguments):
    return CliRunner().invoke(cli, ["report", *map(str, arguments)])


def test_a_file_and_its_figures_as_json(output, tmp_path):
    file = tmp_path / "r.html"
    file.write_text("an old one")
    camera = ("--gain", 1, "--offset", 9, "--read-noise", 3)
    done = run(output, "-o", file, "--channel", 1, "--json", *camera)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    text = file.read_text()
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    slices = json.loads(text.split('id="slices-data">')[1].split("</script>")[0])
    assert list(slices["scales"]) == ["0"]
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    assert found["report"] == str(file)
    assert found["size_bytes"] == file.stat().st_size
    assert found["estimate"]["noise_known"] is True
    assert found["headline"] in text.replace("&#39;", "'")


def test_the_reference_is_selected_alike(output, tmp_path):
    clean, file = output.parent / "v.zarr", tmp_path / "r.html"
    done = run(output, "-o", file, "--channel", 1, "--reference", clean, "--json")
    assert done.exit_code == 0, done.output
    second = [n2v_scale.open_volume(address, channels=[1]) for address in (output, clean)]
    assert json.loads(done.stdout)["evaluation"] == n2v_scale.evaluate(*second).to_dict()


def test_volumes_in_a_bucket(output, tmp_path, s3, tiny_model, client):
    """The output, the noisy volume on its record and the reference, with one set of options."""
    options = s3.options
    noisy, denoised = s3.url("v.zarr"), s3.url("d.zarr")
    source = output.parent / "v.zarr"
    n2v_scale.import_volume(source, noisy, client=client, storage_options=options)
    n2v_scale.predict(
        noisy, tiny_model, denoised, client=client, device="cpu", storage_options=options
    )
    given = [f"--storage-option={name}={value}" for name, value in options.items()]
    done = run(denoised, "-o", tmp_path / "r.html", "--reference", noisy, "--json", *given)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["evaluation"]
    assert found["estimate"]
    text = (tmp_path / "r.html").read_text()
    assert not any(options[name] in text + done.output for name in ("key", "secret"))
    both = ["--reference", noisy, "--noisy", noisy]
    told = CliRunner().invoke(cli, ["evaluate", denoised, *both, "--json", *given])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["estimate"]["psnr"] == found["estimate"]["psnr"]


def test_from_python_and_in_words(output, tmp_path):
    shutil.copytree(output, tmp_path / "d.zarr")
    made = n2v_scale.report(tmp_path / "d.zarr", tmp_path / "p.html", model=tmp_path / "gone.n2v")
    assert made.text().startswith(f"{tmp_path / 'p.html'} (")
    assert made.headline in made.text()
    assert "not in it: " in made.text()
    assert "gone.n2v" in made.missing["model"]
    assert made.estimate is None


def test_nothing_is_looked_at_where_nothing_can_be_written(output, tmp_path, monkeypatch):
    monkeypatch.setattr("n2v_scale.api.judging.find_out", lambda *_, **__: pytest.fail("looked"))
    (tmp_path / "folder").mkdir()
    for file, why in (
        (tmp_path / "none" / "r.html", "there is no folder"),
        (tmp_path / "folder", "is a folder"),
    ):
        with pytest.raises(OutputError, match=why):
            n2v_scale.report(output, file)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="may not be written to"):
        n2v_scale.report(output, tmp_path / "r.html")


def test_what_is_missing_is_named_with_its_remedy(output, tmp_path, monkeypatch):
    monkeypatch.setattr("n2v_scale.reporting.plots.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'n2v-scale\[report\]'"):
        n2v_scale.report(output, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_errors_are_sentences(output, tmp_path):
    done = run(tmp_path / "none.zarr", "-o", tmp_path / "r.html")
    assert done.exit_code != 0
    assert "does not exist" in str(done.exception)
    assert run(output, "-o", tmp_path).exit_code == 2
    assert "matplotlib" not in sys.modules["n2v_scale.cli_report"].__dict__
