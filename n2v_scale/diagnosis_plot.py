"""A picture of a diagnosis: the variance of the noise over the mean, and its correlation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from n2v_scale.diagnosis import ChannelDiagnosis, Diagnosis
from n2v_scale.figures import new_figure, save_figure

MOST_POINTS = 20_000
INCHES = 4.5
GRAY = "#7d8797"
"""Seen on white and on black."""


def draw_diagnosis(path: Path, diagnosis: Diagnosis) -> None:
    """Write a picture (PNG, SVG or PDF, as its name says): a row a channel.

    The mean-variance plot is left, the correlations right.

    Raises
    ------
    ConfigError
        When matplotlib is not installed, or writes no such file.
    """
    save_figure(diagnosis_figure(diagnosis), path)


def diagnosis_figure(diagnosis: Diagnosis) -> Any:
    """The same as matplotlib's Figure; raises as :func:`draw_diagnosis` does."""
    rows = len(diagnosis.channels)
    figure = new_figure((2.2 * INCHES, 0.8 * INCHES * rows), layout="compressed")
    axes = figure.subplots(rows, 2, squeeze=False)
    for c, channel in enumerate(diagnosis.channels):
        _draw_variance(axes[c, 0], channel)
        _draw_correlation(axes[c, 1], channel)
        axes[c, 0].set_title(f"channel {c}: noise of sampled cells")
        axes[c, 1].set_title("correlation of the noise")
    return figure


def _draw_variance(ax: Any, channel: ChannelDiagnosis) -> None:
    means, variances = channel.cells
    step = 1 + means.size // MOST_POINTS
    cloud = {"markersize": 2, "alpha": 0.4, "color": GRAY, "rasterized": True}
    ax.plot(means[::step], variances[::step], ".", **cloud)
    if channel.noise is not None and means.size:
        x = np.linspace(float(means.min()), float(means.max()), 100)
        label = f"gain {channel.noise.gain:.3g}, read noise {channel.noise.read_noise:.3g}"
        ax.plot(x, channel.noise.variance(x), color="C3", label=label)
        ax.legend(loc="upper left")
    if variances.size:
        low, high = np.quantile(means, [0, 0.995])
        if high > low:
            ax.set_xlim(low, high)
        ax.set_ylim(0, 1.5 * max(float(np.quantile(variances, 0.98)), 1e-30))
    ax.set_xlabel("mean")
    ax.set_ylabel("variance")


def _draw_correlation(ax: Any, channel: ChannelDiagnosis) -> None:
    for found in channel.correlation:
        if found.lags:
            lags = np.arange(1, len(found.lags) + 1)
            ax.errorbar(lags, found.lags, found.errors, marker="o", capsize=2, label=found.axis)
    ax.axhline(0, color=GRAY, linewidth=1)
    ax.set_ylim(-0.5, 1)
    ax.set_xlabel("lag, voxels")
    if any(found.lags for found in channel.correlation):
        ax.legend(title="along")
