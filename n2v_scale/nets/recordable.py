"""Networks as a graph can be recorded of them: whole images of any size, without tiles.

A recorded graph knows no sizes, so nothing may be computed from them in Python. What a network does
at an image's faces is said by convolutions instead: the same sums, to float32's rounding.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import NO_HALO, Box, Halo, Shape
from n2v_scale.nets import Network
from n2v_scale.nets.branch_unet import Branch, BranchUNet, shifted
from n2v_scale.nets.linear import BlindFilter
from n2v_scale.nets.unet import UNet


def recordable(network: Network) -> nn.Module:
    """A copy of a trained network that maps (b, c, z, y, x) to (b, outputs, z, y, x), for every
    size that is a multiple of the stride.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    if not isinstance(copied, UNet):
        copied.filter = WholeFilter(copied.filter)  # type: ignore[assignment]
    if isinstance(copied, BranchUNet):
        branches = copied.branches
        branches.branches = nn.ModuleList(
            WholeBranch(branch) for branch in branches.branches if isinstance(branch, Branch)
        )
    return copied


class WholeFilter(nn.Module):
    """A trained :class:`BlindFilter`, on a whole image."""

    both: Tensor
    missing: Tensor

    def __init__(self, trained: BlindFilter) -> None:
        super().__init__()
        weight = (trained.weight * trained.neighbours).detach()
        self.kernel = trained.kernel
        self.register_buffer("both", torch.cat([weight, trained.neighbours]))
        self.register_buffer("missing", weight.clone())

    def forward(self, x: Tensor, inside: Box | None = None, every: Shape = (1, 1, 1)) -> Tensor:
        """See :meth:`BlindFilter.forward`; one channel, and all of it."""
        del inside, every
        padding = [k // 2 for k in self.kernel]
        both = F.conv3d(x, self.both, padding=padding)
        # 1 beyond the faces and 0 within: exactly 0 where nothing is missing.
        sides = [k // 2 for k in reversed(self.kernel) for _ in range(2)]
        beyond = F.pad(torch.zeros_like(x[:1]), sides, value=1.0)
        missing = F.conv3d(beyond, self.missing)
        count = F.conv3d(torch.ones_like(x[:1]), self.both[1:], padding=padding)
        return both[:, :1] + missing / count.clamp_min(1) * both[:, 1:]


class WholeBranch(nn.Module):
    """A trained :class:`Branch`, on a whole image."""

    def __init__(self, trained: Branch) -> None:
        super().__init__()
        self.config, self.axis = trained.config, trained.axis
        self.encoder, self.reduce, self.decoder = trained.encoder, trained.reduce, trained.decoder

    def forward(self, x: Tensor, crop: Halo = NO_HALO) -> Tensor:
        """See :meth:`Branch.forward`."""
        del crop
        depth, skips = self.config.depth, []
        for number in range(depth):
            x = self.encoder[number](x)
            skips.append(x)
            factors = self.config.factors(number)
            x = F.max_pool3d(shifted(x, self.axis) if factors[self.axis] > 1 else x, factors)
        x = self.encoder[depth](x)
        for number in reversed(range(depth)):
            factors = self.config.factors(number)
            x = F.interpolate(self.reduce[number](x), scale_factor=[float(f) for f in factors])
            x = self.decoder[number](torch.cat([skips.pop(), x], dim=1))
        return shifted(x, self.axis)
