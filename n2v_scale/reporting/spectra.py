"""The power spectrum of slices: what scales a denoiser has taken away, and where only noise is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 48
SMALLEST = 16
"""Voxels along both axes of a plane that a spectrum is made of."""
MOSTLY = 0.95
"""Share of a plane's voxels that must be known."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spectrum:
    """Mean power of a voxel by spatial frequency; white noise has its variance at each."""

    frequency: npt.NDArray[np.float64]
    """Cycles per voxel along x, the middles of the bins, up to 0.5."""
    power: npt.NDArray[np.float64]
    """In the volume's units squared; NaN where a bin holds no frequency."""


def plane_power(planes: Sequence[Array]) -> Spectrum | None:
    """Radially averaged power of planes (y, x), each under a Hann window and without its mean.

    The window's own loss is divided out, so that independent noise of variance s² has the power s²
    at every frequency. None where no plane is large enough and known; the few voxels that are not
    take the mean.
    """
    total, count = np.zeros(BINS), np.zeros(BINS)
    for plane in planes:
        known = np.isfinite(plane)
        if min(plane.shape) < SMALLEST or known.mean() < MOSTLY:
            continue
        window = _window(plane)
        mean = plane[known].mean(dtype=np.float64)
        values = np.where(known, plane - mean, 0) * window
        power = np.abs(np.fft.fft2(values)) ** 2 / np.sum(window**2)
        fy, fx = (np.fft.fftfreq(n) for n in plane.shape)
        radius = np.hypot(fy[:, None], fx[None])
        inside = radius <= 0.5
        bins = np.minimum((radius[inside] * 2 * BINS).astype(int), BINS - 1)
        total += np.bincount(bins, power[inside], BINS)
        count += np.bincount(bins, minlength=BINS)
    if not count.any():
        return None
    middles = (np.arange(BINS) + 0.5) / (2 * BINS)
    with np.errstate(invalid="ignore"):
        return Spectrum(middles, np.where(count > 0, total / np.maximum(count, 1), np.nan))


def noise_power(variances: Sequence[Array]) -> float | None:
    """The power that noise has in :func:`plane_power` whose variance at each voxel is given."""
    powers = []
    for plane in variances:
        weight = np.where(np.isfinite(plane), _window(plane) ** 2, 0)
        if min(plane.shape) >= SMALLEST and weight.sum() > 0:
            powers.append(float(np.nansum(plane * weight) / weight.sum()))
    return float(np.mean(powers)) if powers else None


def _window(plane: Array) -> Array:
    window: Array = np.outer(np.hanning(plane.shape[0]), np.hanning(plane.shape[1]))
    return window
