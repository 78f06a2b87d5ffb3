"""The work that is forecast is what the convolutions of a forward pass multiply."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.forward_work import forward_products, overhead
from n2v_scale.geometry import NO_HALO, Box, as_shape
from n2v_scale.nets import build_network, convolution
from n2v_scale.nets.inference import for_inference
from n2v_scale.network_config import (
    BranchUNetConfig,
    FilterUNetConfig,
    NetworkConfig,
    UNetConfig,
)


def multiplied(config: NetworkConfig, tile, crop, monkeypatch) -> int:
    """Counted in the convolutions themselves, on tensors without data."""
    name = "unet" if isinstance(config, UNetConfig) else "filter-unet"
    network = for_inference(build_network(name, config).eval()).to("meta")
    found, plain = [0], convolution.convolve

    def counted(x, weight, bias, padding):
        out = plain(x, weight, bias, padding)
        found[0] += out.numel() * weight[0].numel()
        return out

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(convolution, "convolve", counted)
        inside = Box.whole(tile).expand(((64, 64),) * 3)  # far from faces
        network(torch.empty(1, 1, *tile, device="meta"), crop, inside)
    return found[0]


CONFIGS = [
    UNetConfig(depth=2, filters=8),
    UNetConfig(depth=3, filters=4, pooled=(1, 3, 3), fold=(1, 2, 2)),
    FilterUNetConfig((5, 9, 9), UNetConfig(depth=2, filters=8, in_channels=2, batch_norm=False)),
]
BRANCHES = BranchUNetConfig(
    unet=UNetConfig(out_channels=2, depth=2, filters=4, pooled=(1, 2, 1)), turned=False
)


@pytest.mark.parametrize("config", CONFIGS, ids=["unet", "folded", "filter-unet"])
@pytest.mark.parametrize("halo", [NO_HALO, ((16, 16), (16, 32), (0, 32))])
def test_work_is_near_what_is_multiplied(config, halo, monkeypatch) -> None:
    """Slabs overlap by a voxel or two, and what is shrunk after a convolution is not counted."""
    core = as_shape([32, 64, 64])
    tile = as_shape([n + low + high for n, (low, high) in zip(core, halo, strict=True)])
    forecast = forward_products(config, core, halo)
    assert forecast == pytest.approx(multiplied(config, tile, halo, monkeypatch), rel=0.1)


@pytest.mark.parametrize("halo", [NO_HALO, ((16, 16), (16, 32), (0, 32))])
def test_work_of_branches_is_what_their_convolutions_multiply(halo) -> None:
    found = [0]

    def count(layer, _, out):
        found[0] += out.numel() * layer.weight[0].numel()

    core = as_shape([32, 64, 64])
    network = build_network("branch-unet", BRANCHES).to("meta")
    for part in network.modules():
        if isinstance(part, torch.nn.Conv3d) and part is not network.branches.join:
            part.register_forward_hook(count)
    tile = Box.whole(core).expand(halo).shape
    network(torch.empty(1, 1, *tile, device="meta"), halo)
    width = 1 + 6 * 4
    joining = 4 * 4 * width * prod(core)
    filtering = 5 * 5 * 8 * 2 * prod(core)  # in lanes of eight
    assert forward_products(BRANCHES, core, halo) == found[0] + joining + filtering


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([*CONFIGS, BRANCHES]), st.tuples(*[st.integers(1, 8)] * 3), st.integers(0, 4)
)
def test_a_halo_costs_but_less_than_its_voxels(config, cells, reach) -> None:
    core = as_shape([c * s for c, s in zip(cells, config.stride, strict=True)])
    z, y, x = ((reach * s, reach * s) for s in config.stride)
    padded = Box.whole(core).expand((z, y, x)).size
    assert 1 <= overhead(config, core, (z, y, x)) <= padded / prod(core)
