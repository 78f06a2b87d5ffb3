"""Whether what was taken away looks like noise: alike from voxel to voxel, or like the signal.

Noise that was independent leaves a residual that is nearly white (the prediction's own noise makes
neighbours a little unlike). Structure that is taken away makes neighbours alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LAGS = 5
AXES = "zyx"
ALIKE = 0.05
"""A correlation of the residual above this is structure, or noise that is correlated."""


@dataclass(frozen=True)
class ResidualSums:
    """Sums over boxes; those of two sets of boxes add up. ``ResidualSums()`` is empty."""

    moments: tuple[float, ...] = (0.0,) * 6
    """Number, residual, signal, residual², signal², and residual times signal."""
    products: tuple[tuple[float, ...], ...] = ((0.0,) * LAGS,) * 3
    """Of residuals a lag apart, along z, y and x."""
    pairs: tuple[tuple[int, ...], ...] = ((0,) * LAGS,) * 3

    @classmethod
    def of(cls, noisy: Array, denoised: Array) -> ResidualSums:
        """Of one box (z, y, x); voxels that are not finite count as no residual."""
        known = np.isfinite(noisy) & np.isfinite(denoised)
        signal = np.where(known, denoised, 0).astype(np.float64)
        residual = np.where(known, noisy, 0).astype(np.float64) - signal
        n = float(known.sum())
        sums = [residual.sum(), signal.sum(), (residual**2).sum(), (signal**2).sum()]
        moments = (n, *map(float, sums), float((residual * signal).sum()))
        products, pairs = [], []
        for axis in range(3):
            lines = np.moveaxis(residual, axis, 0)
            lags = range(1, LAGS + 1)
            products.append(tuple(float((lines[lag:] * lines[:-lag]).sum()) for lag in lags))
            pairs.append(tuple(max(0, len(lines) - lag) * lines[0].size for lag in lags))
        return cls(moments, tuple(products), tuple(pairs))

    def __add__(self, other: ResidualSums) -> ResidualSums:
        def both(a: Any, b: Any) -> Any:
            return tuple(x + y for x, y in zip(a, b, strict=True))

        products = tuple(both(a, b) for a, b in zip(self.products, other.products, strict=True))
        pairs = tuple(both(a, b) for a, b in zip(self.pairs, other.pairs, strict=True))
        return ResidualSums(both(self.moments, other.moments), products, pairs)

    @property
    def correlation(self) -> dict[str, tuple[float, ...]]:
        """Of the residual with itself by axis, lag 1 first; shorter along a short axis."""
        n, total, _, squares, *_ = self.moments
        mean = total / n if n else 0.0
        variance = squares / n - mean**2 if n else 0.0
        if variance <= 0:
            return dict.fromkeys(AXES, ())
        return {
            axis: tuple((p / k - mean**2) / variance for p, k in zip(ps, ks, strict=True) if k)
            for axis, ps, ks in zip(AXES, self.products, self.pairs, strict=True)
        }

    @property
    def with_signal(self) -> float:
        """Correlation of the residual with the denoised signal: 0 where nothing of it is lost."""
        n, residual, signal, residual2, signal2, product = self.moments
        if not n:
            return 0.0
        covariance = product / n - residual * signal / n**2
        spread = (residual2 / n - (residual / n) ** 2) * (signal2 / n - (signal / n) ** 2)
        return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0
