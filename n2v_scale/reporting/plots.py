"""The report's plots: matplotlib's SVG, whose text and axes take the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from n2v_scale.calibration_plot import calibration_figure
from n2v_scale.diagnosis import Diagnosis
from n2v_scale.diagnosis_plot import diagnosis_figure
from n2v_scale.errors import ConfigError
from n2v_scale.figures import new_figure
from n2v_scale.filter_card import Calibration
from n2v_scale.reporting.block_map import FAILED, MISSING, BlockMap
from n2v_scale.reporting.places import Place
from n2v_scale.reporting.spectra import Spectrum
from n2v_scale.self_evaluation import SelfEvaluation

INK = "#010203"
"""What becomes the page's own colour of text."""
COLOURS = {
    "noisy": "#7d8797",
    "denoised": "#2f7fd1",
    "reference": "#2e9e5b",
    "residual": "#d9730d",
    "noise": "#b85fc4",
}
"""All at least 3:1 against white and against the dark page."""
CYCLE = list(COLOURS.values())[1:]
MOST_LAYERS = 6
"""Panels of a map of blocks; of more layers several share one."""
FEWEST_LOOKS = 2
"""At the losses that make a curve."""
FEW_LOOKS = 12
"""Of which each is marked."""
DOTS = 160
"""An inch, of what is drawn as a picture within a plot."""
LISTED = 300
"""Blocks that are marked one by one; of more, all marks are one picture."""
WIDE = 7.2
"""Inches."""
PIXELS = 1.45
"""On the page for a point on the plot."""
NO_MATPLOTLIB = "the report needs matplotlib and Jinja: pip install 'n2v-scale[report]'"


def check_matplotlib() -> None:
    """Refuse to begin where nothing can be drawn.

    Raises
    ------
    ConfigError
        That names what to install.
    """
    if find_spec("matplotlib") is None or find_spec("jinja2") is None:
        raise ConfigError(NO_MATPLOTLIB)


def training_plot(history: Sequence[Mapping[str, float]]) -> str | None:
    """The training's and the held-out loss by step; None where nothing was trained in steps."""
    rows = [row for row in history if "step" in row]
    if len(rows) < FEWEST_LOOKS:
        return None

    def draw(figure: Any) -> None:
        ax = figure.subplots()
        for name, label, colour in (
            ("training", "training", COLOURS["noisy"]),
            ("held_out", "held out", COLOURS["denoised"]),
        ):
            known = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
            if known:
                mark = "o-" if len(known) <= FEW_LOOKS else "-"
                ax.plot(*zip(*known, strict=True), mark, label=label, color=colour, markersize=3)
        held = [(row["held_out"], row["step"]) for row in rows if row.get("held_out") is not None]
        if held:
            least, step = min(held)
            label = f"kept: {least:.4g}"
            ax.plot([step], [least], "o", color=COLOURS["residual"], label=label)
        _frame_losses(ax, rows)
        ax.set_xlabel("step")
        ax.set_ylabel("loss")
        ax.legend()

    return _svg(draw, (WIDE, 3.0))


def _frame_losses(ax: Any, rows: Sequence[Mapping[str, float]]) -> None:
    """Without the first, which is that of a network that knows nothing yet."""
    values = [
        row[n] for row in rows[1:] for n in ("training", "held_out") if row.get(n) is not None
    ]
    finite = np.array([v for v in values if np.isfinite(v)])
    if finite.size > 2:
        low, high = float(finite.min()), float(np.quantile(finite, 0.98))
        if high > low:
            ax.set_ylim(low - 0.08 * (high - low), high + 0.15 * (high - low))


def calibration_plot(calibration: Calibration) -> str:
    """The donut's loss by the filter's parameter."""
    return _svg_of(lambda: calibration_figure(calibration))


def noise_plot(diagnosis: Diagnosis) -> str:
    """Variance over mean, and the correlation of the noise along each axis."""
    return _svg_of(lambda: diagnosis_figure(diagnosis))


def residual_plot(estimate: SelfEvaluation) -> str | None:
    """The correlation of what was taken away with itself, by lag and axis."""
    if not any(estimate.residual.values()):
        return None

    def draw(figure: Any) -> None:
        ax = figure.subplots()
        ax.axhspan(-0.05, 0.05, color=COLOURS["noisy"], alpha=0.2, linewidth=0, label="±0.05")
        for (axis, lags), colour in zip(estimate.residual.items(), CYCLE, strict=False):
            if lags:
                steps = np.arange(1, len(lags) + 1)
                ax.plot(steps, lags, "o-", color=colour, label=f"along {axis}")
        largest = max((abs(v) for lags in estimate.residual.values() for v in lags), default=0)
        ax.set_ylim(-max(0.3, 1.1 * largest), max(0.3, 1.1 * largest))
        ax.set_xticks(np.arange(1, 1 + max(map(len, estimate.residual.values()))))
        ax.set_xlabel("lag, voxels")
        ax.set_ylabel("correlation")
        ax.legend()

    return _svg(draw, (WIDE / 1.6, 3.0))


def spectrum_plot(
    spectra: Mapping[str, Spectrum], noise: float | None, voxel: float, unit: str
) -> str | None:
    """Power by spatial frequency of the XY planes; ``noise`` is the variance of the noise."""
    if not any((found.power > 0).any() for found in spectra.values()):
        return None

    def draw(figure: Any) -> None:
        ax = figure.subplots()
        for name, found in spectra.items():
            style = "--" if name == "residual" else "-"
            seen = found.power > 0
            frequency, power = found.frequency[seen] / voxel, found.power[seen]
            ax.plot(frequency, power, style, color=COLOURS[name], label=name)
        ax.set_yscale("log")
        if noise is not None and noise > 0:
            ax.axhline(noise, color=COLOURS["noise"], linestyle=":", label="expected of the noise")
        ax.set_xlabel(f"spatial frequency, cycles/{unit}", parse_math=False)
        ax.set_ylabel("power")
        ax.legend()

    return _svg(draw, (WIDE, 3.2))


def block_plot(found: BlockMap) -> str:
    """A row for the time and one for the estimated error, a panel for each layer of blocks."""
    groups = np.array_split(np.arange(found.state.shape[0]), min(MOST_LAYERS, len(found.state)))
    rows = [("seconds", found.seconds), ("error (RMSE)", found.rmse)]
    rows = [(name, grid) for name, grid in rows if np.isfinite(grid).any()] or rows[:1]
    _, high, wide = found.state.shape
    size = min(2.4, WIDE / len(groups))

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(rows), len(groups), squeeze=False)
        for row, (name, grid) in zip(axes, rows, strict=True):
            _draw_layers(figure, row, groups, grid, found, name)

    height = min(3.0, max(0.9, size * high / wide)) + 0.55
    return _svg(draw, (size * len(groups) + 1.2, height * len(rows)))


def _draw_layers(
    figure: Any, row: Any, groups: Sequence[Any], grid: Any, found: BlockMap, name: str
) -> None:
    finite = grid[np.isfinite(grid)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    for ax, layers in zip(row, groups, strict=True):
        with np.errstate(invalid="ignore"):
            known = np.isfinite(grid[layers])
            total = np.where(known, grid[layers], 0).sum(axis=0)
            mean = np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
        ax.set_facecolor("none")
        image = ax.imshow(mean, cmap="viridis", vmin=low, vmax=high if high > low else low + 1)
        state = found.state[layers].max(axis=0)
        inches = ax.get_window_extent().width / figure.dpi / state.shape[1]
        for what, mark, colour in ((FAILED, "x", "#e5484d"), (MISSING, "s", COLOURS["noisy"])):
            y, x = np.nonzero(state == what)
            (drawn,) = ax.plot(x, y, mark, color=colour, markerfacecolor="none")
            drawn.set(markersize=min(5, 40 * inches), rasterized=len(x) > LISTED)
        first, last = layers[0] * found.block[0], (layers[-1] + 1) * found.block[0]
        ax.set_title(f"z {first} to {min(last, found.extent[0]) - 1}", fontsize=8)
        ax.set_xticks([])
        ax.set_yticks([])
    figure.colorbar(image, ax=list(row), label=name, shrink=0.9, aspect=12)


def overview_plot(image: Any, places: Sequence[Place], shape: tuple[int, int]) -> str:
    """Where the places lie on a coarse picture (y, x) of the whole volume of ``shape``."""

    def draw(figure: Any) -> None:
        from matplotlib.patches import Rectangle

        ax = figure.subplots()
        dark, light = (float(v) for v in np.percentile(image, [0.5, 99.8]))
        extent = (0, shape[1], shape[0], 0)
        light = light if light > dark else dark + 1
        ax.imshow(image, cmap="gray", vmin=dark, vmax=light, extent=extent, interpolation="nearest")
        for number, place in enumerate(places, 1):
            (_, y, x), (_, high, wide) = place.box.start, place.box.shape
            box = Rectangle((x, y), wide, high, fill=False, edgecolor="#ffb224", linewidth=1.2)
            ax.add_patch(box)
            _, cy, cx = place.centre
            ax.text(cx, cy, str(number), color="#ffb224", ha="center", va="center", weight="bold")
        ax.set_xlabel("x, voxels")
        ax.set_ylabel("y, voxels")

    return _svg(draw, (4.2, min(5.5, max(2.0, 3.4 * shape[0] / shape[1] + 0.5))))


def _svg(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    def make() -> Any:
        figure = new_figure(size, layout="constrained")
        draw(figure)
        return figure

    return _svg_of(make)


_drawn = iter(range(1, 10**9))


def _svg_of(make: Callable[[], Any]) -> str:
    """An ``<svg>`` element, whose names meet no other's on the page."""
    with _themed():
        figure, text = make(), io.StringIO()
        figure.savefig(text, format="svg", transparent=True, dpi=DOTS, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="image[0-9a-f]+"', "", svg)  # equal pictures have equal names
    mark = f"f{next(_drawn)}-"
    svg = re.sub(r'\bid="', f'id="{mark}', svg)
    svg = re.sub(r'href="#', f'href="#{mark}', svg)
    svg = svg.replace("url(#", f"url(#{mark}")
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opened, svg, count=1)


def _opened(tag: re.Match[str]) -> str:
    """The opening tag, as wide as it was drawn and no wider."""
    points = float(tag[1].split()[2])
    return f'<svg viewBox="{tag[1]}" style="--wide: {points * PIXELS:.0f}px">'


@contextmanager
def _themed() -> Iterator[None]:
    import matplotlib as mpl
    from cycler import cycler

    settings: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    )
    settings |= {
        "svg.fonttype": "none",
        "svg.hashsalt": "n2v-scale",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        "axes.prop_cycle": cycler(color=CYCLE),
    }
    with mpl.rc_context(settings):
        yield
