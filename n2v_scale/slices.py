"""A picture of the same XY and XZ slices of several volumes, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.figures import new_figure, save_figure

INCHES = 4.2


def draw_slices(
    path: Path,
    volumes: Mapping[str, npt.NDArray[Any]],
    voxel_size: tuple[float, float, float],
) -> None:
    """Write a picture: a column a volume, the middle XY slice above, the middle XZ slice below.

    All columns share the gray scale of the last one (its 0.5th to 99.8th percentile); XZ has the
    voxels' true proportions.

    Parameters
    ----------
    volumes
        Title → (z, y, x), all of one shape.

    Raises
    ------
    ConfigError
        When matplotlib is not installed, or writes no such file.
    """
    last = list(volumes.values())[-1]
    depth, height, width = last.shape
    low, high = np.percentile(last, [0.5, 99.8])
    aspect = voxel_size[0] / voxel_size[2]
    rows = [height * voxel_size[1] / voxel_size[2], max(8.0, depth * aspect)]
    tall = INCHES * sum(rows) / width
    figure = new_figure((INCHES * len(volumes), tall + 0.4), layout="compressed")
    axes = figure.subplots(2, len(volumes), height_ratios=rows, squeeze=False)
    for column, (title, values) in enumerate(volumes.items()):
        planes = (values[depth // 2], values[:, height // 2])
        for row, (plane, ratio) in enumerate(
            zip(planes, (voxel_size[1] / voxel_size[2], aspect), strict=True)
        ):
            ax = axes[row, column]
            ax.imshow(
                plane, cmap="gray", vmin=low, vmax=high, aspect=ratio, interpolation="nearest"
            )
            ax.set_axis_off()
        axes[0, column].set_title(f"{title}, XY")
        axes[1, column].set_title("XZ")
    save_figure(figure, path)
