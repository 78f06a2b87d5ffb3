"""Matplotlib's figures without a window, where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from n2v_scale.errors import ConfigError

DOTS = 110
"""An inch, of what is not a vector."""


def new_figure(inches: tuple[float, float], *, layout: Literal["constrained", "compressed"]) -> Any:
    """An empty Figure of this width and height.

    Raises
    ------
    ConfigError
        When matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("drawing needs matplotlib: pip install 'n2v-scale[report]'") from None
    figure = Figure(figsize=inches, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """As PNG, SVG, PDF or whatever else matplotlib writes, as the file's name says.

    Raises
    ------
    ConfigError
        When it writes no such file.
    """
    try:
        figure.savefig(path, dpi=DOTS)
    except ValueError as error:
        raise ConfigError(f"{path} cannot be drawn: {error}") from None
