"""The blind linear filter as a network of its own: nothing is trained but its least squares."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from n2v_scale.geometry import NO_HALO, Box, Halo, Shape
from n2v_scale.nets.linear import BlindFilter
from n2v_scale.nets.unet import trim
from n2v_scale.network_config import FilterConfig


class FilterNetwork(nn.Module):
    """The best linear prediction of a voxel from the neighbours in a window."""

    def __init__(self, config: FilterConfig) -> None:
        super().__init__()
        self.config = config
        self.filter = BlindFilter(config.window, config.hidden)

    @property
    def stride(self) -> Shape:
        """What origins and extents of tiles must be multiples of, per axis."""
        return self.config.stride

    def initialise(self, patches: Iterable[Tensor]) -> None:
        """Fit the filter to normalised patches (b, 1, z, y, x)."""
        self.filter.fit(patches)

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """The estimate for the core of a tile; see :meth:`UNet.forward`."""
        return trim(self.filter(x, inside), crop, NO_HALO)
