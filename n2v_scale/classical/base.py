"""The contract of a classical filter: local, with one parameter, and nothing taken from a tile.

A filter sees values in units of the noise: ``(value - offset) / noise``, with one offset and one
noise for a whole channel. So its parameter means the same in every volume, and no tile differs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Shape

FloatArray = npt.NDArray[np.floating[Any]]
Ratio = tuple[float, float, float]

FLOAT32 = 4
LEAST = 1e-3
"""Of any parameter: below it nothing is filtered."""
COARSE = 0.5
"""Planes that lie so far apart, with voxels twice as long as wide, are filtered by themselves."""


def axis_ratio(shape: Shape, voxel_size: tuple[float, float, float]) -> Ratio:
    """How many voxels along each axis are as long as one along the finest: 0 to 1.

    An axis of a single voxel has 0: nothing lies beside it.

    >>> axis_ratio((64, 256, 256), (2.0, 0.4, 0.4)), axis_ratio((1, 256, 256), (2.0, 0.4, 0.4))
    ((0.2, 1.0, 1.0), (0.0, 1.0, 1.0))
    """
    finest = min((s for s, n in zip(voxel_size, shape, strict=True) if n > 1), default=1.0)
    z, y, x = (finest / s if n > 1 else 0.0 for s, n in zip(voxel_size, shape, strict=True))
    return z, y, x


@dataclass(frozen=True)
class Filter(ABC):
    """A filter with its parameter, for one kind of voxels.

    The result at a voxel depends on values within :attr:`reach` of it, and on where the array ends
    within that; what the library does there is what it does at a volume's face.
    """

    value: float
    """Of the parameter."""
    ratio: Ratio = (1.0, 1.0, 1.0)
    """See :func:`axis_ratio`."""

    parameter: ClassVar[str]
    """What the parameter is, and in which unit."""
    candidates: ClassVar[tuple[float, ...]]
    """The values that a calibration tries."""
    largest: ClassVar[float] = 1000.0
    """That the parameter may be: in units of the noise, beyond it everything is smoothed away."""
    copies: ClassVar[float]
    """Of the array in float32, that are held at the peak: an upper bound, measured."""
    cost: ClassVar[float]
    """Time a voxel, over that of the Gaussian filter: about."""
    isotropic: ClassVar[bool] = False
    """Whether it cannot follow the voxels' proportions: then see :attr:`by_plane`."""

    def __post_init__(self) -> None:
        if not LEAST <= self.value <= self.largest:  # NaN neither
            raise ConfigError(
                f"{self.parameter} is {self.value:g}: give a number from {LEAST:g} to "
                f"{self.largest:g} (--values)"
            )

    @property
    @abstractmethod
    def reach(self) -> Shape:
        """How far the result looks, per axis (z, y, x) and to either side."""

    @abstractmethod
    def apply(self, image: FloatArray) -> FloatArray:
        """The filtered ``image``, (z, y, x), or one plane of it (y, x); see :attr:`by_plane`."""

    def __call__(self, values: FloatArray) -> FloatArray:
        """The filtered ``values`` (z, y, x), in their own type."""
        if not self.by_plane:
            return self.apply(values).astype(values.dtype, copy=False)
        return np.stack([self.apply(p).astype(values.dtype, copy=False) for p in values])

    @property
    def flat(self) -> bool:
        """Whether the volume has no depth."""
        return self.ratio[0] == 0

    @property
    def by_plane(self) -> bool:
        """Whether planes are filtered one by one: without depth, and where a filter that takes all
        axes alike would take planes far apart for neighbours.
        """
        return self.ratio[0] <= (COARSE if self.isotropic else 0)

    def along(self, voxels: int) -> Shape:
        """So many voxels along each axis that is filtered along."""
        z, y, x = (voxels if r else 0 for r in self.ratio)
        return 0 if self.by_plane else z, y, x

    def memory_bytes(self, shape: Shape) -> int:
        """An upper bound of what a call on values of this shape, in float32, allocates."""
        if self.by_plane:  # one at a time, then all of them joined
            return self.image_bytes(shape[1:]) + 3 * FLOAT32 * prod(shape)
        return self.image_bytes(shape)

    def image_bytes(self, shape: tuple[int, ...]) -> int:
        """The same of :meth:`apply`."""
        return int(self.copies * FLOAT32 * prod(shape))
