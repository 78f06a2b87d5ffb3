"""The loss of a classical filter with and without hidden voxels, beside its true error.

    python benchmarks/donut.py curves.svg
    python benchmarks/donut.py curves.svg --data data --column atlas-40

After Figure 2 of Noise2Self (Batson and Royer 2019): without hiding, the loss is least where the
filter does nothing; with voxels hidden it is the true error and the noise's variance, and least
where that is. All in variances of the noise, on one box from the middle; needs matplotlib.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from quality_columns import DATA, make_case, sizes

from n2v_scale.classical import FILTERS, axis_ratio
from n2v_scale.classical.base import Filter
from n2v_scale.donut import hidden_sites, hide

BOX = (32, 96, 96)
CURVES = {
    "hidden_loss": ("voxels hidden: loss - 1", "o-"),
    "hidden_error": ("voxels hidden: true error", "o:"),
    "seen_loss": ("nothing hidden: loss", "s--"),
    "seen_error": ("nothing hidden: true error", "s:"),
}


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plot", type=Path, help="SVG, PNG or PDF to write")
    parser.add_argument("--data", type=Path, default=DATA, help="with volumes/")
    parser.add_argument("--column", default="simulated", help="of quality.py, with a truth")
    parser.add_argument("--filters", default="gaussian,median,tv,nlm")
    parser.add_argument("--crop", type=sizes, default=BOX, help="z,y,x")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    case = make_case(given.column, given.data, given.seed, given.crop)
    if case.truth is None:
        parser.error(f"the truth of {given.column} is not known")
    ratio = axis_ratio(case.noisy.shape[1:], case.voxel_size)
    found = {}
    for name in given.filters.split(","):
        filters = [FILTERS[name](value, ratio) for value in FILTERS[name].candidates]
        rng = np.random.default_rng(given.seed)
        found[name] = curves(case.noisy[0], case.truth[0], filters, rng)
        show(name, filters, found[name])
    draw(given.plot, found, {name: FILTERS[name] for name in found})


def curves(
    noisy: np.ndarray, truth: np.ndarray, filters: list[Filter], rng: np.random.Generator
) -> dict[str, list[float]]:
    """Of every filter, mean squares at the hidden voxels in variances of the noise."""
    noise = float((noisy.astype(np.float64) - truth).std())
    middle = float(truth.mean())
    values = ((noisy - middle) / noise).astype(np.float32)
    clean = ((truth - middle) / noise).astype(np.float32)
    sites = hidden_sites(values.shape)
    hollow = hide(values, sites, filters[0].ratio, rng)
    own = float(np.square(values - clean)[sites].mean())
    found: dict[str, list[float]] = {name: [] for name in CURVES}
    for one in filters:
        hidden, seen = one(hollow)[sites], one(values)[sites]
        found["hidden_loss"].append(_mean_square(hidden, values[sites]) - own)
        found["hidden_error"].append(_mean_square(hidden, clean[sites]))
        found["seen_loss"].append(_mean_square(seen, values[sites]))
        found["seen_error"].append(_mean_square(seen, clean[sites]))
    return found


def _mean_square(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())


def show(name: str, filters: list[Filter], found: dict[str, list[float]]) -> None:
    print(f"{name}: {filters[0].parameter}")
    print("  " + "  ".join(f"{title:>26}" for title in ("value", *(t for t, _ in CURVES.values()))))
    for number, one in enumerate(filters):
        row = (found[key][number] for key in CURVES)
        print("  " + "  ".join([f"{one.value:26g}", *(f"{value:26.4f}" for value in row)]))
    chosen, best = (int(np.argmin(found[key])) for key in ("hidden_loss", "seen_error"))
    behind = 10 * np.log10(found["seen_error"][chosen] / found["seen_error"][best])
    values = f"{filters[chosen].value:g}, best {filters[best].value:g}"
    print(f"  chosen {values}: {behind:.2f} dB behind\n")


def draw(path: Path, found: dict[str, dict[str, list[float]]], filters: dict[str, Any]) -> None:
    """A panel a filter."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(found), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for ax, (name, lines) in zip(axes, found.items(), strict=True):
        values = filters[name].candidates
        for key, (label, style) in CURVES.items():
            ax.plot(values, lines[key], style, label=label, markersize=4)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(filters[name].parameter)
        ax.set_ylabel("mean square / noise variance")
        ax.set_title(name)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
