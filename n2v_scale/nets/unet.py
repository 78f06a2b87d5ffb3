"""The U-Net, 3D, with 2D as the special case: its definition, as it is trained.

Tiles go through :mod:`n2v_scale.nets.inference`, which computes the same function with less work.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, as_shape
from n2v_scale.network_config import UNetConfig

__all__ = ["UNet", "UNetConfig", "fold", "trim", "unfold"]


class UNet(nn.Module):
    """Ronneberger et al. 2015 with padded convolutions and nearest-neighbour upsampling.

    Norm-free unless asked otherwise: the output depends on no statistics of a tile or a batch.
    In evaluation mode batch normalisation is a fixed affine map.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        cell = prod(config.fold)
        widths = [config.filters * 2**level for level in range(config.depth + 1)]
        self.encoder = nn.ModuleList(
            _convolutions(a, b, config)
            for a, b in zip([config.in_channels * cell, *widths], widths, strict=False)
        )
        # A 1x1 convolution before the upsampling leaves as many channels as the skip has: the
        # same function class for two thirds of the decoder's work.
        self.reduce = nn.ModuleList(
            nn.Conv3d(widths[level + 1], widths[level], 1) for level in range(config.depth)
        )
        self.decoder = nn.ModuleList(
            _convolutions(2 * width if level or config.top_skip else width, width, config)
            for level, width in enumerate(widths[:-1])
        )
        self.head = nn.Conv3d(widths[0], config.out_channels * cell, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                _initialise(part, "linear" if part in {self.head, *self.reduce} else "relu")

    @property
    def stride(self) -> Shape:
        """What origins and extents of tiles must be multiples of, per axis."""
        return self.config.stride

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """The estimate for the core of a tile.

        Parameters
        ----------
        x
            (b, c, z, y, x), normalised; every extent a multiple of :attr:`stride`.
        crop
            What to leave away at each side; multiples of :attr:`stride`.
        inside
            The part of the tile that lies in the volume; not used here, the zeros outside are
            what the convolutions' own padding would have put there.

        Returns
        -------
        Tensor
            (b, out_channels, z, y, x), smaller than ``x`` by ``crop``.
        """
        del inside
        x = fold(x, self.config.fold)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if level < self.config.depth:
                skips.append(x)
                x = self._pooled(x, level)
        for level in reversed(range(self.config.depth)):
            factors = [float(f) for f in self.config.factors(level)]
            x = F.interpolate(self.reduce[level](x), scale_factor=factors)
            skip = skips.pop()
            joined = level > 0 or self.config.top_skip
            x = self.decoder[level](torch.cat([skip, x], dim=1) if joined else x)
        return trim(unfold(self.head(x), self.config.fold), crop, NO_HALO)

    def _pooled(self, x: Tensor, level: int) -> Tensor:
        factors = self.config.factors(level)
        return blurred_maximum(x, factors) if self.config.blur else F.max_pool3d(x, factors)


def blurred_maximum(x: Tensor, factors: Shape) -> Tensor:
    """Pooling without aliases (Zhang 2019): maximum of neighbours, [1 2 1] / 4, every second."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        n = x.shape[axis + 2]
        following = [x.narrow(axis + 2, 1, n - 1), x.narrow(axis + 2, n - 1, 1)]
        x = torch.maximum(x, torch.cat(following, axis + 2))
        shape, padding, stride = [1] * 5, [0] * 3, [1] * 3
        shape[axis + 2], padding[axis], stride[axis] = 3, 1, 2
        blur = x.new_tensor([0.25, 0.5, 0.25]).reshape(shape).expand(x.shape[1], -1, -1, -1, -1)
        x = F.conv3d(x, blur, padding=padding, stride=stride, groups=x.shape[1])
    return x


def _initialise(convolution: nn.Conv3d, nonlinearity: Literal["linear", "relu"]) -> None:
    """He et al. 2015: without normalisation layers, a signal keeps its variance through them."""
    nn.init.kaiming_normal_(convolution.weight, nonlinearity=nonlinearity)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def _convolutions(inputs: int, outputs: int, config: UNetConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    padding = as_shape([k // 2 for k in config.kernel])
    for channels in (inputs, outputs):
        layers.append(nn.Conv3d(channels, outputs, config.kernel, padding=padding))
        if config.batch_norm:
            layers.append(nn.BatchNorm3d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def fold(x: Tensor, cell: Shape) -> Tensor:
    """Space to depth: (b, c, z, y, x) to (b, c * cell, z / cz, y / cy, x / cx)."""
    if cell == (1, 1, 1):
        return x
    b, c, *shape = x.shape
    split = [part for n, f in zip(shape, cell, strict=True) for part in (n // f, f)]
    x = x.reshape(b, c, *split).permute(0, 1, 3, 5, 7, 2, 4, 6)  # (b, c, cz, cy, cx, z, y, x)
    return x.reshape(b, c * prod(cell), *split[::2])


def unfold(x: Tensor, cell: Shape) -> Tensor:
    """Depth to space: the inverse of :func:`fold`."""
    if cell == (1, 1, 1):
        return x
    b, c, *shape = x.shape
    x = x.reshape(b, c // prod(cell), *cell, *shape).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // prod(cell), *(n * f for n, f in zip(shape, cell, strict=True)))


def trim(x: Tensor, have: Halo, want: Halo) -> Tensor:
    """``x`` with its margins cut from ``have`` to ``want``."""
    for axis, ((low, high), (keep_low, keep_high)) in enumerate(zip(have, want, strict=True)):
        length = x.shape[axis + 2] - (low - keep_low) - (high - keep_high)
        x = x.narrow(axis + 2, low - keep_low, length)
    return x
