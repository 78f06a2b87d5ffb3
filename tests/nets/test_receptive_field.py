"""The measured receptive field against networks worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from n2v_scale.errors import ModelError
from n2v_scale.nets.filter_unet import FilterUNet, FilterUNetConfig
from n2v_scale.nets.receptive_field import measure_receptive_field
from n2v_scale.nets.unet import UNet, UNetConfig


class Shift(nn.Module):
    """Output voxel x is input voxel x - by."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.by > 0:
            return F.pad(x, (self.by, 0))[..., : x.shape[-1]]
        return F.pad(x, (0, -self.by))[..., -self.by :]


class PoolAndGrow(nn.Module):
    def __init__(self, factors) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(F.max_pool3d(x, self.factors), size=x.shape[2:])


class MeanAdded(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.mean(dim=(2, 3, 4), keepdim=True)


def same(*reach: int):
    return tuple((r, r) for r in reach)


@pytest.mark.parametrize(
    ("network", "stride", "field"),
    [
        (nn.Identity(), (1, 1, 1), same(0, 0, 0)),
        (nn.Conv3d(1, 1, (3, 1, 7), padding="same"), (1, 1, 1), same(1, 0, 3)),
        (nn.Conv3d(1, 1, 3, padding="same", dilation=(1, 4, 11)), (1, 1, 1), same(1, 4, 11)),
        (
            nn.Sequential(*[nn.Conv3d(1, 1, (1, 3, 5), padding="same") for _ in range(3)]),
            (1, 1, 1),
            same(0, 3, 6),
        ),
        (Shift(5), (1, 1, 1), ((0, 0), (0, 0), (5, 0))),
        (Shift(-3), (1, 1, 1), ((0, 0), (0, 0), (0, 3))),
        (PoolAndGrow((1, 2, 4)), (1, 2, 4), same(0, 1, 3)),
        (nn.Conv3d(1, 1, (1, 1, 301), padding="same"), (1, 1, 1), same(0, 0, 150)),
        (UNet(UNetConfig(depth=0, filters=2, pooled=(0, 0, 0))), (1, 1, 1), same(2, 2, 2)),
        # Convolutions 2 + 2, the lower level 2 x 2, and up to a voxel of the pooling's phase.
        (UNet(UNetConfig(depth=1, filters=2, pooled=(0, 0, 1))), (1, 1, 2), same(6, 6, 9)),
    ],
)
def test_networks_worked_out_by_hand(network, stride, field):
    assert measure_receptive_field(network, stride) == field


def test_several_channels_are_fed_and_returned():
    network = nn.Conv3d(3, 2, (1, 3, 1), padding="same")
    assert measure_receptive_field(network, (1, 1, 1), channels=3) == same(0, 1, 0)


def test_one_channel_that_looks_far_is_enough():
    network = nn.Conv3d(1, 2, (1, 1, 9), padding="same")
    with torch.no_grad():
        network.weight[0] = 0
    assert measure_receptive_field(network, (1, 1, 1)) == same(0, 0, 4)


def test_layers_that_start_at_zero_do_not_hide_the_field():
    config = FilterUNetConfig((5, 5, 5), UNetConfig(2, depth=1, filters=2, pooled=(0, 1, 1)))
    fresh = FilterUNet(config)
    assert fresh.unet.head.weight.abs().max() == 0
    drawn = FilterUNet(config)
    for weight in drawn.parameters():
        nn.init.normal_(weight)
    field = measure_receptive_field(fresh, config.stride)
    assert field == measure_receptive_field(drawn, config.stride)
    assert field == same(8, 11, 11)


@pytest.mark.parametrize(
    "network", [MeanAdded(), nn.InstanceNorm3d(1), nn.Sequential(nn.Conv3d(1, 1, 1), MeanAdded())]
)
def test_a_network_that_looks_at_the_whole_tile_is_refused(network):
    network.train()
    with pytest.raises(ModelError, match="axis z exceeds 1024 voxels"):
        measure_receptive_field(network, (1, 1, 1))


def test_batch_normalisation_is_measured_as_it_predicts():
    network = UNet(UNetConfig(depth=0, filters=2, pooled=(0, 0, 0), batch_norm=True)).train()
    assert measure_receptive_field(network, (1, 1, 1)) == same(2, 2, 2)


def test_the_network_is_left_as_it_was():
    network = UNet(UNetConfig(depth=1, filters=2, pooled=(1, 1, 1), batch_norm=True)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure_receptive_field(network, network.stride)
    assert network.training
    for name, value in network.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("pooled", [(0, 0, 1), (0, 1, 0), (1, 0, 0)])
def test_gradients_agree_on_a_random_unet(pooled):
    torch.manual_seed(0)
    config = UNetConfig(depth=1, filters=4, pooled=pooled)
    network = UNet(config).double()
    axis = pooled.index(1)
    field = measure_receptive_field(network, config.stride)
    low = high = 0
    for position in (20, 21):  # both phases of the pooling
        shape = list(config.stride)
        shape[axis] = 42
        # Many inputs: a gradient follows one voxel of a pooling and dies in a rectifier.
        x = torch.randn(64, 1, *shape, dtype=torch.float64, requires_grad=True)
        network(x).select(axis + 2, position).sum().backward()
        assert x.grad is not None
        seen = (x.grad != 0).movedim(axis + 2, 0).flatten(1).any(dim=1).nonzero().flatten()
        low, high = max(low, position - int(seen[0])), max(high, int(seen[-1]) - position)
    assert (low, high) == field[axis]
