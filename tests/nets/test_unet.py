"""The U-Net: a tile with its halo says what the whole volume says."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from n2v_scale.geometry import NO_HALO, Box, as_shape, padded_shape
from n2v_scale.nets import config_to_dict, network_from_dict
from n2v_scale.nets.receptive_field import measure_receptive_field
from n2v_scale.nets.unet import UNet, UNetConfig, fold, trim, unfold

EXACT = {"rtol": 0, "atol": 1e-10}
MOST_VOXELS = 20_000


def random_net(config: UNetConfig, seed: int = 0) -> UNet:
    """Float64, large weights, so that far voxels count; statistics that are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    network = UNet(config).double().eval()
    for name, value in network.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 2, generator=generator)
        elif value.is_floating_point():
            fan = max(1, value[0].numel()) if value.ndim > 1 else 10
            value.normal_(0, (2 / fan) ** 0.5, generator=generator)
    return network


def noise(shape, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@st.composite
def configs(draw):
    depth = draw(st.integers(0, 2))
    kernel = draw(st.tuples(*[st.sampled_from([1, 3] if depth == 2 else [1, 3, 5])] * 3))
    pooled = draw(st.tuples(*[st.integers(0, depth)] * 3))
    return UNetConfig(
        depth=depth,
        filters=2,
        kernel=kernel,
        pooled=pooled,
        fold=draw(st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 3)),
        batch_norm=draw(st.booleans()),
    )


@st.composite
def volumes_and_cores(draw, stride):
    """A bar, long along one axis, of any size; a core that starts on the stride's grid."""
    shape = [draw(st.integers(1, 12)) for _ in range(3)]
    shape[draw(st.integers(0, 2))] = draw(st.integers(1, 110))
    start, stop = [], []
    for n, s in zip(shape, stride, strict=True):
        first = draw(st.integers(0, (n - 1) // s)) * s
        cells = draw(st.integers(1, 4))
        start.append(first)
        stop.append(min(n, first + cells * s))
    return as_shape(shape), Box(as_shape(start), as_shape(stop))


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_tile_with_the_measured_halo_equals_the_whole_volume(tiling, data):
    config = data.draw(configs())
    shape, core = data.draw(volumes_and_cores(config.stride))
    padded = padded_shape(shape, config.stride)
    assume(padded[0] * padded[1] * padded[2] <= MOST_VOXELS)
    network, volume = random_net(config), noise(shape)
    halo = measure_receptive_field(network, config.stride)
    whole = tiling.whole(network, volume, config.stride)
    tile = tiling.tile(network, volume, core, halo, config.stride)
    torch.testing.assert_close(tile, whole[core.slices], **EXACT)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("shape", [(2, 5, 75), (3, 75, 6), (75, 4, 2)])
def test_the_tiles_of_a_volume_put_together_equal_the_whole(tiling, shape, batch_norm):
    pooled = as_shape([2 if n > 8 else 0 if n < 4 else 1 for n in shape])
    network = random_net(UNetConfig(depth=2, filters=2, pooled=pooled, batch_norm=batch_norm))
    halo = measure_receptive_field(network, network.stride)
    volume = noise(shape)
    joined = torch.full_like(volume, torch.nan)
    axis = shape.index(75)
    for first in range(0, 75, 8):
        start, stop = [0, 0, 0], list(shape)
        start[axis], stop[axis] = first, min(75, first + 8)
        core = Box(as_shape(start), as_shape(stop))
        joined[core.slices] = tiling.tile(network, volume, core, halo, network.stride)
    whole = tiling.whole(network, volume, network.stride)
    torch.testing.assert_close(joined, whole, **EXACT)


@pytest.mark.parametrize("side", [0, 1])
def test_a_halo_one_step_too_small_is_noticed(tiling, side):
    network = random_net(UNetConfig(depth=2, filters=2, kernel=(1, 1, 3), pooled=(0, 0, 2)))
    halo = measure_receptive_field(network, network.stride)
    low, high = halo[2]
    volume, core = noise((1, 1, 200)), Box((0, 0, 96), (1, 1, 104))
    whole = tiling.whole(network, volume, network.stride)[core.slices]
    # A halo is rounded up to the stride: 8 less is certainly too few.
    short = ((0, 0), (0, 0), (low - 8, high) if side == 0 else (low, high - 8))
    tile = tiling.tile(network, volume, core, short, network.stride)
    assert (tile - whole).abs().max() > 1e-8


@given(st.data())
@settings(deadline=None, max_examples=40)
@example(None)
def test_cropping_on_the_way_equals_cropping_at_the_end(data):
    if data is None:
        config, crop = UNetConfig(depth=2, filters=2), ((28, 28), (0, 4), (4, 0))
        cells = (18, 3, 3)
    else:
        config = data.draw(configs())
        cells = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
        crop = []
        for n, s in zip(cells, config.stride, strict=True):
            low = data.draw(st.integers(0, n - 1))
            crop.append((low * s, data.draw(st.integers(0, n - 1 - low)) * s))
        crop = tuple(crop)
    network = random_net(config)
    x = noise((1, 1, *(n * s for n, s in zip(cells, config.stride, strict=True))))
    with torch.no_grad():
        torch.testing.assert_close(network(x, crop), trim(network(x), crop, NO_HALO), **EXACT)


@pytest.mark.parametrize(
    ("pooled", "factors"),
    [
        ((2, 2, 2), [(2, 2, 2), (2, 2, 2)]),
        ((1, 2, 2), [(1, 2, 2), (2, 2, 2)]),
        ((0, 2, 1), [(1, 2, 1), (1, 2, 2)]),
        ((0, 0, 0), [(1, 1, 1), (1, 1, 1)]),
    ],
)
def test_axes_with_fewer_poolings_are_pooled_last(pooled, factors):
    config = UNetConfig(depth=2, pooled=pooled)
    assert [config.factors(level) for level in range(2)] == factors
    assert config.stride == tuple(2**n for n in pooled)


@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 3)] * 3), st.integers(1, 2))
@settings(deadline=None)
def test_unfolding_undoes_folding(cell, cells, channels):
    shape = [n * f for n, f in zip(cells, cell, strict=True)]
    x = noise((2, channels, *shape))
    folded = fold(x, cell)
    assert folded.shape == (2, channels * prod(cell), *cells)
    assert torch.equal(unfold(folded, cell), x)
    # A folded position holds the voxels of its cell, and no others.
    first = x[0, 0, : cell[0], : cell[1], : cell[2]].reshape(-1)
    assert torch.equal(folded[0, : prod(cell), 0, 0, 0], first)


def test_samples_of_a_batch_do_not_see_each_other():
    network = random_net(UNetConfig(depth=1, filters=2, pooled=(1, 1, 1), batch_norm=True))
    x = noise((3, 1, 4, 8, 8))
    with torch.no_grad():
        together = network(x)
        alone = torch.cat([network(one[None]) for one in x])
    torch.testing.assert_close(together, alone, **EXACT)


def test_the_configuration_survives_json():
    config = UNetConfig(depth=1, filters=3, kernel=(1, 3, 5), pooled=(0, 1, 1), batch_norm=True)
    assert network_from_dict("unet", config_to_dict(config)).config == config


def test_a_fresh_network_keeps_the_variance_of_a_signal():
    """Norm-free: with weights too small, ten layers leave nothing to learn from."""
    config = UNetConfig(in_channels=2, filters=16, depth=2)
    torch.manual_seed(0)
    spreads = []
    for _ in range(5):
        with torch.no_grad():
            spreads.append(UNet(config)(torch.randn(1, 2, 16, 32, 32)).std().item())
    assert min(spreads) > 0.1
    assert max(spreads) < 10
