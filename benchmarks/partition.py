"""What the size of Noise2Self's cells costs and gives, at equal time.

    python benchmarks/partition.py --out cells --data data --minutes 3

One voxel of a cell is hidden at a time. Of small cells many voxels are hidden at once, so that a
prediction takes few passes, and the neighbours of a hidden voxel are hidden with it: the blind
prediction knows less. Rows of quality.py, with its files: what is there is not made again.
"""

from __future__ import annotations

import argparse
from math import prod
from pathlib import Path
from typing import Any

from quality import Cell, filled
from quality_columns import DATA, sizes
from quality_table import markdown

CELLS = "2x2x2,3x3x3,4x4x4,1x3x3,1x5x5,2x4x4,1x2x2"
MINUTES = 3.0


def main() -> None:
    """Fill what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--data", type=Path, default=DATA, help="with volumes/, images/")
    parser.add_argument("--columns", default="atlas-40", help="of quality.py")
    parser.add_argument("--cells", default=CELLS, help="partitions (z, y, x)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of a training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--crop", type=sizes, help="z,y,x: at most so much of it, for a look")
    parser.set_defaults(peer=None, bm=None)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for column in given.columns.split(","):
        found = {}
        for text in given.cells.split(","):
            cell = Cell(f"n2s-{text}", column, given.minutes, given.seed, given.crop)
            found[text] = filled(cell, given)
        titles = [
            "cell",
            "passes",
            "steps",
            "blind, dB",
            "posterior, dB",
            "blind, s",
            "posterior, s",
        ]
        rows = [line(text, made) for text, made in found.items()]
        print(f"{column}\n\n{markdown(titles, rows)}\n", flush=True)


def line(cell: str, made: dict[str, Any]) -> list[str]:
    """Of the table."""
    passes = prod(int(n) for n in cell.split("x"))
    blind = made["outputs"].get("plain", {})
    posterior = made["outputs"].get("posterior", {})
    return [
        *(cell, str(passes), str(blind.get("steps", made.get("error", "")))),
        *(_text(out.get("psnr"), ".2f") for out in (blind, posterior)),
        *(_text(out.get("predict_s"), ".1f") for out in (blind, posterior)),
    ]


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    main()
