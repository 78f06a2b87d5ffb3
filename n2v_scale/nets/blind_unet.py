"""A U-Net that cannot see the voxel it predicts, by construction and for the price of a plain one.

A convolution without its centre comes first, the stem; after it everything works on lattices that
are too coarse to lead back (Wu et al. 2020, ECCV, D-BSN, dilate their convolutions instead). Along
one axis, with a stem of 3 and a lattice of 2::

    voxels     0 1 2 3 4 5 6 …
    features   f0 has seen 1 (and what is before 0), not 0; f2 has seen 1 3, f4 has seen 3 5
    lattices   f0 f2 f4 … and f1 f3 f5 …, each a U-Net's input alone

The stem reaches less far than the lattice's step, so none of the features that the U-Net joins
holds the voxel but its own, which leaves it out. All voxels between are seen by some of them. The
best linear filter, whose window is larger, is added at the end. (A lattice of 4 under windows of 5
learned next to nothing in three minutes: what it hands on is too coarse.)
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, as_shape
from n2v_scale.nets.linear import BlindFilter
from n2v_scale.nets.unet import UNet, fold, trim, unfold
from n2v_scale.network_config import BlindUNetConfig

FIRST_LOG_VARIANCE = -2.0
"""Over the noise's: about what a linear filter misses. From above it would fall far below what it
should be before the mean is any good, and a variance that is too small hardly grows again."""


class BlindUNet(nn.Module):
    """The mean and the logarithm of the variance of what a voxel may be, from all others.

    The mean starts as the best linear filter, the variance as that filter's error.
    """

    neighbours: Tensor

    def __init__(self, config: BlindUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = BlindFilter(config.window)
        self.stem = nn.Conv3d(1, config.features, config.stem)
        self.unet = UNet(config.unet)
        neighbours = torch.ones(1, 1, *config.stem)
        neighbours[(0, 0, *(k // 2 for k in config.stem))] = 0
        self.register_buffer("neighbours", neighbours, persistent=False)
        nn.init.kaiming_normal_(self.stem.weight, nonlinearity="relu")
        nn.init.zeros_(torch.as_tensor(self.stem.bias))
        nn.init.zeros_(self.unet.head.weight)
        bias = torch.as_tensor(self.unet.head.bias)
        nn.init.zeros_(bias)
        with torch.no_grad():
            bias[1] = FIRST_LOG_VARIANCE

    @property
    def stride(self) -> Shape:
        """What origins and extents of tiles must be multiples of, per axis."""
        return self.config.stride

    @torch.no_grad()
    def initialise(self, patches: Iterable[Tensor]) -> None:
        """Fit the filter to normalised patches (b, 1, z, y, x)."""
        self.filter.fit(patches)

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """Mean and log-variance (b, 2, z, y, x) of a tile's core; see :meth:`UNet.forward`.

        While it is trained, of the first lattice alone, (b, 2, z / s, y / s, x / s): patches lie
        anywhere, so every voxel has its turn, and as many voxels of more patches teach more.
        """
        lattice = self.config.lattice
        if self.training:
            filtered = self.filter(x, inside, lattice)
            out = self.unet(self._features(x, lattice))
        else:
            filtered = self.filter(x, inside)
            features = self._features(x, (1, 1, 1))
            out = from_lattices(self.unet(to_lattices(features, lattice)), lattice)
        return trim(torch.cat([filtered + out[:, :1], out[:, 1:]], dim=1), crop, NO_HALO)

    def _features(self, x: Tensor, every: Shape) -> Tensor:
        """What the stem sees around one voxel in ``every``."""
        weight, bias = self.stem.weight * self.neighbours, self.stem.bias
        padding = as_shape([k // 2 for k in self.config.stem])
        return F.relu(F.conv3d(x, weight, bias, stride=every, padding=padding))


def to_lattices(x: Tensor, lattice: Shape) -> Tensor:
    """Each lattice as an image of its own: (b, c, z, y, x) to (b * lattices, c, z / s, …)."""
    b, c = x.shape[:2]
    folded = fold(x.reshape(b * c, 1, *x.shape[2:]), lattice)  # (b * c, lattices, …)
    split = folded.reshape(b, c, *folded.shape[1:]).transpose(1, 2)
    return split.reshape(b * prod(lattice), c, *folded.shape[2:])


def from_lattices(x: Tensor, lattice: Shape) -> Tensor:
    """The inverse of :func:`to_lattices`."""
    count, c = prod(lattice), x.shape[1]
    split = x.reshape(-1, count, *x.shape[1:]).transpose(1, 2)  # (b, c, lattices, …)
    whole = unfold(split.reshape(-1, count, *x.shape[2:]), lattice)
    return whole.reshape(-1, c, *whole.shape[2:])
