"""The map of the blocks is that of the run: their time, their error, what failed and is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from n2v_scale.errors import IncompleteError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.journal import Journal
from n2v_scale.own_record import record_of
from n2v_scale.reporting.block_map import DONE, FAILED, MISSING, block_map
from n2v_scale.reporting.plots import block_plot
from n2v_scale.reporting.words import figures, run_rows
from n2v_scale.resume import recorded_plan
from n2v_scale.self_evaluation import PlacedError


def plan_of(path):
    volume = open_volume(path)
    return recorded_plan(record_of(volume), volume.address, volume.storage)


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory, write_volume, make_output, report_on):
    """An output of which a block failed, two wait for another run, and the others are done."""
    values = np.random.default_rng(0).normal(100, 9, (32, 64, 96)).astype("u2")
    folder = tmp_path_factory.mktemp("disturbed")
    noisy = write_volume(folder / "v.zarr", values, chunk=(32, 32, 16))
    output = make_output(noisy, only=[0])
    chunk = folder / "v.zarr/0/c/0/0/5"  # x from 80, and the blocks are 32 wide
    whole = chunk.read_bytes()
    chunk.write_bytes(b"torn")
    with pytest.raises(IncompleteError):
        make_output(noisy, output=output, only=slice(0, 10))
    yield report_on(output)
    chunk.write_bytes(whole)


def test_seconds_are_those_of_the_journal(case):
    found, plan = case.found.blocks, plan_of(case.output)
    seconds = Journal(str(case.output), "0").seconds(plan.blocks)
    assert found.seconds.shape == (2, 2, 2)
    assert np.array_equal(found.seconds.ravel(), seconds)
    assert (found.state == DONE).all()
    assert found.total_s == pytest.approx(seconds.sum())


def test_errors_are_where_they_were_seen(case):
    plan = plan_of(case.output)
    boxes = [((0, 0, 0), (16, 32, 16), 4.0), ((0, 0, 16), (16, 32, 32), 16.0)]
    boxes += [((16, 0, 0), (20, 48, 32), 9.0), ((0, 32, 32), (16, 48, 64), -1.0)]
    errors = [PlacedError(0, 0, Box(a, b), 1000, mse) for a, b, mse in boxes]
    rmse = block_map(plan, errors).rmse
    assert rmse[0, 0, 0] == pytest.approx(10**0.5)
    assert rmse[1, :, 0] == pytest.approx([3, 3])
    assert rmse[0, 1, 1] == 0
    assert np.isnan(rmse).sum() == 4


def test_channels_and_times_are_taken_together(tmp_path, write_volume, make_output, report_on):
    values = np.random.default_rng(0).normal(100, 9, (2, 2, 16, 32, 64)).astype("u2")
    noisy = write_volume(tmp_path / "v.zarr", values, chunk=(1, 1, 16, 32, 32))
    output = make_output(noisy, only=[0, 1, 2, 3, 4, 6, 7])
    found = block_map(plan_of(output), ())
    seconds = Journal(str(output), "0").seconds(8).reshape(4, 1, 1, 2)
    assert found.seconds == pytest.approx(np.nanmean(seconds.astype(float), axis=0))
    assert found.state.tolist() == [[[DONE, MISSING]]]
    assert (found.blocks, found.missing, found.images) == (8, 1, 4)


def test_failed_and_missing_blocks(disturbed):
    found = disturbed.found.blocks
    assert found.state.shape == (2, 2, 3)
    assert found.state[0, 0].tolist() == [DONE, DONE, FAILED]
    assert set(found.failed) == {2, 5, 8}
    assert found.state[1, 1].tolist() == [DONE, MISSING, MISSING]
    assert found.missing == 5
    assert [run["computed"] for run in found.runs] == [1, 6]
    page = disturbed.page
    assert "cannot read box" in page.text
    assert "× failed, □ missing." in page.text
    shown = {figure.name: figure for figure in figures(disturbed.found)}
    assert (shown["blocks"].value, shown["blocks"].note) == ("7 of 12", "5 missing")


def test_a_noisy_chunk_that_cannot_be_read_leaves_a_hole_in_its_slices_alone(disturbed):
    data = disturbed.slices.data
    for number in range(len(data["places"])):
        xy = disturbed.slices.plane(number, "noisy", "xy")
        z = data["places"][number]["centre"][0]
        assert np.isnan(xy[:32, 80:]).all()
        assert np.isfinite(xy[:, :80]).all()
        denoised = disturbed.slices.plane(number, "denoised", "xy")
        assert np.isnan(denoised[:, 64:]).all() == (z >= 0)
        assert np.isfinite(denoised[:32, :64]).all()


def test_a_resumed_output_says_all_its_runs_and_an_old_one_none(noisy, make_output, case):
    output = make_output(noisy, only=[0, 1])
    make_output(noisy, output=output)
    found = replace(case.found, blocks=block_map(plan_of(output), ()))
    assert [row[-1] for row in run_rows(found)] == ["2", "6"]
    assert found.blocks.missing == 0
    for file in (output / "0" / "n2v_scale.ledger" / "journal").iterdir():
        file.unlink()
    old = replace(case.found, blocks=block_map(plan_of(output), ()))
    assert np.isnan(old.blocks.seconds).all()
    assert run_rows(old) == []
    assert {figure.name for figure in figures(found)} - {f.name for f in figures(old)} == {
        "computed in"
    }
    assert "<svg" in block_plot(old.blocks)
