"""Two captures that lie on the disk: scale, sampling, what is left out, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from scipy.ndimage import gaussian_filter

import n2v_scale
from n2v_scale.cli import cli
from n2v_scale.errors import InputError
from n2v_scale.local_cluster import thread_client

SHAPE, SCALE = (16, 96, 96), (1.0, 0.5, 0.5)


def capture(seed, shape=SHAPE, noise=40.0):
    signal = gaussian_filter(np.random.default_rng(0).standard_normal(shape), (1, 2, 2))
    captured = np.random.default_rng(seed).normal(1000 + 100 * signal / signal.std(), noise)
    return captured.astype(np.float32)


@pytest.fixture
def pair(tmp_path, write_volume):
    return [
        write_volume(tmp_path / f"{k}.zarr", capture(k), scale=SCALE, chunk=(16, 32, 32))
        for k in (1, 2)
    ]


def test_lengths_are_in_the_unit_of_the_axes(pair, tmp_path):
    found = n2v_scale.evaluate_pair(*pair)
    assert (found.unit, found.voxel_size, found.box) == ("micrometer", SCALE, (16, 64, 64))
    assert found.boxes == 4
    (curves,) = found.curves
    assert set(curves) == {"all", "xy", "z"}
    assert curves["xy"].outcome == "resolved"
    bare = [str(tmp_path / f"bare{k}.zarr") for k in (1, 2)]
    for k, path in enumerate(bare, 1):
        zarr.create_array(path, data=capture(k), chunks=(16, 32, 32))
    voxels = n2v_scale.evaluate_pair(*bare)
    assert voxels.unit == "voxel"
    assert voxels.curves[0]["xy"].resolution == pytest.approx(2 * curves["xy"].resolution, rel=0.1)
    mixed = n2v_scale.evaluate_pair(bare[0], pair[1])
    assert mixed.to_dict()["channels"] == found.to_dict()["channels"]


def test_channels_have_curves_of_their_own(tmp_path, write_volume):
    for k in (1, 2):
        values = np.stack([capture(k), capture(k + 5, noise=1e5)])[:, :, :64, :64]
        write_volume(tmp_path / f"{k}.zarr", values, chunk=(1, 16, 32, 32))
    found = n2v_scale.evaluate_pair(tmp_path / "1.zarr", tmp_path / "2.zarr")
    assert [c["all"].outcome for c in found.curves] == ["resolved", "nothing"]


def test_what_is_on_another_grid_is_refused(pair, tmp_path, write_volume):
    other = write_volume(tmp_path / "o.zarr", capture(3), scale=(1.0, 0.5, 0.6))
    with pytest.raises(InputError, match="on one grid"):
        n2v_scale.evaluate_pair(pair[0], other)
    small = write_volume(tmp_path / "s.zarr", capture(3, (16, 96, 90)), scale=SCALE)
    with pytest.raises(InputError, match="--channel"):
        n2v_scale.evaluate_pair(pair[0], small)


def test_boxes_with_nan_are_left_out(pair, tmp_path, write_volume):
    values = capture(3)
    values[3, 5, 5] = np.nan
    holed = write_volume(tmp_path / "n.zarr", values, scale=SCALE, chunk=(16, 32, 32))
    found = n2v_scale.evaluate_pair(pair[0], holed)
    assert 0 < found.left_out < 4
    assert found.curves[0]["all"].outcome == "resolved"
    gone = write_volume(tmp_path / "g.zarr", np.full(SHAPE, np.nan, "f4"), scale=SCALE)
    with pytest.raises(InputError, match="NaN or infinity"):
        n2v_scale.evaluate_pair(pair[0], gone)


def test_one_capture_twice_is_told(pair):
    found = n2v_scale.evaluate_pair(pair[0], pair[0])
    assert found.curves[0]["all"].resolution == 1.0
    assert any("one and the same capture" in note for note in found.notes)


def test_two_outputs_of_one_model_are_told(pair, tmp_path, tiny_model):
    outputs = [tmp_path / f"out{k}.zarr" for k in (1, 2)]
    with thread_client(2) as client:
        for volume, out in zip(pair, outputs, strict=True):
            n2v_scale.predict(volume, tiny_model, out, client=client, pyramid=False)
    assert any("one model" in note for note in n2v_scale.evaluate_pair(*outputs).notes)
    assert not any(
        "one model" in note for note in n2v_scale.evaluate_pair(pair[0], outputs[1]).notes
    )


def run(*arguments):
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_the_command(pair):
    first, second = (volume.address for volume in pair)
    text = run(first, "--pair", second).stdout
    assert "resolution along XY" in text
    assert "cycles/micrometer" in text
    found = json.loads(run(first, "--pair", second, "--json", "--seed", 1).stdout)["pair"]
    curve = found["channels"][0]["xy"]
    assert curve["outcome"] == "resolved"
    assert len(curve["frequency"]) == len(curve["correlation"]) == len(curve["modes"]) > 5
    same = run(first, "--pair", first).stdout
    assert "1 micrometer or better: the correlation does not fall below 1/7" in same
    assert "--seed belongs to" in run(first, "--reference", second, "--seed", 1).output
