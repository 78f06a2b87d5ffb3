"""Branches that each look one way, so that none sees the voxel it predicts (Laine et al. 2019).

A branch is a U-Net whose convolutions see a voxel and those behind it along one axis, and all
around across it. Its last output is shifted by a voxel, which leaves the voxel itself out. Before
a pooling everything is shifted too: the mean of a cell would otherwise tell its first voxel of the
next one, which lies ahead. What the branches of all directions have seen is every voxel but the
centre; convolutions of single voxels (1 x 1 x 1) join it.

In a plane of square voxels one branch looks four ways on turned images, as in the paper. Z has a
branch of its own, which looks up and down.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.branch_margins import Direction, branch_levels, directions_of, multiplied
from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, as_shape
from n2v_scale.nets.blind_unet import FIRST_LOG_VARIANCE
from n2v_scale.nets.convolution import max_pool
from n2v_scale.nets.linear import BlindFilter
from n2v_scale.nets.unet import trim
from n2v_scale.network_config import BranchUNetConfig, UNetConfig


class BranchUNet(nn.Module):
    """The mean and the logarithm of the variance of what a voxel may be, from all others.

    The mean starts as the best linear filter, the variance as that filter's error.
    """

    def __init__(self, config: BranchUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = BlindFilter(config.window)
        self.branches = Branches(config)

    @property
    def stride(self) -> Shape:
        """What origins and extents of tiles must be multiples of, per axis."""
        return self.config.stride

    @torch.no_grad()
    def initialise(self, patches: Iterable[Tensor]) -> None:
        """Fit the filter to normalised patches (b, 1, z, y, x)."""
        self.filter.fit(patches)

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """Mean and log-variance (b, 2, z, y, x) of a tile's core; see :meth:`UNet.forward`."""
        filtered = trim(self.filter(x, inside), crop, NO_HALO)
        out = self.branches(x, filtered, crop)
        return torch.cat([filtered + out[:, :1], out[:, 1:]], dim=1)


class Branches(nn.Module):
    """The correction of a filter's response, and the log-variance; both begin as constants."""

    def __init__(self, config: BranchUNetConfig) -> None:
        super().__init__()
        self.directions = directions_of(config)
        self.features = config.unet.filters
        axes = {direction.branch: direction.axis for direction in self.directions}
        self.branches = nn.ModuleList(Branch(config.unet, axis) for axis in axes.values())
        self.join = nn.Conv3d(1 + len(self.directions) * self.features, 4 * self.features, 1)
        self.mix = nn.Conv3d(4 * self.features, 2 * self.features, 1)
        self.head = nn.Conv3d(2 * self.features, config.unet.out_channels, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(torch.as_tensor(part.bias))
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            torch.as_tensor(self.head.bias)[1] = FIRST_LOG_VARIANCE

    def forward(self, x: Tensor, filtered: Tensor, crop: Halo) -> Tensor:
        """(b, 2, z, y, x) of a tile's core, where ``filtered`` is the filter's response."""
        each = [1] + [self.features] * len(self.directions)
        of_filter, *of_branches = self.join.weight.split(each, dim=1)
        joined = F.conv3d(filtered, of_filter, self.join.bias)
        for direction, weight in zip(self.directions, of_branches, strict=True):
            joined += F.conv3d(self._seen(x, direction, crop), weight)
        out: Tensor = self.head(F.relu(self.mix(F.relu(joined, inplace=True)), inplace=True))
        return out

    def _seen(self, x: Tensor, direction: Direction, crop: Halo) -> Tensor:
        branch = self.branches[direction.branch]
        return turned_back(branch(turned(x, direction), direction.halo(crop)), direction)


class Branch(nn.Module):
    """Features (b, filters, z, y, x) of what lies before each voxel along ``axis``."""

    def __init__(self, config: UNetConfig, axis: int) -> None:
        super().__init__()
        self.config, self.axis = config, axis
        widths = [config.filters * 2**level for level in range(config.depth + 1)]
        self.encoder = nn.ModuleList(
            _convolutions(a, b, config.kernel, axis)
            for a, b in zip([config.in_channels, *widths], widths, strict=False)
        )
        self.reduce = nn.ModuleList(
            nn.Conv3d(widths[level + 1], widths[level], 1) for level in range(config.depth)
        )
        self.decoder = nn.ModuleList(
            _convolutions(2 * width, width, config.kernel, axis) for width in widths[:-1]
        )

    def forward(self, x: Tensor, crop: Halo) -> Tensor:
        """Of a turned tile's core; each layer computes what the core needs of it."""
        config = self.config
        shape = as_shape([n - a - b for n, (a, b) in zip(x.shape[2:], crop, strict=True)])
        levels = branch_levels(config, self.axis, shape, crop)
        x, skips = trim(x, crop, levels[0].given), []
        for number, (level, below) in enumerate(pairwise(levels)):
            x = self.encoder[number](x)
            skips.append(_cut(x, level.given, level.skip))
            factors = config.factors(number)
            if factors[self.axis] > 1:
                x = shifted(x, self.axis)
            x = max_pool(trim(x, level.given, multiplied(below.given, factors)), factors)
        x = trim(self.encoder[-1](x), levels[-1].given, levels[-1].decoded)
        for number in reversed(range(config.depth)):
            level, factors = levels[number], config.factors(number)
            x = F.interpolate(self.reduce[number](x), scale_factor=[float(f) for f in factors])
            x = trim(x, multiplied(levels[number + 1].decoded, factors), level.skip)
            x = torch.cat([skips.pop(), x], dim=1)
            x = trim(self.decoder[number](x), level.skip, level.decoded)
        return trim(shifted(x, self.axis), levels[0].decoded, NO_HALO)


class BackwardConvolution(nn.Conv3d):
    """A convolution that sees, along ``axis``, a voxel and those before it."""

    def __init__(self, inputs: int, outputs: int, kernel: Shape, axis: int) -> None:
        across = [0 if a == axis else k // 2 for a, k in enumerate(kernel)]
        super().__init__(inputs, outputs, kernel, padding=as_shape(across))
        self.axis = axis

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch calls it so
        """(b, c, z, y, x), as large as it was."""
        return super().forward(_preceded(input, self.axis, self.kernel_size[self.axis] - 1))


def shifted(x: Tensor, axis: int) -> Tensor:
    """Each voxel (b, c, z, y, x) has what was before it; the first has zero."""
    return _preceded(x, axis, 1).narrow(axis + 2, 0, x.shape[axis + 2])


def turned(x: Tensor, direction: Direction) -> Tensor:
    """An image (b, c, z, y, x) as the branch of ``direction`` sees it."""
    return _mirrored(torch.rot90(x, direction.turns, (3, 4)), direction)


def turned_back(x: Tensor, direction: Direction) -> Tensor:
    """The inverse of :func:`turned`."""
    return torch.rot90(_mirrored(x, direction), -direction.turns, (3, 4))


def _mirrored(x: Tensor, direction: Direction) -> Tensor:
    return x.flip(direction.axis + 2) if direction.mirrored else x


def _preceded(x: Tensor, axis: int, zeros: int) -> Tensor:
    sides = [0] * 6
    sides[2 * (2 - axis)] = zeros
    return F.pad(x, sides)


def _cut(x: Tensor, have: Halo, want: Halo) -> Tensor:
    """``x`` trimmed; where that leaves something away, a copy that does not hold it."""
    return x if have == want else trim(x, have, want).clone(memory_format=torch.contiguous_format)


def _convolutions(inputs: int, outputs: int, kernel: Shape, axis: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers.append(BackwardConvolution(channels, outputs, kernel, axis))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
