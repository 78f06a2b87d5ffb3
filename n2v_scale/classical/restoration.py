"""Total variation and non-local means, as scikit-image has them, made local and exact.

scikit-image is imported with the first call: planning and scheduling do without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from n2v_scale.classical.base import Filter, FloatArray
from n2v_scale.geometry import Shape

ITERATIONS = 32
"""Of the total variation: always so many, as each looks one voxel further."""
PATCH = {2: 5, 3: 3}
"""Voxels along an axis that are compared as one, in a plane and in a volume."""
DISTANCE = {2: 6, 3: 3}
"""How far away along an axis they are compared."""


@dataclass(frozen=True)
class TotalVariation(Filter):
    """What is left when the sum of the gradients' lengths is made small (Chambolle 2004)."""

    parameter = "weight, in units of the noise"
    candidates = (0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.25, 1.6, 2.2, 3.0)
    copies = 15.0
    cost = 10.0
    isotropic = True

    @property
    def reach(self) -> Shape:
        """A voxel for each iteration."""
        return self.along(ITERATIONS)

    def apply(self, image: FloatArray) -> FloatArray:
        """See :class:`Filter`. With ``eps`` 0 no tile stops earlier than another."""
        from skimage.restoration import denoise_tv_chambolle

        found: FloatArray = denoise_tv_chambolle(
            image, weight=self.value, eps=0, max_num_iter=ITERATIONS
        )
        return found


@dataclass(frozen=True)
class NonLocalMeans(Filter):
    """The mean of the voxels around, weighted by how alike their patches are (Buades 2005).

    In float64, as the sums over a tile that make it fast lose digits with its size.
    """

    parameter = "h, in units of the noise"
    candidates = (0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.7)
    copies = 13.0
    cost = 150.0
    isotropic = True

    @property
    def reach(self) -> Shape:
        """See :func:`_far`."""
        return self.along(_far(2 if self.by_plane else 3))

    def image_bytes(self, shape: tuple[int, ...]) -> int:
        """With the margin that it is continued by."""
        return super().image_bytes(tuple(n + 2 * _far(len(shape)) for n in shape))

    def apply(self, image: FloatArray) -> FloatArray:
        """See :class:`Filter`. The noise is 1 in these units, and known: nothing is estimated."""
        from skimage.restoration import denoise_nl_means

        found: FloatArray = denoise_nl_means(
            image.astype(np.float64),
            patch_size=PATCH[image.ndim],
            patch_distance=DISTANCE[image.ndim],
            h=self.value,
            sigma=1.0,
            fast_mode=True,
            preserve_range=True,
        )
        return found.reshape(image.shape)  # axes of one voxel were left out


def _far(dimensions: int) -> int:
    """The patch around the furthest voxel that is compared, and one for the sums."""
    return DISTANCE[dimensions] + PATCH[dimensions] // 2 + 1
