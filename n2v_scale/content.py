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
ROUNDING = 1e-10
"""Of the squared level: less variance than this is rounding, where all voxels are alike."""


@dataclass(frozen=True)
class Cells:
    """Statistics on the grid of cells of a box, float32 (z, y, x) each; NaN where a voxel is."""

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
        mean = cut.mean(axis=(1, 3, 5))  # (z, y, x)
        apart = cut - mean[:, None, :, None, :, None]
        variance = np.einsum("zaybxc,zaybxc->zyx", apart, apart) / np.float32(prod(size))
        variance[variance < ROUNDING * mean**2] = 0
        noise = _residual(cut)
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
    count = both.shape[1] * both.shape[3] * both.shape[5]
    squares: npt.NDArray[np.float32] = np.einsum("zaybxc,zaybxc->zyx", both, both)
    return squares / np.float32(count * MASK_GAIN)
