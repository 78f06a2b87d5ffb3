"""How good every method is, on volumes whose truth is known: one table, a cell a command.

    python benchmarks/quality.py --out cells --minutes 3 --clean mousebrain_atlas_clean.tif
    python benchmarks/quality.py --out cells --rows linear,ssdn --columns atlas-40 --clean …

A cell is a training of its own, a prediction, and the PSNR against the truth; it is written to a
file as soon as it is known, and a run goes on with the cells that are missing. Columns:
``simulated`` (a light-sheet volume as the demo's) and, with ``--clean``, the crop [60:156, 0:192,
8:264] of the clean volume at 40, 160 and 400 electrons with Poisson noise and read noise of 2.5
electrons, and noise of the variance of the first that is alike along X (``lines-40``); the PSNR's
range is the number of electrons. Rows are methods; ``+p`` is the prediction with the posterior,
which is the default where there is one. ``noisy`` and ``gaussian``, the best one found by looking
at the truth, are there to compare with.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from n2v_scale.api import predict, train
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.metrics import psnr
from n2v_scale.model_card import read_card
from n2v_scale.simulate import simulate_light_sheet

CROP = (slice(60, 156), slice(0, 192), slice(8, 264))
READ_NOISE = 2.5
LEAK = 0.6
"""Of a voxel's noise into the next along X, in ``lines``: a correlation of 0.44."""
SIMULATED = (48, 192, 192)
ROWS = "noisy,gaussian,linear,n2v,n2v2,n2s,n2s-27,ssdn,structn2v,n2n,supervised"
COLUMNS = "simulated,atlas-40,atlas-160,atlas-400,lines-40"
OPTIONS: dict[str, dict[str, Any]] = {
    "n2s": {"partition": (2, 2, 2)},
    "structn2v": {"blind_mask": "x:1"},
    "n2s-27": {"method": "n2s", "partition": (3, 3, 3)},
}

Array = np.ndarray[Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--clean", type=Path, help="TIFF (z, y, x) without noise")
    parser.add_argument("--minutes", type=float, default=3.0, help="of a training")
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--columns", default=COLUMNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for column in given.columns.split(","):
        if column != "simulated" and given.clean is None:
            continue
        for row in given.rows.split(","):
            file = given.out / f"{row}.{column}.{given.minutes:g}.{given.seed}.json"
            if not file.exists():
                made = cell(row, column, given)
                file.write_text(json.dumps(made) + "\n")
            print_cell(row, column, json.loads(file.read_text()))


def print_cell(row: str, column: str, found: dict[str, Any]) -> None:
    posterior = found.get("posterior")
    more = "" if posterior is None else f"  +p {posterior:6.2f} dB"
    steps = f"  {found['steps']} steps, {found['train_s']:.0f} s" if "steps" in found else ""
    print(f"{column:<11}{row:<12}{found['psnr']:6.2f} dB{more}{steps}", flush=True)


def volumes(column: str, clean: Path | None, seed: int) -> tuple[Array, Array, Array, float]:
    """Two noisy captures, the truth, and the PSNR's range."""
    if column == "simulated":
        made = simulate_light_sheet(shape=SIMULATED, seed=seed)
        other = made.parameters.camera.expose(made.clean, seed + 1000)
        return made.noisy, other, made.clean, made.data_range
    assert clean is not None
    electrons = float(column.split("-")[1])
    raw = np.maximum(tifffile.imread(clean).astype(np.float64), 0)
    truth = (raw * electrons / np.percentile(raw, 99.9))[CROP]
    captures = [
        _capture(truth, np.random.default_rng((seed, number) if number else seed), column)
        for number in range(2)
    ]
    return captures[0], captures[1], truth.astype(np.float32), electrons


def _capture(truth: Array, rng: np.random.Generator, column: str) -> Array:
    """Photons and a camera; of ``lines``, noise of the same variance that is alike along X."""
    if not column.startswith("lines"):
        values = rng.poisson(truth) + rng.normal(0, READ_NOISE, truth.shape)
        return np.asarray(values, np.float32)
    z, y, x = truth.shape
    white = rng.normal(0, 1, (z, y, x + 1))
    alike = (white[..., 1:] + LEAK * white[..., :-1]) / np.sqrt(1 + LEAK**2)
    return np.asarray(truth + np.sqrt(truth + READ_NOISE**2) * alike, np.float32)


def cell(row: str, column: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything that is known of one cell."""
    first, second, truth, span = volumes(column, given.clean, given.seed)
    found: dict[str, Any] = {"commit": commit(), "row": row, "column": column}
    if row == "noisy":
        return found | {"psnr": psnr(first, truth, data_range=span)}
    if row == "gaussian":
        return found | {"psnr": best_gaussian(first, truth, span)}
    with tempfile.TemporaryDirectory() as folder:
        for name, values in (("noisy", first), ("other", second), ("clean", truth)):
            chunks = tuple(min(64, n) for n in values.shape)
            zarr.create_array(f"{folder}/{name}.zarr", data=values, chunks=chunks)
        return found | trained(row, Path(folder), truth, span, given)


def trained(
    row: str, folder: Path, truth: Array, span: float, given: argparse.Namespace
) -> dict[str, Any]:
    """A training and its predictions."""
    options = {"method": row} | OPTIONS.get(row, {})
    if row == "n2n":
        options["pair"] = str(folder / "other.zarr")
    if row == "supervised":
        options["target"] = str(folder / "clean.zarr")
    if row != "linear":
        options["minutes"] = given.minutes
    noisy, model = folder / "noisy.zarr", folder / "model"
    started = perf_counter()
    train(noisy, model, seed=given.seed, device=given.device, **options)
    found: dict[str, Any] = {"train_s": perf_counter() - started}
    card = read_card(model)
    found["steps"] = card.training["steps_done"]
    names = {"psnr": False, "posterior": None} if card.blind else {"psnr": None}
    for name, posterior in names.items():
        out = folder / f"{name}.zarr"
        started = perf_counter()
        asked = {} if posterior is None else {"posterior": posterior}
        predict(noisy, model, out, dtype="float32", pyramid=False, device=given.device, **asked)
        found[f"{name}_s"] = perf_counter() - started
        result = open_volume(out).read(0, 0, Box.whole(truth.shape))
        found[name] = psnr(result, truth, data_range=span)
    return found


def best_gaussian(noisy: Array, truth: Array, span: float) -> float:
    """Found by looking at the truth."""
    sigmas = np.geomspace(0.4, 3, 14)
    values = noisy.astype(np.float32)
    return max(psnr(gaussian_filter(values, s), truth, data_range=span) for s in sigmas)


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
