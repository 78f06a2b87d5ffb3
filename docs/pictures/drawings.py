"""The drawings of docs/how.md.

    python docs/pictures/drawings.py

Their colours follow the reader: dark where the page, or alone the system, is dark.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
STYLE = """
svg.drawing { --ink: #263238; --soft: #90a4ae; --fill: #eceff1; --one: #00897b; --two: #ef6c00; }
[data-md-color-scheme="slate"] svg.drawing {
  --ink: #eceff1; --soft: #78909c; --fill: #37474f; --one: #4db6ac; --two: #ffb74d; }
@media (prefers-color-scheme: dark) { svg.drawing:root {
  --ink: #eceff1; --soft: #78909c; --fill: #37474f; --one: #4db6ac; --two: #ffb74d;
  background: #1e2129; } }
svg.drawing text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg.drawing .small { font-size: 11.5px; }
svg.drawing .bold { font-weight: 600; }
svg.drawing .one { fill: var(--one); } svg.drawing .two { fill: var(--two); }
svg.drawing .line { fill: none; stroke: var(--ink); stroke-width: 1.5; }
svg.drawing .thin { fill: none; stroke: var(--soft); stroke-width: 1; }
svg.drawing .plain { fill: var(--fill); stroke: var(--soft); stroke-width: 1; }
svg.drawing .one-line { fill: none; stroke: var(--one); stroke-width: 3; }
svg.drawing .two-line { fill: none; stroke: var(--two); stroke-width: 3; }
svg.drawing .one-soft { fill: var(--one); fill-opacity: 0.25; }
svg.drawing .two-soft { fill: var(--two); fill-opacity: 0.25; }
svg.drawing .dashed { stroke-dasharray: 6 4; }
svg.drawing .head { fill: var(--ink); }
"""


class Drawing:
    """Shapes one after another; x to the right, y down, in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self.shapes: list[str] = []

    def box(self, x: float, y: float, wide: float, high: float, kind: str, more: str = "") -> None:
        """A rectangle."""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" class="{kind}"{more}/>'
        )

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """A line of words, whose baseline is at y."""
        named = f' class="{kind}"' if kind else ""
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{named}>{escape(words)}</text>'
        )

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """A line with a head at its end; along one axis."""
        across, down = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
        self.shapes.append(f'<path d="M{x:g} {y:g}L{to_x:g} {to_y:g}" class="line"/>')
        back_x, back_y = to_x - 9 * across, to_y - 9 * down
        side_x, side_y = 5 * abs(down), 5 * abs(across)
        self.shapes.append(
            f'<path d="M{to_x:g} {to_y:g}L{back_x - side_x:g} {back_y - side_y:g}'
            f'L{back_x + side_x:g} {back_y + side_y:g}Z" class="head"/>'
        )

    def grid(self, x: float, y: float, columns: int, rows: int, cell: float, kind: str) -> None:
        """Squares side by side."""
        for row in range(rows):
            for column in range(columns):
                self.box(x + column * cell, y + row * cell, cell, cell, kind)

    def svg(self) -> str:
        """The file."""
        width, height = self.size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" role="img" '
            f'viewBox="0 0 {width} {height}"><title>{escape(self.title)}</title>'
            f"<style>{STYLE}</style>\n" + "\n".join(self.shapes) + "\n</svg>\n"
        )


def greys(rows: int, columns: int, noise: float, seed: int = 4) -> list[list[float]]:
    """A bright line through the dark, with noise: 0 to 1."""
    draw = random.Random(seed)
    return [
        [
            min(1.0, max(0.0, 0.8 - 0.22 * abs(row - column) + draw.gauss(0, noise)))
            for column in range(columns)
        ]
        for row in range(rows)
    ]


def voxels(drawing: Drawing, x: float, y: float, cell: float, values: list[list[float]]) -> None:
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            grey = f' style="fill:rgb({",".join([f"{30 + 200 * value:.0f}"] * 3)})"'
            drawing.box(x + column * cell, y + row * cell, cell, cell, "thin", grey)


def blind_spot() -> Drawing:
    drawing = Drawing(760, 250, "The blind spot")
    noisy = greys(7, 7, 0.16)
    cell, top = 22, 46
    hidden = [row[:] for row in noisy]
    hidden[3][3] = noisy[4][2]
    for x, title, values in (
        (20, "what the camera saw", noisy),
        (224, "what the network is given", hidden),
    ):
        voxels(drawing, x, top, cell, values)
        drawing.text(x + 3.5 * cell, 30, title, anchor="middle")
        kind = "two-line" if x == 20 else "one-line"
        drawing.box(x + 3 * cell, top + 3 * cell, cell, cell, kind)
    drawing.arrow(180, 123, 216, 123)
    drawing.arrow(384, 123, 424, 123)
    drawing.box(430, 88, 96, 70, "plain", ' rx="8"')
    drawing.text(478, 128, "network", "bold", "middle")
    drawing.arrow(526, 123, 562, 123)
    drawing.box(570, 108, 30, 30, "thin", ' style="fill:rgb(190,190,190)"')
    drawing.box(570, 108, 30, 30, "one-line")
    drawing.text(585, 96, "its estimate", "one", "middle")
    drawing.text(655, 120, "compared", anchor="middle")
    drawing.text(655, 136, "with", anchor="middle")
    drawing.shapes.append('<path d="M97 136L97 226L728 226L728 142" class="line dashed"/>')
    grey = f"{30 + 200 * noisy[3][3]:.0f}"
    drawing.box(713, 108, 30, 30, "thin", f' style="fill:rgb({grey},{grey},{grey})"')
    drawing.box(713, 108, 30, 30, "two-line")
    drawing.text(724, 96, "the voxel", "two", "middle")
    drawing.text(301, 218, "the middle voxel is hidden by a neighbour's value", "small", "middle")
    return drawing


def j_invariance() -> Drawing:
    drawing = Drawing(760, 272, "J-invariance")
    cell, top = 22, 46
    noisy = greys(7, 7, 0.16, seed=9)
    inside = {(row, column) for row in (1, 3, 5) for column in (1, 3, 5)}
    voxels(drawing, 20, top, cell, noisy)
    for row, column in sorted(inside):
        drawing.box(20 + column * cell, top + row * cell, cell, cell, "plain")
        middle = 20 + (column + 0.5) * cell, top + (row + 0.7) * cell
        drawing.text(*middle, "?", "small two bold", "middle")
    drawing.text(97, 30, "all voxels but J", anchor="middle")
    drawing.arrow(182, 123, 218, 123)
    drawing.box(224, 88, 96, 70, "plain", ' rx="8"')
    drawing.text(272, 128, "f", "bold", "middle")
    drawing.arrow(320, 123, 356, 123)
    clean = greys(7, 7, 0.0)
    for x, values, title, kind in (
        (366, clean, "answer within J", "one-line"),
        (580, noisy, "noisy voxels of J", "two-line"),
    ):
        drawing.text(x + 3.5 * cell, 30, title, anchor="middle")
        drawing.box(x, top, 7 * cell, 7 * cell, "thin")
        for row, column in sorted(inside):
            only = f' style="fill:rgb({",".join([f"{30 + 200 * values[row][column]:.0f}"] * 3)})"'
            drawing.box(x + column * cell, top + row * cell, cell, cell, "thin", only)
            drawing.box(x + column * cell, top + row * cell, cell, cell, kind, ' rx="2"')
    drawing.text(550, 128, "–", "bold", "middle")
    drawing.text(330, 240, "mean of the squared difference", "bold", "end")
    drawing.text(344, 240, "=")
    drawing.text(366, 240, "error to the truth", "one bold")
    drawing.text(520, 240, "+")
    drawing.text(548, 240, "variance of the noise", "two bold")
    drawing.text(366, 260, "a better f lowers it", "small")
    drawing.text(548, 260, "the same for every f", "small")
    return drawing


def blocks() -> Drawing:
    drawing = Drawing(760, 316, "Chunks, shards and blocks")
    left, top, cell = 20, 40, 15
    drawing.text(left, 26, "a volume", "bold")
    drawing.grid(left, top, 16, 16, cell, "plain")
    shard, block = 4 * cell, 8 * cell
    drawing.box(left + block, top, block, block, "one-soft")
    drawing.box(left + 4 * cell, top + 12 * cell, shard, shard, "two-soft")
    for row in range(4):
        for column in range(4):
            drawing.box(left + column * shard, top + row * shard, shard, shard, "line")
    for row in range(2):
        for column in range(2):
            drawing.box(left + column * block, top + row * block, block, block, "one-line")
    words = (
        (70, "block", "one", "one task for one worker,", "which alone writes its shards"),
        (150, "shard", "two", "one file, or one object of a store,", "replaced in one step"),
        (230, "chunk", "", "what is compressed, and read at once", ""),
    )
    for y, title, kind, first, second in words:
        drawing.text(396, y, title, f"bold {kind}".strip())
        drawing.text(460, y, first)
        drawing.text(460, y + 20, second)
    drawing.box(350, 54, 32, 32, "one-soft")
    drawing.box(350, 54, 32, 32, "one-line")
    drawing.box(354, 138, 24, 24, "two-soft")
    drawing.box(354, 138, 24, 24, "line")
    drawing.box(358, 218, 15, 15, "plain")
    drawing.text(left, 304, "4 chunks to a shard and 2 shards to a block along each axis", "small")
    return drawing


def halo() -> Drawing:
    drawing = Drawing(760, 300, "Halo and tiles")
    left, top, side, reach = 40, 50, 90, 30
    drawing.text(left, 26, "what is read for one tile", "bold")
    for row in range(2):
        for column in range(3):
            drawing.box(left + column * side, top + 20 + row * side, side, side, "plain")
    x, y = left + side, top + 20
    drawing.box(x - reach, y, side + 2 * reach, side + reach, "two-soft")
    drawing.box(x - reach, y, side + 2 * reach, side + reach, "two-line dashed")
    drawing.box(x, y, side, side, "one-soft")
    drawing.box(x, y, side, side, "one-line")
    drawing.text(x + side / 2, y + side / 2 + 5, "core", "one bold", "middle")
    drawing.text(x + side / 2, y + side + 20, "halo", "two bold", "middle")
    drawing.text(left, top + 12, "face of the volume: nothing is added here", "small")
    drawing.box(left, top + 20, 3 * side, 2 * side, "line")
    start = 430
    drawing.text(start, 26, "what is written", "bold")
    for row in range(2):
        for column in range(3):
            kind = "one-soft" if (row, column) == (0, 1) else "plain"
            drawing.box(start + column * side, top + 20 + row * side, side, side, kind)
            drawing.box(start + column * side, top + 20 + row * side, side, side, "one-line")
    drawing.arrow(left + 3 * side + 30, top + 20 + side, start - 20, top + 20 + side)
    drawing.text(start, top + 222, "Cores meet: every voxel is written once, and has", "small")
    drawing.text(start, top + 240, "seen all that the network can see.", "small")
    drawing.text(left, top + 222, "The halo is as wide as the network's reach.", "small")
    return drawing


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "blind_spot": blind_spot,
    "j_invariance": j_invariance,
    "blocks": blocks,
    "halo": halo,
}


def main() -> None:
    for name, drawn in DRAWINGS.items():
        (HERE / f"{name}.svg").write_text(drawn().svg())


if __name__ == "__main__":
    main()
