"""Networks; each knows its stride and can be rebuilt from its JSON."""

from __future__ import annotations

from typing import Any

from n2v_scale.nets.blind_unet import BlindUNet
from n2v_scale.nets.branch_unet import BranchUNet
from n2v_scale.nets.filter_network import FilterNetwork
from n2v_scale.nets.filter_unet import FilterUNet
from n2v_scale.nets.unet import UNet
from n2v_scale.network_config import (
    BlindUNetConfig,
    BranchUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    NetworkConfig,
    UNetConfig,
    config_from_dict,
    config_to_dict,
)

Network = BlindUNet | BranchUNet | FilterNetwork | FilterUNet | UNet
FITTED = (BlindUNet, BranchUNet, FilterNetwork, FilterUNet)
"""Networks that begin with weights solved in closed form."""

__all__ = [
    "FITTED",
    "Network",
    "NetworkConfig",
    "build_network",
    "config_to_dict",
    "network_from_dict",
]


def build_network(name: str, config: NetworkConfig) -> Network:
    """A network with fresh weights."""
    if name == "unet" and isinstance(config, UNetConfig):
        return UNet(config)
    if name == "filter-unet" and isinstance(config, FilterUNetConfig):
        return FilterUNet(config)
    if name == "blind-unet" and isinstance(config, BlindUNetConfig):
        return BlindUNet(config)
    if name == "branch-unet" and isinstance(config, BranchUNetConfig):
        return BranchUNet(config)
    if name == "filter" and isinstance(config, FilterConfig):
        return FilterNetwork(config)
    raise ValueError(f"{type(config).__name__} does not describe a network called {name!r}")


def network_from_dict(name: str, config: dict[str, Any]) -> Network:
    """A network with fresh weights from its name and :func:`config_to_dict`.

    Raises
    ------
    ModelError
        When the name or the configuration is unknown to this version.
    """
    return build_network(name, config_from_dict(name, config))
