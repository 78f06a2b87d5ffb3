"""How good every method is: one table, a cell a command.

    python benchmarks/quality.py --out cells --data data --subset cpu --peer .peer --bm .bm
    python benchmarks/quality.py --out cells --data data --rows n2v,n2s --columns atlas-40
    python benchmarks/quality.py --out cells --table --pictures pictures

A cell is a training of its own, its predictions, and what is measured of them; it is written to a
file (and one of its slices beside it) as soon as it is known, and a run goes on with the cells
that are missing. A cell that cannot be (no noise seen for ssdn) says why. Rows that do not fit
a column are left out, and so are those whose ``--data``, ``--peer`` (CAREamics) or ``--bm`` (BM3D
and BM4D) is not given. See quality_rows.py and quality_columns.py for what there is.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality_columns import COLUMNS, DATA, Sizes, kind_of, make_case, missing, sizes
from quality_measures import measure, middle_slice
from quality_rows import ROWS, Means, outputs, row_named
from quality_table import draw_columns, read_cells, table

from n2v_scale.cores import available_cores
from n2v_scale.devices import choose_device
from n2v_scale.errors import N2VScaleError

FORMAT = 2
MINUTES = 3.0
CPU_MINUTES = 2.0
"""Of a training in ``--subset cpu``: there are 24, and each takes half a minute to a minute more
with its predictions. With the rows that do not train, about 90 minutes on two cores, by reckoning.
"""
QUICK = ("noisy", "gaussian-oracle", "gaussian", "linear")
CPU: dict[str, tuple[str, ...]] = {
    "atlas-40": (
        *("truth", *QUICK, "median", "nlm", "tv", "wavelet", "bm4d", "careamics-n2v"),
        *("careamics-n2v2", "n2v", "n2v2", "n2s", "ssdn", "n2n", "supervised"),
    ),
    "atlas-160": (*QUICK, "bm4d", "n2v", "ssdn"),
    "atlas-400": (*QUICK, "bm4d", "n2v", "ssdn"),
    "strong": ("truth", *QUICK, "n2v", "n2v2", "ssdn"),
    "lines-40": (*QUICK, "n2v", "structn2v"),
    "bsd68": (*QUICK, "bm3d", "n2v", "ssdn"),
    "mousebrain_signal": ("noisy", "gaussian", "linear", "n2v", "ssdn"),
    "dendrite_correlated_noise": ("noisy", "linear", "n2v", "structn2v-auto", "structn2v-x4"),
}

NEEDED = {"careamics": "peer", "bm3d": "bm", "bm4d": "bm"}
"""Options without which a row cannot be made."""
KEYS = ("psnr", "psnr_slab", "estimated_psnr")


@dataclass(frozen=True)
class Cell:
    """What is asked for."""

    row: str
    column: str
    minutes: float
    seed: int
    crop: Sizes | None

    @property
    def label(self) -> str:
        """The column; a part of it is another one."""
        return (
            self.column if self.crop is None else f"{self.column}@{'x'.join(map(str, self.crop))}"
        )

    @property
    def name(self) -> str:
        """Of its file. Without a training, the minutes do not matter."""
        minutes = self.minutes if row_named(self.row).trains else 0
        return f"{self.row}.{self.label}.{minutes:g}.{self.seed}"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--out", type=Path, required=True, help="folder of the cells")
    made.add_argument("--data", type=Path, default=DATA, help="with volumes/ and images/")
    made.add_argument("--rows", help=f"of {', '.join(ROWS)}; n2s-1x4x4 is that partition")
    made.add_argument("--columns", help=f"of {', '.join(COLUMNS)}")
    made.add_argument("--subset", choices=["cpu"], help="what two cores can do in 90 minutes")
    made.add_argument(
        "--minutes", type=float, help=f"of a training [{MINUTES:g}; of the subset {CPU_MINUTES:g}]"
    )
    made.add_argument("--seed", type=int, default=0, help="of noise and training")
    made.add_argument("--device", default="auto")
    made.add_argument("--peer", type=Path, help="folder of CAREamics's environment; made")
    made.add_argument("--bm", type=Path, help="folder of BM3D's and BM4D's environment; made")
    made.add_argument("--crop", type=sizes, help="z,y,x: at most so much of a volume, for a look")
    made.add_argument("--table", action="store_true", help="only print the cells that are there")
    made.add_argument("--pictures", type=Path, help="folder: only draw a picture of each column")
    return made


def main() -> None:
    """Fill what is missing, or show what is there."""
    given = parser().parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.table:
        print(table(read_cells(given.out, FORMAT)))
    if given.pictures:
        draw_columns(given.pictures, given.out, read_cells(given.out, FORMAT))
    if not given.table and not given.pictures:
        sys.exit(fill(given))


def fill(given: argparse.Namespace) -> int:
    """Make what is missing; how many cells broke, which are missing still."""
    broken = 0
    for cell in cells(given):
        try:
            print(line(cell, filled(cell, given)), flush=True)
        except Exception:  # the others are worth having: a run may take hours
            print(f"{cell.label}, {cell.row}: broken\n{traceback.format_exc()}", flush=True)
            broken += 1
    return broken


def cells(given: argparse.Namespace) -> Iterator[Cell]:
    """Those that are asked for, fit, and can be made; says what is left out for want of a file."""
    columns = given.columns.split(",") if given.columns else list(CPU if given.subset else COLUMNS)
    minutes = given.minutes or (CPU_MINUTES if given.subset else MINUTES)
    for column in columns:
        if absent := missing(column, given.data):
            print(f"{column}: left out without {absent}")
            continue
        rows = CPU.get(column, ()) if given.subset else tuple(ROWS)
        for row in given.rows.split(",") if given.rows else rows:
            way = row_named(row)
            if kind_of(column) not in way.kinds.split():
                continue
            option = NEEDED.get(way.how)
            if option is not None and getattr(given, option) is None:
                print(f"{column}, {row}: left out without --{option}")
                continue
            yield Cell(row, column, minutes, given.seed, given.crop)


def filled(cell: Cell, given: argparse.Namespace) -> dict[str, Any]:
    """What is known of a cell, from its file or by making it."""
    file = given.out / f"{cell.name}.json"
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        if found.get("format") == FORMAT:
            return found
    slices: dict[str, np.ndarray] = {}
    found = made(cell, given, slices)
    if slices:
        np.savez_compressed(file.with_suffix(".npz"), **slices)
    temporary = file.with_suffix(".json.partial")
    temporary.write_text(json.dumps(found) + "\n")
    temporary.replace(file)
    return found


def made(cell: Cell, given: argparse.Namespace, slices: dict[str, np.ndarray]) -> dict[str, Any]:
    """A cell; slices of its outputs are put into ``slices``."""
    device = choose_device(given.device)
    trains = row_named(cell.row).trains
    found: dict[str, Any] = {"format": FORMAT, "row": cell.row, "column": cell.label}
    found |= {"seed": cell.seed, "minutes": cell.minutes if trains else None}
    found |= {"commit": commit(), "machine": machine(device), "outputs": {}}
    case = make_case(cell.column, given.data, cell.seed, cell.crop)
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as folder:
        means = Means(Path(folder), cell.minutes, cell.seed, device, given.peer, given.bm)
        try:
            for output in outputs(row_named(cell.row), case, means):
                found["outputs"][output.name] = output.facts | measure(output, case)
                slices[output.name] = middle_slice(output, case)
        except N2VScaleError as error:
            found["error"] = str(error)
    return found


def line(cell: Cell, found: dict[str, Any]) -> str:
    """For the terminal: the outputs of a cell."""
    parts = [f"{cell.label:<18} {cell.row:<16}"]
    for name, output in found["outputs"].items():
        best = next((output[k] for k in KEYS if output.get(k) is not None), None)
        text = "" if best is None else f" {best:.2f} dB"
        seconds = f" ({output['steps']} steps)" if "steps" in output else ""
        parts.append(f"{name}{text}{seconds}, {output['predict_s']:.1f} s")
    return "  ".join([*parts, *([found["error"]] if "error" in found else [])])


def commit() -> str:
    """That is measured; ``+`` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    here = Path(__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=here)
    return done.stdout.strip()


def machine(device: str) -> str:
    """Processor and cores, and the GPU where one is used."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [text.split(":")[1].strip() for text in lines if text.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    text = f"{available_cores()} cores of {name}"
    if device != "cuda":
        return text
    import torch

    return f"{torch.cuda.get_device_name()}, {text}"


if __name__ == "__main__":
    main()
