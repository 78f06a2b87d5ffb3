"""The cells of quality.py as markdown tables and as pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from quality_columns import COLUMNS
from quality_rows import ROWS

Cell = dict[str, Any]
Line = dict[str, Any]
"""What is known of one output, and of the cell that it is of."""

NONE = "–"
PANEL_INCHES = 2.6
PANELS_ACROSS = 5


def read_cells(folder: Path, version: int) -> list[Cell]:
    """In the order of rows and columns; other formats are left out."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    cells = [cell for cell in found if cell.get("format") == version]
    return sorted(cells, key=_order)


def _order(cell: Cell) -> tuple[Any, ...]:
    column, row = cell["column"].split("@")[0], cell["row"]
    place = (_index(COLUMNS, column), cell["column"], _index(tuple(ROWS), row), row)
    return (*place, cell["minutes"] or 0, cell["seed"])


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def table(cells: Sequence[Cell]) -> str:
    """A table of PSNR over all columns, then one a column, then where and when."""
    columns = list(dict.fromkeys(cell["column"] for cell in cells))
    parts = [_overview(cells)]
    parts += [_of_column(name, [c for c in cells if c["column"] == name]) for name in columns]
    parts.append(_made_by(cells))
    return "\n\n".join(part for part in parts if part)


def lines_of(cells: Iterable[Cell]) -> dict[str, list[Line]]:
    """The outputs of several cells by their label: one for each seed."""
    lines: dict[str, list[Line]] = {}
    for cell in cells:
        for name, output in cell["outputs"].items():
            minutes = "" if cell["minutes"] is None else f", {cell['minutes']:g} min"
            more = "" if name == "plain" else f" +{name}"
            lines.setdefault(f"{cell['row']}{more}{minutes}", []).append(output)
    return lines


def _overview(cells: Sequence[Cell]) -> str:
    """PSNR of every row in every column with a truth."""
    known = [cell for cell in cells if any("psnr" in out for out in cell["outputs"].values())]
    columns = list(dict.fromkeys(cell["column"] for cell in known))
    rows: dict[str, dict[str, str]] = {}
    for column in columns:
        for label, lines in lines_of(c for c in known if c["column"] == column).items():
            if label != "truth":
                rows.setdefault(label, {})[column] = shown(lines, "psnr", "{:.2f}")
    filled = [[label, *(row.get(c, "") for c in columns)] for label, row in rows.items()]
    return "PSNR, dB\n\n" + markdown(["", *columns], filled) if filled else ""


def _of_column(name: str, cells: Sequence[Cell]) -> str:
    """Every measure of one column that any of its rows has."""
    lines = lines_of(cells)
    every = [line for several in lines.values() for line in several]
    shows = [(title, of) for title, of in MEASURES if any(of([line]) != NONE for line in every)]
    rows = [[label, *(of(several) for _, of in shows)] for label, several in lines.items()]
    failed = [f"{cell['row']}: {cell['error']}" for cell in cells if "error" in cell]
    titles = ["", *(title for title, _ in shows)]
    return "\n\n".join([f"### {name}", *([markdown(titles, rows)] if rows else []), *failed])


def shown(lines: Sequence[Line], key: str, form: str) -> str:
    """The mean over seeds, and half of the distance of the farthest two where there are several."""
    values = [line[key] for line in lines if line.get(key) is not None]
    if not values:
        return NONE
    text = form.format(float(np.mean(values)))
    return text if len(values) == 1 else f"{text} ± {form.format(np.ptp(values) / 2)}"


def _number(key: str, form: str) -> Callable[[Sequence[Line]], str]:
    return lambda lines: shown(lines, key, form)


def _several(key: str, form: str, axis: str | None = None) -> Callable[[Sequence[Line]], str]:
    """Of lists, or of dicts of lists, of the first seed."""

    def text(lines: Sequence[Line]) -> str:
        found = lines[0].get(key) or ()
        values = found.get(axis, ()) if isinstance(found, dict) and axis else found
        return " ".join(form.format(v) for v in values[:3]) or NONE

    return text


def _interval(lines: Sequence[Line]) -> str:
    """Of the first seed."""
    if "estimated_psnr" not in lines[0]:
        return NONE
    if lines[0]["estimated_psnr"] is None:
        return "error below what the noise's is known to"
    names = ("estimated_psnr", "estimated_psnr_low", "estimated_psnr_high")
    best, low, high = (lines[0][name] for name in names)
    texts = ["∞" if value is None else f"{value:.1f}" for value in (best, low, high)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


MEASURES: tuple[tuple[str, Callable[[Sequence[Line]], str]], ...] = (
    ("PSNR, dB", _number("psnr", "{:.2f}")),
    ("of slices 30–62", _number("psnr_slab", "{:.2f}")),
    ("SSIM", _number("ssim", "{:.4f}")),
    ("PSNR, estimated (95%)", _interval),
    ("residual along z, lags 1–3", _several("residual", "{:.2f}", "z")),
    ("along y", _several("residual", "{:.2f}", "y")),
    ("along x", _several("residual", "{:.2f}", "x")),
    ("residual with signal", _number("residual_with_signal", "{:.3f}")),
    ("Nyquist / all, dB", _number("checkerboard_db", "{:.1f}")),
    ("Nyquist / beside, dB", _number("nyquist_peak_db", "{:.1f}")),
    ("background std", _number("background_std", "{:.3g}")),
    ("background along x, lags 1–3", _several("background_x", "{:.2f}")),
    ("steps", _number("steps", "{:.0f}")),
    ("training, s", _number("train_s", "{:.0f}")),
    ("prediction, s", _number("predict_s", "{:.1f}")),
)


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _made_by(cells: Sequence[Cell]) -> str:
    def all_of(key: str) -> str:
        found = {cell[key] for cell in cells if cell[key] is not None}
        return ", ".join(
            f"{value:g}" if isinstance(value, float) else str(value) for value in sorted(found)
        )

    if not cells:
        return "There are no cells yet."
    return (
        f"Commit {all_of('commit')}; {all_of('machine')}; seeds {all_of('seed')}; minutes of a "
        f"training: {all_of('minutes') or 'none'}; {len(cells)} cells."
    )


def draw_columns(folder: Path, cells_folder: Path, cells: Sequence[Cell]) -> None:
    """A PNG a column: the same slice of every output, in one gray scale; needs matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    for column in dict.fromkeys(cell["column"] for cell in cells):
        panels: dict[str, np.ndarray] = {}
        for cell in cells:
            if cell["column"] == column:
                panels |= _slices(cells_folder, cell)
        if panels:
            _draw(folder / f"{column}.png", panels)


def _slices(folder: Path, cell: Cell) -> dict[str, np.ndarray]:
    """By what is written above them; of the first seed that is there."""
    minutes = cell["minutes"] or 0
    file = folder / f"{cell['row']}.{cell['column']}.{minutes:g}.{cell['seed']}.npz"
    if not file.exists():
        return {}
    found = {}
    with np.load(file) as slices:
        for label, lines in lines_of([cell]).items():
            name = "posterior" if "+posterior" in label else "plain"
            psnr = shown(lines, "psnr", "{:.2f} dB")
            found[label if psnr == NONE else f"{label}\n{psnr}"] = slices[name].astype(np.float32)
    return found


def _draw(path: Path, panels: dict[str, np.ndarray]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # The first is the truth where there is one, else the noisy data.
    low, high = np.percentile(next(iter(panels.values())), (0.5, 99.8))
    across = min(PANELS_ACROSS, len(panels))
    down = -(-len(panels) // across)
    height, width = next(iter(panels.values())).shape
    size = (PANEL_INCHES * across, down * (PANEL_INCHES * height / width + 0.45))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, (title, values) in zip(axes, panels.items(), strict=False):
        ax.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(title, fontsize=8)
    figure.savefig(path, dpi=110)
