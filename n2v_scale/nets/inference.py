"""Networks as they are applied to tiles: the trained functions, with less work and memory.

The same sums in another order. In float64 the result is the trained network's to 1e-14.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from n2v_scale.geometry import NO_HALO, Box, Halo, as_shape
from n2v_scale.margins import slab_bytes
from n2v_scale.nets import Network
from n2v_scale.nets.blind_unet import BlindUNet
from n2v_scale.nets.branch_unet import BranchUNet
from n2v_scale.nets.convolution import Convolution, empty_like, stored
from n2v_scale.nets.filter_network import FilterNetwork
from n2v_scale.nets.filter_unet import FilterUNet
from n2v_scale.nets.filtering import FilterInference
from n2v_scale.nets.lattice_inference import BlindUNetInference
from n2v_scale.nets.unet import UNet
from n2v_scale.nets.unet_inference import PRECISIONS, UNetInference


class FilterUNetInference(nn.Module):
    """A trained :class:`FilterUNet`, for tiles. The filter stays in the weights' precision."""

    def __init__(self, network: FilterUNet, *, slab_bytes: int, precision: str = "float32") -> None:
        super().__init__()
        self.filter = FilterInference(network.filter)
        self.unet = UNetInference(network.unet, slab_bytes=slab_bytes, precision=precision)

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """The estimate for the core of a tile; see :meth:`UNet.forward`."""
        shape = as_shape(list(x.shape[2:]))
        whole = Box.whole(shape)
        inside = inside or whole

        def both(box: Box) -> Tensor:
            joined = empty_like(x, 2 * x.shape[1], box.shape)
            joined[:, : x.shape[1]] = x[(..., *box.slices)]
            joined[:, x.shape[1] :] = self.filter(x, box, inside)
            return joined

        out = self.unet.run(both, shape, crop)
        z, y, x_ = ((-low, -high) for low, high in crop)
        out += self.filter(x, whole.expand((z, y, x_)), inside)
        return out


class FilterNetworkInference(nn.Module):
    """A :class:`FilterNetwork`, for tiles, some planes at a time."""

    def __init__(self, network: FilterNetwork, *, slab_bytes: int) -> None:
        super().__init__()
        self.filter = FilterInference(network.filter)
        self.slab_bytes = slab_bytes

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """The estimate for the core of a tile; see :meth:`UNet.forward`."""
        whole = Box.whole(as_shape(list(x.shape[2:])))
        z, y, x_ = ((-low, -high) for low, high in crop)
        return self.filter.in_slabs(x, whole.expand((z, y, x_)), inside or whole, self.slab_bytes)


class BranchUNetInference(nn.Module):
    """A trained :class:`BranchUNet`, for tiles. The filter stays in the weights' precision."""

    def __init__(self, network: BranchUNet, *, slab_bytes: int, precision: str = "float32") -> None:
        super().__init__()
        self.filter = FilterInference(network.filter)
        self.branches = copy.deepcopy(network.branches).to(PRECISIONS[precision])
        self.slab_bytes = slab_bytes

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """Mean and log-variance of a tile's core; see :meth:`UNet.forward`."""
        whole = Box.whole(as_shape(list(x.shape[2:])))
        z, y, x_ = ((-low, -high) for low, high in crop)
        core = whole.expand((z, y, x_))
        filtered = self.filter.in_slabs(x, core, inside or whole, self.slab_bytes)
        dtype = self.branches.head.weight.dtype
        out: Tensor = self.branches(x.to(dtype), filtered.to(dtype), crop).to(x.dtype)
        out[:, :1] += filtered
        return out


class WholeInference(nn.Module):
    """A trained network as it is, for those that nothing faster is known for."""

    def __init__(self, network: UNet, *, precision: str) -> None:
        super().__init__()
        self.network = network.to(PRECISIONS[precision])
        self.dtype = PRECISIONS[precision]

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """The estimate for the core of a tile; see :meth:`UNet.forward`."""
        out: Tensor = self.network(x if self.dtype is None else x.to(self.dtype), crop, inside)
        return out.to(x.dtype)


Inference = (
    BlindUNetInference
    | BranchUNetInference
    | FilterNetworkInference
    | FilterUNetInference
    | UNetInference
    | WholeInference
)


def for_inference(
    network: Network, *, device: str = "cpu", precision: str = "float32"
) -> Inference:
    """``network``, whose weights are on the CPU, as it is applied to tiles on ``device``.

    ``precision`` is what the U-Net computes in; a linear filter stays as exact as it is, and so
    do normalisation and output.
    """
    made = assembled(network, device=device, precision=precision).to(device)
    for module in made.modules():
        if isinstance(module, Convolution):
            module.weight = stored(module.weight)
    return made


def assembled(network: Network, *, device: str, precision: str) -> Inference:
    """:func:`for_inference`, but left where the weights are."""
    most = slab_bytes(device)
    if isinstance(network, FilterNetwork):
        return FilterNetworkInference(network, slab_bytes=most).eval()
    if isinstance(network, BlindUNet):
        return BlindUNetInference(network, slab_bytes=most, precision=precision).eval()
    if isinstance(network, BranchUNet):
        return BranchUNetInference(network, slab_bytes=most, precision=precision).eval()
    if isinstance(network, FilterUNet):
        return FilterUNetInference(network, slab_bytes=most, precision=precision).eval()
    if not network.config.plain:
        return WholeInference(copy.deepcopy(network), precision=precision).eval()
    return UNetInference(network, slab_bytes=most, precision=precision).eval()
