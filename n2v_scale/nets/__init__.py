"""Networks; each knows its stride, crops as it goes, and can be rebuilt from its JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from n2v_scale.errors import ModelError
from n2v_scale.nets.filter_unet import FilterUNet, FilterUNetConfig
from n2v_scale.nets.unet import UNet, UNetConfig

Network = FilterUNet | UNet
NetworkConfig = FilterUNetConfig | UNetConfig

NETWORKS = {"filter-unet": (FilterUNetConfig, FilterUNet), "unet": (UNetConfig, UNet)}


def build_network(name: str, config: NetworkConfig) -> Network:
    """A network with fresh weights."""
    network: Network = NETWORKS[name][1](config)
    return network


def network_from_dict(name: str, config: dict[str, Any]) -> Network:
    """A network from its name and :func:`config_to_dict`.

    Raises
    ------
    ModelError
        When the name or the configuration is unknown to this version.
    """
    if name not in NETWORKS:
        raise ModelError(
            f"the model's network is {name!r}, and this version knows {', '.join(NETWORKS)}"
        )
    config_type: type[NetworkConfig] = NETWORKS[name][0]
    try:
        return build_network(name, TypeAdapter(config_type).validate_python(config))
    except ValidationError as error:
        raise ModelError(f"the model's network configuration is not valid: {error}") from None


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """A network's configuration as JSON."""
    return asdict(config)
