"""The Python workflows, executed on a tiny volume."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys

import dask
import numpy as np
import pytest
import zarr
from dask.callbacks import Callback
from distributed import Client, LocalCluster
from distributed.security import Security
from scipy import ndimage

import n2v_scale
from n2v_scale.simulate import simulate_light_sheet

HOT = (3, 20, 21)


@pytest.fixture(scope="module")
def volume(tmp_path_factory, write_volume):
    image = simulate_light_sheet(shape=(16, 64, 72)).noisy
    image[HOT] = 65_000
    folder = tmp_path_factory.mktemp("python")
    return write_volume(folder / "noisy.zarr", image, chunk=(8, 32, 32))


@pytest.fixture(scope="module")
def model(volume, tmp_path_factory):
    folder = tmp_path_factory.mktemp("python") / "model.n2v"
    return n2v_scale.train(volume, folder, method="linear").folder


@pytest.fixture(scope="module")
def script(workflows):
    """A function that loads a workflow as a module."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, workflows / "python" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


class Counted(Callback):
    """How often each task ran, by the first part of its key."""

    def __init__(self):
        super().__init__(posttask=self.count)
        self.keys = []

    def count(self, key, *_):
        self.keys.append(str(key))


def measured(image, level):
    """The table of objects, of a whole array at once: {(voxels, mean, z, y, x)}."""
    labels, n = ndimage.label(image > level)
    numbers = range(1, n + 1)
    sizes = ndimage.sum_labels(labels > 0, labels, numbers)
    means = ndimage.mean(image, labels, numbers)
    centres = ndimage.center_of_mass(labels > 0, labels, numbers)
    rows = np.column_stack([sizes, means, np.asarray(centres).reshape(n, 3)])
    return rows[np.lexsort(rows.T)]


def test_a_lazy_step(script, volume, model, tmp_path):
    pytest.importorskip("dask_image", reason="pip install 'n2v-scale[test]'")
    table = tmp_path / "objects.csv"
    counted = Counted()
    with counted, dask.config.set(scheduler="synchronous"):
        script("lazy_step").main([volume.address, str(model), str(table), "--smallest", "1"])
    denoised = [key for key in counted.keys if "denoise_chunk" in key]
    assert len(denoised) == len(set(denoised)) == 2 * 2 * 3  # each chunk once

    noisy = zarr.open_array(f"{volume.address}/0", mode="r")[...]
    median = ndimage.median_filter(noisy, size=3)
    cleaned = np.where(noisy > 4 * median, median, noisy)
    assert cleaned[HOT] < 10_000 < noisy[HOT]
    chunked = dask.array.from_array(cleaned, chunks=(8, 32, 32))
    whole = n2v_scale.denoise(chunked, model).compute(scheduler="synchronous")
    with table.open() as file:
        header, *rows = csv.reader(file)
    assert header == ["voxels", "mean", "z", "y", "x"]
    found = np.array(rows, float)
    expected = measured(whole, whole.mean() + 2 * whole.std())
    assert len(found) > 3
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected, atol=6e-4)


def test_a_lazy_step_on_what_is_denoised(script, volume, model, tmp_path):
    """As a script, with a threshold of its own; small objects are left out."""
    pytest.importorskip("dask_image", reason="pip install 'n2v-scale[test]'")
    table = tmp_path / "objects.csv"
    command = [volume.address, str(model), str(table), "--denoised", "--threshold", "140"]
    source = script("lazy_step").__file__
    subprocess.run([sys.executable, source, *command, "--smallest", "5"], check=True)
    noisy = zarr.open_array(f"{volume.address}/0", mode="r")[...]
    expected = measured(noisy, 140)
    expected = expected[expected[:, 0] >= 5]
    found = np.loadtxt(table, delimiter=",", skiprows=1, ndmin=2)
    assert 0 < len(found) == len(expected)
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected, atol=6e-4)


def test_a_client_of_its_own(script, volume, model, tmp_path):
    out = tmp_path / "out.zarr"
    source = script("existing_client").__file__
    done = subprocess.run(
        [sys.executable, source, volume.address, model, out, "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["output"], summary["missing"], summary["workers"]) == (str(out), 0, 1)
    assert n2v_scale.verify(out).whole


def test_a_client_of_a_scheduler(script, volume, model, tmp_path, capsys):
    security = Security.temporary()
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    files["ca"].write_text(security.tls_ca_file)
    files["cert"].write_text(security.tls_client_cert)
    files["key"].write_text(security.tls_client_key)
    out, address = tmp_path / "out.zarr", "tls://127.0.0.1:0"
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        host=address,
        security=security,
        dashboard_address=None,
    ) as cluster:
        tls = [f"--tls-{name}={file}" for name, file in files.items()]
        named = f"--scheduler={cluster.scheduler_address}"
        script("existing_client").main([volume.address, str(model), str(out), named, *tls])
        with Client(cluster, set_as_default=False) as client:  # it was left running
            assert client.submit(sum, [1, 2]).result() == 3
    assert cluster.scheduler_address.startswith("tls://")
    assert json.loads(capsys.readouterr().out)["missing"] == 0
    mine = n2v_scale.predict(volume, model, tmp_path / "mine.zarr", workers=1)
    assert mine.missing == 0
    arrays = [zarr.open_array(tmp_path / f"{n}.zarr/0", mode="r")[...] for n in ("out", "mine")]
    np.testing.assert_array_equal(*arrays)
