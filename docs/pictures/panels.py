"""Rows of small images under each other, every voxel a whole number of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 100
GAP, TEXT, LABEL = 6, 26, 28
"""Pixels between images, for a line of text, for a row's label."""
POINTS = 13.0
BAR_UM = 5
LEVELS = {"gray": 128, "RdBu_r": 33}
"""Enough to see by, in fewer bytes; odd, so that one of them, white, is no error."""

Plane = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Row:
    """Images (y, x) of one size in one range of values."""

    images: tuple[Plane | None, ...]
    low: float
    high: float
    titles: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    label: str = ""
    colours: str = "gray"
    note: str = ""
    """Stands where there is no image."""

    def height(self, image: int) -> int:
        """In pixels, with its texts."""
        return image + TEXT * (bool(self.titles) + bool(self.captions)) + GAP


def grey_row(
    planes: dict[str, Plane],
    scores: dict[str, str],
    *,
    label: str = "",
    titled: bool = True,
    brightest: float = 99.7,
) -> Row:
    """All in the grey range of the truth, white from a percentile on; ``scores`` stand below."""
    low, high = np.percentile(planes["truth"], [0.5, brightest])
    captions = tuple(scores[title] for title in planes)
    titles = tuple(planes) if titled else ()
    return Row(tuple(planes.values()), low, high, titles, captions, label)


def error_row(planes: dict[str, Plane]) -> Row:
    """Each less the truth: red is too bright, blue too dark, white is right."""
    truth = planes["truth"]
    errors = {title: plane - truth for title, plane in planes.items() if title != "truth"}
    most = float(np.percentile(np.abs(np.stack(list(errors.values()))), 99))
    note = f"error\nred: too bright\nblue: too dark\nfull: {most:.0f} counts"
    return Row((*errors.values(), None), -most, most, colours="RdBu_r", note=note)


def draw(path: Path, rows: Sequence[Row], *, zoom: int, voxel_um: float) -> None:
    """Write the PNG, with a scale bar in the truth, where there is no noise to hide it."""
    first = rows[0].images[0]
    assert first is not None
    side = zoom * first.shape[0]
    left = LABEL * any(row.label for row in rows)
    columns = len(rows[0].images)
    page = _Page(left + columns * (side + GAP) - GAP, sum(row.height(side) for row in rows) - GAP)
    top = 0
    for row in rows:
        _draw_row(page, row, left, top, side)
        top += row.height(side)
    last = left + (columns - 1) * (side + GAP)
    page.bar(last + 8, TEXT * bool(rows[0].titles) + side - 10, BAR_UM / voxel_um * zoom)
    page.save(path)


def _draw_row(page: _Page, row: Row, left: int, top: int, side: int) -> None:
    above = TEXT * bool(row.titles)
    for number, image in enumerate(row.images):
        x = left + number * (side + GAP)
        if row.titles:
            page.text(x + side / 2, top + TEXT / 2, row.titles[number])
        if row.captions:
            page.text(x + side / 2, top + above + side + TEXT / 2, row.captions[number])
        if image is None:
            page.text(x + side / 2, top + above + side / 2, row.note)
        else:
            page.image(x, top + above, side, image, row)
    if row.label:
        page.text(LABEL / 2, top + above + side / 2, row.label, rotation=90)


class _Page:
    """A figure measured in pixels from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)

    def image(self, x: float, y: float, side: int, values: Plane, row: Row) -> None:
        """A square of ``side`` pixels."""
        place = (x / self.width, 1 - (y + side) / self.height)
        ax = self.figure.add_axes((*place, side / self.width, side / self.height))
        ax.set_axis_off()
        ax.imshow(
            values,
            cmap=colormaps[row.colours].resampled(LEVELS[row.colours]),
            vmin=row.low,
            vmax=row.high,
            interpolation="nearest",
            aspect="auto",
        )

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Centred on a point."""
        style = {"size": POINTS, "ha": "center", "va": "center", "linespacing": 1.5} | style
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def bar(self, x: float, y: float, length: float) -> None:
        """A scale bar that begins at a point, with its length above."""
        ax = self.figure.add_axes((0, 0, 1, 1), zorder=10)
        ax.set_axis_off()
        ax.set_xlim(0, self.width)
        ax.set_ylim(self.height, 0)
        for colour, wide in (("black", 7), ("white", 4)):
            ax.plot([x, x + length], [y, y], color=colour, linewidth=wide, solid_capstyle="butt")
        box = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "edgecolor": "none"}
        ax.text(x, y - 8, f"{BAR_UM} µm", color="white", size=POINTS - 1, va="bottom", bbox=box)

    def save(self, path: Path) -> None:
        """Without an alpha channel, which nobody sees."""
        self.canvas.draw()
        picture = Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")
        picture.save(path, optimize=True)
        print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1e3:.0f} kB")
