"""The default network: starts as its filter, and tiles exactly afterwards."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.geometry import Box, as_shape
from n2v_scale.nets import config_to_dict, network_from_dict
from n2v_scale.nets.filter_unet import FilterUNet, FilterUNetConfig
from n2v_scale.nets.receptive_field import measure_receptive_field
from n2v_scale.nets.unet import UNetConfig

CONFIGS = [
    FilterUNetConfig((5, 5, 5), UNetConfig(2, depth=1, filters=2, pooled=(1, 1, 1))),
    FilterUNetConfig((3, 5, 5), UNetConfig(2, depth=2, filters=2, pooled=(0, 1, 2))),
    FilterUNetConfig(
        (1, 5, 5), UNetConfig(2, depth=1, filters=2, kernel=(1, 3, 3), pooled=(0, 1, 1))
    ),
    FilterUNetConfig(
        (3, 5, 5), UNetConfig(2, depth=1, filters=2, pooled=(0, 1, 1), fold=(1, 2, 2))
    ),
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def random_net(config: FilterUNetConfig, seed: int = 0) -> FilterUNet:
    generator = torch.Generator().manual_seed(seed)
    network = FilterUNet(config).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            fan = max(1, weight[0].numel()) if weight.ndim > 1 else 10
            weight.normal_(0, (2 / fan) ** 0.5, generator=generator)
    return network


@pytest.mark.parametrize("config", CONFIGS)
def test_it_starts_exactly_as_the_filter(config):
    network = FilterUNet(config).double()
    x = noise(2, 1, 4, 12, 16)
    network.initialise([noise(1, 1, 8, 8, 8, seed=1)])
    assert network.filter.weight.abs().max() > 0
    inside = Box((0, 0, 0), (4, 11, 13))
    with torch.no_grad():
        assert torch.equal(network(x), network.filter(x))
        filtered = network.filter(x, inside)
        assert torch.equal(network(x, inside=inside), filtered)
        crop = ((0, 0), (4, 4), (4, 8))
        assert torch.equal(network(x, crop, inside), filtered[:, :, :, 4:8, 4:8])


def test_the_correction_is_added_to_the_filter():
    network, x = random_net(CONFIGS[0]), noise(1, 1, 6, 6, 6)
    with torch.no_grad():
        filtered = network.filter(x)
        expected = filtered + network.unet(torch.cat([x, filtered], dim=1))
        assert torch.equal(network(x), expected)
        assert (expected - filtered).abs().max() > 0.1


def test_training_reaches_every_part():
    torch.manual_seed(0)  # with two channels, all may be dead at first
    network, x = FilterUNet(CONFIGS[0]).double(), noise(1, 1, 6, 6, 6)
    with torch.no_grad():
        network.filter.weight.fill_(0.01)
    (network(x) - x).square().mean().backward()
    assert network.unet.head.weight.grad is not None
    assert network.unet.head.weight.grad.abs().max() > 0
    assert network.filter.weight.grad is not None
    assert network.filter.weight.grad.abs().max() > 0


@pytest.mark.parametrize("config", CONFIGS)
@given(st.data())
@settings(deadline=None, max_examples=12)
def test_a_tile_equals_the_whole_volume(tiling, config, data):
    shape = [data.draw(st.integers(1, 11)) for _ in range(3)]
    shape[data.draw(st.integers(0, 2))] = data.draw(st.integers(1, 80))
    start, stop = [], []
    for n, s in zip(shape, config.stride, strict=True):
        first = data.draw(st.integers(0, (n - 1) // s)) * s
        start.append(first)
        stop.append(min(n, first + data.draw(st.integers(1, 3)) * s))
    core = Box(as_shape(start), as_shape(stop))
    network, volume = random_net(config), noise(*shape)
    halo = measure_receptive_field(network, config.stride)
    whole = tiling.whole(network, volume, config.stride)
    tile = tiling.tile(network, volume, core, halo, config.stride)
    torch.testing.assert_close(tile, whole[core.slices], rtol=0, atol=1e-10)


def test_without_inside_a_padded_tile_is_wrong(tiling):
    """The faces matter: the comparison above can fail."""
    network, volume = random_net(CONFIGS[0]), noise(5, 5, 5)
    whole = tiling.whole(network, volume, network.stride)
    padded = torch.zeros(1, 1, 6, 6, 6, dtype=torch.float64)
    padded[..., :5, :5, :5] = volume
    with torch.no_grad():
        assert (network(padded)[0, 0, :5, :5, :5] - whole).abs().max() > 1e-3


def test_the_filter_widens_the_receptive_field():
    config = CONFIGS[0]
    alone = measure_receptive_field(FilterUNet(config).unet, config.stride, channels=2)
    both = measure_receptive_field(FilterUNet(config), config.stride)
    assert both == tuple((low + 2, high + 2) for low, high in alone)


def test_the_configuration_survives_json():
    assert network_from_dict("filter-unet", config_to_dict(CONFIGS[1])).config == CONFIGS[1]
