"""A picture of a calibration: the donut's loss against the parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n2v_scale.figures import new_figure, save_figure
from n2v_scale.filter_card import Calibration

INCHES = (5.2, 3.8)


def draw_calibration(path: Path, calibration: Calibration) -> None:
    """Write a picture (PNG, SVG or PDF, as its name says): a panel a channel.

    Full lines are the losses with voxels hidden, with the chosen value marked; dashed lines the
    mean square of what the filter takes away. Both are over the variance of the noise.

    Raises
    ------
    ConfigError
        When matplotlib is not installed, or writes no such file.
    """
    save_figure(calibration_figure(calibration), path)


def calibration_figure(calibration: Calibration) -> Any:
    """The same as matplotlib's Figure.

    Raises
    ------
    ConfigError
        When matplotlib is not installed.
    """
    curves = calibration.curves
    figure = new_figure((INCHES[0] * len(curves), INCHES[1]), layout="constrained")
    for ax, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        unit = curve.noise**2
        donut = [loss / unit for loss in curve.donut]
        ax.plot(curve.values, donut, "o-", label="voxels hidden (donut)")
        ax.plot(curve.values, [r / unit for r in curve.residual], "s--", label="nothing hidden")
        ax.plot([curve.best], [min(donut)], "*", markersize=14, label=f"least: {curve.best:g}")
        ax.set_xscale("log")
        ax.set_xticks(curve.values[::2], [f"{value:g}" for value in curve.values[::2]])
        ax.minorticks_off()
        ax.set_xlabel(calibration.parameter)
        ax.set_ylabel("mean square difference / noise variance")
        ax.set_title(f"{calibration.filter}, channel {curve.channel}")
        ax.legend()
    return figure
