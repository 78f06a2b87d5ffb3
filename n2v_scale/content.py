"""What small cells of a volume hold: how bright, how varied, how noisy, and so how much signal."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.geometry import Shape, as_shape
from n2v_scale.noise import NoiseModel

CELL = 8
"""Voxels along an axis of a cell; an axis that is shorter is one cell."""
MASK_GAIN = 36.0
"""Sum of the squares of the mask [1 -2 1] x [1 -2 1] (Immerkær 1996, CVIU 64:300)."""
MASK_CORRELATION = 1.944**2
"""Sum over shifts of the squared correlation of what the mask makes of white noise: by so much
fewer are the independent values."""
LEAST_RESPONSES = 1 / 8
"""Share of a cell's responses of the mask that must be there: a missing voxel costs nine."""
ROUNDING = 1e-10
"""Of the squared level: less variance than this is rounding, where all voxels are alike."""


@dataclass(frozen=True)
class Cells:
    """Statistics on the grid of cells of a box, float32 (z, y, x) each; of the voxels that are
    finite, and NaN where fewer than half of a cell are.
    """

    mean: npt.NDArray[np.float32]
    variance: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    """Variance of the noise, where nothing but noise varies from voxel to voxel; else more."""
    size: Shape
    """Voxels of a cell."""

    @property
    def freedom(self) -> float:
        """Degrees of freedom of :attr:`noise` in one cell."""
        z, y, x = self.size
        return z * max(1, y - 2) * max(1, x - 2) / MASK_CORRELATION

    def content(self, noise: NoiseModel | None) -> npt.NDArray[np.float32]:
        """The share of each cell's variance that is no noise, 0 to 1."""
        explained = np.zeros_like(self.mean) if noise is None else noise.variance(self.mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.nan_to_num(1 - explained / self.variance, nan=0.0, neginf=0.0)
        found: npt.NDArray[np.float32] = share.clip(0, 1).astype(np.float32)
        return found


def cells_of(values: npt.NDArray[Any]) -> Cells:
    """The cells of a box (z, y, x); what is left over at its end is left out."""
    size = as_shape([min(CELL, n) for n in values.shape])
    counts = as_shape([n // s for n, s in zip(values.shape, size, strict=True)])
    whole = tuple(slice(0, n * s) for n, s in zip(counts, size, strict=True))
    data = values[whole].astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        level = _level(data)
        data -= level  # variances keep their digits on a large offset
        data[np.isinf(data)] = np.nan
        cut = data.reshape([n for pair in zip(counts, size, strict=True) for n in pair])
        mean = _mean(cut, 1 / 2)  # (z, y, x)
        apart = cut - mean[:, None, :, None, :, None]
        variance = _mean(np.square(apart), 1 / 2)
        variance[variance < ROUNDING * mean**2] = 0
        noise = _residual(cut)
        noise[np.isnan(mean)] = np.nan
    return Cells(mean + level, variance, noise, size)


def _level(data: npt.NDArray[np.float32]) -> np.float32:
    """The mean of what is finite."""
    level = data.mean(dtype=np.float64) if data.size else 0.0
    if not np.isfinite(level):
        known = data[np.isfinite(data)]
        level = known.mean(dtype=np.float64) if known.size else 0.0
    return np.float32(level)


def _residual(cut: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean square of the mask's response inside each cell (z, a, y, b, x, c), over its gain."""
    if min(cut.shape[3], cut.shape[5]) < 3:
        return np.full(cut.shape[::2], np.nan, np.float32)
    rows = cut[:, :, :, :-2] - 2 * cut[:, :, :, 1:-1] + cut[:, :, :, 2:]
    both = rows[..., :-2] - 2 * rows[..., 1:-1] + rows[..., 2:]
    return _mean(np.square(both), LEAST_RESPONSES) / np.float32(MASK_GAIN)


def _mean(cut: npt.NDArray[np.float32], least: float) -> npt.NDArray[np.float32]:
    """Of what is finite in each cell (z, a, y, b, x, c); NaN where that is less than a share."""
    mean: npt.NDArray[np.float32] = cut.mean(axis=(1, 3, 5))
    holes = np.isnan(mean)
    if holes.any():
        there = np.isfinite(cut)
        count = there.sum(axis=(1, 3, 5), dtype=np.float32)
        total = np.where(there, cut, np.float32(0)).sum(axis=(1, 3, 5))
        enough = count >= least * prod(cut.shape[1::2])
        mean[holes] = np.where(enough, total / np.maximum(count, 1), np.nan)[holes]
    return mean
