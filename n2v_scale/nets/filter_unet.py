"""The default network: the best blind linear filter, corrected by a small U-Net.

The filter is solved by least squares in seconds and is a good denoiser at step 0. The U-Net's last
layer starts at zero, so training can only add to it. No normalisation layers.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from n2v_scale.geometry import NO_HALO, Box, Halo, Shape
from n2v_scale.nets.linear import BlindFilter
from n2v_scale.nets.unet import UNet, trim
from n2v_scale.network_config import FilterUNetConfig

__all__ = ["FilterUNet", "FilterUNetConfig"]


class FilterUNet(nn.Module):
    """``filter(x) + unet(x, filter(x))`` per voxel."""

    def __init__(self, config: FilterUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = BlindFilter(config.window, config.hidden)
        self.unet = UNet(config.unet)
        nn.init.zeros_(self.unet.head.weight)
        nn.init.zeros_(torch.as_tensor(self.unet.head.bias))

    @property
    def stride(self) -> Shape:
        """What origins and extents of tiles must be multiples of, per axis."""
        return self.config.stride

    def initialise(self, patches: Iterable[Tensor]) -> None:
        """Fit the filter to normalised patches (b, 1, z, y, x)."""
        self.filter.fit(patches)

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """The estimate for the core of a tile; see :meth:`UNet.forward`."""
        filtered = self.filter(x, inside)
        correction: Tensor = self.unet(torch.cat([x, filtered], dim=1))
        return trim(filtered + correction, crop, NO_HALO)
