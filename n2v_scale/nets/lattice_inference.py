"""A :class:`BlindUNet` as it is applied to tiles: one lattice after the other.

Each lattice is a small image, so what the U-Net holds is a fraction of a tile, and tiles can be
large.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, as_shape
from n2v_scale.nets.blind_unet import BlindUNet
from n2v_scale.nets.convolution import empty_like
from n2v_scale.nets.filtering import FilterInference
from n2v_scale.nets.unet_inference import ReadBox, UNetInference


class BlindUNetInference(nn.Module):
    """A trained :class:`BlindUNet`, for tiles. Filter and stem keep the weights' precision."""

    weight: Tensor
    bias: Tensor

    def __init__(self, network: BlindUNet, *, slab_bytes: int, precision: str = "float32") -> None:
        super().__init__()
        self.config = network.config
        self.slab_bytes = slab_bytes
        self.filter = FilterInference(network.filter)
        self.register_buffer("weight", (network.stem.weight * network.neighbours).detach())
        self.register_buffer("bias", torch.as_tensor(network.stem.bias).detach())
        self.unet = UNetInference(network.unet, slab_bytes=slab_bytes, precision=precision)

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """Mean and log-variance of a tile's core; see :meth:`BlindUNet.forward`."""
        lattice = self.config.lattice
        whole = Box.whole(as_shape(list(x.shape[2:])))
        reach = [k // 2 for k in reversed(self.config.stem) for _ in range(2)]
        padded = F.pad(x, reach)
        z, y, x_ = ((-low, -high) for low, high in crop)
        core = whole.expand((z, y, x_))
        out = empty_like(x, 2, core.shape)
        cells = as_shape([n // s for n, s in zip(whole.shape, lattice, strict=True)])
        z, y, x_ = ((low // s, high // s) for (low, high), s in zip(crop, lattice, strict=True))
        for phase in product(*map(range, lattice)):
            z0, y0, x0 = (slice(p, None, s) for p, s in zip(phase, lattice, strict=True))
            read = self._features(padded, as_shape(list(phase)))
            out[..., z0, y0, x0] = self.unet.run(read, cells, (z, y, x_))
        del padded
        out[:, :1] += self.filter.in_slabs(x, core, inside or whole, self.slab_bytes)
        return out

    def _features(self, padded: Tensor, phase: Shape) -> ReadBox:
        """What the U-Net reads of one lattice, by boxes of its cells."""
        stem, lattice = self.config.stem, self.config.lattice

        def read(box: Box) -> Tensor:
            first = [p + s * a for p, s, a in zip(phase, lattice, box.start, strict=True)]
            sizes = [s * (n - 1) + w for s, n, w in zip(lattice, box.shape, stem, strict=True)]
            z, y, x = (slice(a, a + n) for a, n in zip(first, sizes, strict=True))
            seen = padded[..., z, y, x]
            return F.conv3d(seen, self.weight, self.bias, stride=lattice).relu_()

        return read
