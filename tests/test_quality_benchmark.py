"""What the table of the methods is made of: its measures, its cells, and what it prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmarks are not packaged")


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def given(out, **options):
    usual = {"out": out, "data": None, "rows": None, "columns": "simulated", "subset": None}
    usual |= {"minutes": 0.01, "seed": 0, "device": "cpu", "peer": None, "bm": None}
    return argparse.Namespace(**usual | {"crop": (6, 32, 32)} | options)


def test_a_checkerboard_stands_out_at_the_nyquist_frequencies():
    from quality_measures import checkerboard
    from scipy.ndimage import gaussian_filter

    white = np.random.default_rng(0).normal(size=(4, 64, 64))
    smooth = gaussian_filter(white, (0, 2, 2)) * 10
    parity = np.indices((64, 64)).sum(axis=0) % 2
    share, peak = checkerboard(white)
    # |f| >= 0.5 - 1/32 in y or x: all but (1 - 1/16)² of the spectrum, and as much a frequency.
    assert share == pytest.approx(10 * np.log10(1 - (59 / 64) ** 2), abs=0.3)
    assert peak == pytest.approx(0, abs=0.3)
    assert checkerboard(smooth)[0] < -60
    share, peak = checkerboard(smooth + 0.1 * parity)
    assert share > -30
    assert peak > 20


def test_correlated_background_is_told_from_white_noise():
    from quality_measures import background

    rng = np.random.default_rng(1)
    light = np.zeros((8, 64, 64))
    light[:, 20:50, 20:50] = 50
    white = rng.normal(size=(8, 64, 65))
    alike = (white[..., 1:] + white[..., :-1]) / np.sqrt(2)
    noisy = light + alike
    found = background(noisy, noisy)
    assert found["background_x"] == pytest.approx([0.5, 0, 0], abs=0.05)
    assert found["background_std"] == pytest.approx(1, abs=0.05)
    assert background(noisy, light)["background_std"] < 0.2  # what the bright square's blur leaves
    independent = background(noisy, light + white[..., 1:])
    assert independent["background_x"] == pytest.approx([0, 0, 0], abs=0.05)


def test_the_anscombe_transform_makes_noise_even_and_its_inverse_is_unbiased():
    from bm_run import from_stable, to_stable

    rng = np.random.default_rng(2)
    for electrons in (5.0, 40.0, 400.0):
        stable = to_stable(rng.poisson(electrons, 10**6) + rng.normal(0, 2.5, 10**6), 2.5)
        assert stable.std() == pytest.approx(1, abs=0.03)
        back = from_stable(np.array([stable.mean()]), 2.5)
        assert back[0] == pytest.approx(electrons, rel=0.01)


def test_cells_are_made_once_and_printed(tmp_path):
    from quality import FORMAT, cells, filled
    from quality_table import read_cells, table

    options = given(tmp_path, rows="truth,noisy,gaussian-oracle,bm4d,careamics-n2v,n2n")
    (truth, noisy, oracle, n2n) = cells(options)  # BM4D does not fit, CAREamics has no folder
    assert n2n.name == "n2n.simulated@6x32x32.0.01.0"
    assert oracle.name == "gaussian-oracle.simulated@6x32x32.0.0"
    found = [filled(cell, options)["outputs"]["plain"] for cell in (truth, noisy, oracle)]
    assert found[0]["psnr"] is None
    assert found[1]["psnr"] < found[2]["psnr"]
    assert found[1]["residual_with_signal"] == 0
    file = tmp_path / f"{noisy.name}.json"
    changed = json.loads(file.read_text())
    changed["outputs"]["plain"]["psnr"] = 12.25
    file.write_text(json.dumps(changed))
    assert filled(noisy, options)["outputs"]["plain"]["psnr"] == 12.25
    assert np.load(file.with_suffix(".npz"))["plain"].shape == (32, 32)
    text = table(read_cells(tmp_path, FORMAT))
    assert "| noisy | 12.25 |" in text
    below = text[text.index("### simulated") :]
    assert below.index("| truth |") < below.index("| noisy |") < below.index("| gaussian-oracle |")
    file.write_text(json.dumps(changed | {"format": FORMAT - 1}))
    assert filled(noisy, options)["outputs"]["plain"]["psnr"] == found[1]["psnr"]


def test_seeds_are_averaged():
    from quality_table import table

    cells = [
        {
            **{"format": 2, "row": "n2v", "column": "atlas-40", "minutes": 2.0, "seed": seed},
            **{"commit": "abc", "machine": "here"},
            "outputs": {"plain": {"psnr": psnr, "steps": 100, "predict_s": 1.0}},
        }
        for seed, psnr in enumerate((30.0, 31.0))
    ]
    text = table(cells)
    assert "| n2v, 2 min | 30.50 ± 0.50 |" in text
    assert "seeds 0, 1; minutes of a training: 2; 2 cells." in text


def test_every_cell_of_the_subset_fits_and_can_be_named():
    from quality import CPU
    from quality_columns import COLUMNS, kind_of
    from quality_rows import row_named

    for column, rows in CPU.items():
        assert column in COLUMNS
        for row in rows:
            assert kind_of(column) in row_named(row).kinds.split(), (column, row)
    assert row_named("n2s-1x4x4").options["partition"] == (1, 4, 4)


def test_the_donut_follows_the_true_error():
    from donut import curves
    from quality_columns import make_case

    from n2v_scale.classical import FILTERS

    case = make_case("simulated", None, 0, (16, 64, 64))
    filters = [FILTERS["gaussian"](value, (0.2, 1.0, 1.0)) for value in (0.3, 0.6, 1.0, 2.0, 4.0)]
    found = curves(case.noisy[0], case.truth[0], filters, np.random.default_rng(0))
    assert np.argmin(found["seen_loss"]) == 0
    assert np.argmin(found["hidden_loss"]) == np.argmin(found["hidden_error"]) > 0
    assert found["hidden_loss"] == pytest.approx(found["hidden_error"], abs=0.15)
