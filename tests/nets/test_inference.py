"""Networks as they are applied: the trained function, and no more memory than was forecast."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from n2v_scale.forward_memory import forward_bytes
from n2v_scale.geometry import NO_HALO, Box
from n2v_scale.nets import build_network
from n2v_scale.nets.inference import for_inference
from n2v_scale.nets.memory import counted_bytes
from n2v_scale.nets.unet import trim
from n2v_scale.network_config import (
    BlindUNetConfig,
    BranchUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    UNetConfig,
)

EXACT = {"rtol": 0, "atol": 1e-10}


def randomise(network: nn.Module) -> nn.Module:
    """Large weights, so that far voxels count; statistics that are not trivial."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2, generator=generator)
        elif value.is_floating_point():
            fan = max(1, value[0].numel()) if value.ndim > 1 else 10
            value.normal_(0, (2 / fan) ** 0.5, generator=generator)
    return network.eval()


@st.composite
def networks(draw):
    depth = draw(st.integers(0, 2))
    unet = UNetConfig(
        depth=depth,
        filters=draw(st.sampled_from([2, 3])),
        kernel=draw(st.tuples(*[st.sampled_from([1, 3] if depth == 2 else [1, 3, 5])] * 3)),
        pooled=draw(st.tuples(*[st.integers(0, depth)] * 3)),
        fold=draw(st.tuples(*[st.sampled_from([1, 1, 2])] * 3)),
        batch_norm=draw(st.booleans()),
    )
    kind = draw(st.sampled_from(["unet", "filter-unet", "blind-unet", "branch-unet", "filter"]))
    if kind == "unet":
        other = draw(st.booleans())
        return kind, replace(unet, blur=other, top_skip=not other)
    window = draw(st.tuples(*[st.sampled_from([1, 3, 5])] * 3))
    if kind == "filter":
        return kind, FilterConfig(window)
    if kind == "blind-unet":
        lattices = replace(unet, in_channels=2, out_channels=2, batch_norm=False, fold=(1, 1, 1))
        stem = draw(st.tuples(*[st.sampled_from([1, 3, 5])] * 3))
        return kind, BlindUNetConfig(window, stem, 2, lattices)
    if kind == "branch-unet":
        branch = replace(unet, out_channels=2, batch_norm=False, fold=(1, 1, 1))
        (_, ky, kx), (_, py, px) = branch.kernel, branch.pooled
        return kind, BranchUNetConfig(window, branch, turned=(ky, py) == (kx, px))
    return kind, FilterUNetConfig(window, replace(unet, in_channels=2, batch_norm=False))


@st.composite
def crops(draw, stride):
    """A tile's shape and what is cut from it, multiples of the stride."""
    cells = draw(st.tuples(*[st.integers(1, 6)] * 3))
    crop = []
    for n, s in zip(cells, stride, strict=True):
        low = draw(st.integers(0, n - 1))
        crop.append((low * s, draw(st.integers(0, n - 1 - low)) * s))
    return tuple(n * s for n, s in zip(cells, stride, strict=True)), tuple(crop)


@given(networks(), st.data())
@settings(deadline=None, max_examples=40)
def test_a_tile_is_what_the_trained_network_says_of_it(described, data):
    name, config = described
    shape, crop = data.draw(crops(config.stride))
    network = randomise(build_network(name, config).double()).eval()
    x = torch.randn(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = tuple(data.draw(st.integers(0, min(2, n - 1))) for n in shape)
    inside = Box(start, shape)
    outside = torch.ones(shape, dtype=torch.bool)
    outside[inside.slices] = False
    x[..., outside] = 0
    with torch.no_grad():
        expected = trim(network(x, NO_HALO, inside), crop, NO_HALO)
        found = for_inference(network)(x, crop, inside)
    torch.testing.assert_close(found, expected, **EXACT)


@given(networks(), st.data())
@settings(deadline=None, max_examples=40)
def test_the_forecast_is_an_upper_bound_of_what_lives(described, data):
    name, config = described
    shape, crop = data.draw(crops(config.stride))
    core = tuple(n - low - high for n, (low, high) in zip(shape, crop, strict=True))
    assert forward_bytes(config, core, crop) >= counted_bytes(name, config, shape, crop)


@pytest.mark.parametrize(
    ("name", "config", "slack"),
    [
        ("unet", UNetConfig(batch_norm=True), 0),
        ("filter-unet", FilterUNetConfig(), 0),
        ("blind-unet", BlindUNetConfig(), 2**25),
        ("branch-unet", BranchUNetConfig(), 2**23),
        ("filter", FilterConfig(), 2**25),  # there is little to forecast
    ],
)
@pytest.mark.parametrize("core", [(64, 64, 64), (96, 128, 128), (32, 256, 256)])
def test_the_forecast_is_close_for_tiles_of_usual_size(name, config, slack, core):
    crop = ((24, 24),) * 3
    shape = tuple(n + 48 for n in core)
    forecast, counted = forward_bytes(config, core, crop), counted_bytes(name, config, shape, crop)
    assert counted <= forecast <= 1.25 * counted + slack


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_rounds_and_no_more(precision):
    config = FilterUNetConfig(
        (3, 3, 3), UNetConfig(in_channels=2, depth=1, filters=4, pooled=(1,) * 3)
    )
    network = randomise(build_network("filter-unet", config))
    x = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        exact = for_inference(network)(x)
        rounded = for_inference(network, precision=precision)(x)
    assert rounded.dtype == torch.float32
    error = float((rounded - exact).std() / exact.std())
    assert 0 < error < 2e-2
