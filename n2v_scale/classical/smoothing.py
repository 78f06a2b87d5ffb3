"""Gaussian and median: windows that follow the voxels' proportions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from n2v_scale.classical.base import Filter, FloatArray
from n2v_scale.geometry import Shape, as_shape

TRUNCATE = 4.0
"""Standard deviations after which the kernel ends."""


@dataclass(frozen=True)
class Gaussian(Filter):
    """Convolution with a Gaussian, as wide in micrometers along every axis."""

    parameter = "sigma, in voxels of the finest axis"
    candidates = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5, 3.5)
    largest = 64.0  # its halo is four times as wide
    copies = 3.0
    cost = 1.0

    @property
    def sigma(self) -> tuple[float, ...]:
        """Along each axis, in its own voxels."""
        return tuple(self.value * r for r in self.ratio)

    @property
    def reach(self) -> Shape:
        """As SciPy rounds it."""
        return as_shape([int(TRUNCATE * s + 0.5) for s in self.sigma])

    def apply(self, image: FloatArray) -> FloatArray:
        """See :class:`Filter`."""
        sigma = self.sigma[-image.ndim :]
        found: FloatArray = ndimage.gaussian_filter(image, sigma, truncate=TRUNCATE)
        return found


@dataclass(frozen=True)
class Median(Filter):
    """The median of an ellipsoid, as long in micrometers along every axis."""

    parameter = "radius, in voxels of the finest axis"
    candidates = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
    largest = 16.0  # sorts 17,000 voxels for each
    copies = 3.0
    cost = 20.0

    @property
    def reach(self) -> Shape:
        """Whole voxels of the radius."""
        return as_shape([int(self.value * r) for r in self.ratio])

    @property
    def footprint(self) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Which voxels around a voxel lie within the radius, (z, y, x)."""
        squared = np.zeros((1, 1, 1))
        for axis, (n, r) in enumerate(zip(self.reach, self.ratio, strict=True)):
            steps = np.arange(-n, n + 1) / (r or 1.0)
            squared = squared + np.expand_dims(steps**2, tuple({0, 1, 2} - {axis}))
        inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = squared <= self.value**2
        return inside

    def apply(self, image: FloatArray) -> FloatArray:
        """See :class:`Filter`."""
        window = self.footprint.reshape(self.footprint.shape[-image.ndim :])
        found: FloatArray = ndimage.median_filter(image, footprint=window)
        return found
