"""Branches that look one way: they see all that is around a voxel, and never the voxel."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from n2v_scale.branch_margins import directions_of
from n2v_scale.errors import ModelError
from n2v_scale.nets.blind_unet import FIRST_LOG_VARIANCE
from n2v_scale.nets.branch_unet import BranchUNet, turned, turned_back
from n2v_scale.network_config import (
    BranchUNetConfig,
    UNetConfig,
    config_from_dict,
    config_to_dict,
)


def unet(depth, pooled, kernel=(3, 3, 3)):
    return UNetConfig(out_channels=2, depth=depth, filters=3, pooled=pooled, kernel=kernel)


SOLID = BranchUNetConfig((3, 3, 3), unet(2, (1, 2, 2)))  # strides (2, 4, 4)
FLAT = BranchUNetConfig((1, 5, 5), unet(2, (0, 2, 2), (1, 3, 3)))
OBLONG = BranchUNetConfig((3, 3, 3), unet(1, (1, 0, 1)), turned=False)
SHAPES = {"solid": (SOLID, (6, 12, 12)), "flat": (FLAT, (1, 12, 12)), "oblong": (OBLONG, (6, 3, 6))}


def random_network(config: BranchUNetConfig) -> BranchUNet:
    """Rather positive weights: no ReLU is dead, and gradients reach far."""
    network = BranchUNet(config).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in network.parameters():
            draw = torch.rand(value.shape, generator=generator, dtype=torch.float64) - 0.3
            value.copy_(draw * (2 / value[0].numel() ** 0.5 if value.ndim > 1 else 1))
    return network


class Gradients:
    """How a network's first two channels change at a place, by all voxels."""

    def __init__(self, network: Callable[[Tensor], Tensor], shape, batch: int = 3) -> None:
        """The largest of a batch counts: a gradient follows one voxel of a pooling."""
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(batch, 1, *shape, dtype=torch.float64, generator=generator)
        self.out = network(self.x.requires_grad_())

    def at(self, place, channel: int) -> Tensor:
        """(z, y, x)"""
        chosen = self.out[(slice(None), channel, *place)].sum()
        (found,) = torch.autograd.grad(chosen, self.x, retain_graph=True)
        return found[:, 0].abs().amax(dim=0)


def phases(config, shape):
    """A voxel of the middle for every place on the pooling's grid; mean and variance in turn."""
    corner = [n // 2 // s * s for n, s in zip(shape, config.stride, strict=True)]
    for phase in product(*map(range, config.stride)):
        yield tuple(c + p for c, p in zip(corner, phase, strict=True)), sum(phase) % 2


@pytest.mark.parametrize("name", SHAPES)
def test_no_voxel_is_seen_in_its_own_prediction(name):
    config, shape = SHAPES[name]
    network = random_network(config)
    gradients = Gradients(network, shape)
    corners = [((0, 0, 0), 0), (tuple(n - 1 for n in shape), 1)]
    for at, channel in [*phases(config, shape), *corners]:
        seen = gradients.at(at, channel)
        assert seen[at] == 0
        assert (seen > 0).any()


@pytest.mark.parametrize("name", SHAPES)
def test_all_that_is_around_a_voxel_is_seen(name):
    config, shape = SHAPES[name]
    network = random_network(config)
    with torch.no_grad():
        network.filter.weight.zero_()  # by the branches themselves
    reach = [range(-1, 2) if n > 1 else [0] for n in shape]
    gradients = Gradients(network, shape)
    for at, channel in phases(config, shape):
        seen = gradients.at(at, channel)
        for offset in product(*reach):
            place = tuple(a + o for a, o in zip(at, offset, strict=True))
            assert (seen[place] > 0) == any(offset)


@pytest.mark.parametrize("name", SHAPES)
def test_each_branch_sees_what_is_behind_it_and_nothing_else(name):
    config, shape = SHAPES[name]
    branches = random_network(config).branches
    sides = set()
    for direction in branches.directions:

        def features(x, direction=direction):
            return branches._seen(x, direction, ((0, 0),) * 3)

        gradients = Gradients(features, shape)
        for at, _ in phases(config, shape):
            seen = torch.nonzero(gradients.at(at, 0))
            low, high = seen.amin(dim=0).tolist(), seen.amax(dim=0).tolist()
            behind = [(axis, -1) for axis in range(3) if high[axis] < at[axis]]
            behind += [(axis, 1) for axis in range(3) if low[axis] > at[axis]]
            assert len(behind) == 1
            axis, sign = behind[0]
            assert (high if sign < 0 else low)[axis] == at[axis] + sign
            sides.add((direction, axis, sign))
    axes = [axis for axis in range(3) if config.unet.kernel[axis] > 1]
    assert len(sides) == len(branches.directions)
    assert {(a, s) for _, a, s in sides} == set(product(axes, (-1, 1)))


@pytest.mark.parametrize(("name", "shared"), [("solid", 2), ("flat", 1), ("oblong", 3)])
def test_weights_are_shared_where_voxels_are_square(name, shared):
    assert len(BranchUNet(SHAPES[name][0]).branches.branches) == shared


def test_in_the_plane_all_four_ways_are_alike():
    """An image that is turned gives features that are turned, those of the next direction."""
    branches = random_network(FLAT).branches
    x = torch.randn(1, 1, 1, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    none = ((0, 0),) * 3
    first, second = branches.directions[:2]
    of_turned = branches._seen(torch.rot90(x, 1, (3, 4)), first, none)
    torch.testing.assert_close(torch.rot90(of_turned, -1, (3, 4)), branches._seen(x, second, none))


@pytest.mark.parametrize("config", [SOLID, FLAT, OBLONG])
def test_what_is_turned_is_turned_back_and_so_are_shapes_and_margins(config):
    x = torch.randn(2, 3, 3, 4, 5)
    halo = ((0, 1), (2, 3), (4, 5))
    poisoned = torch.zeros(1, 1, 9, 12, 16)
    poisoned[:, :, 0:8, 2:9, 4:11] = 1  # a core of 8, 7 and 7 voxels within that halo
    for direction in directions_of(config):
        assert torch.equal(turned_back(turned(x, direction), direction), x)
        assert tuple(turned(x, direction).shape[2:]) == direction.shape((3, 4, 5))
        seen = turned(poisoned, direction)
        (z0, z1), (y0, y1), (x0, x1) = direction.halo(halo)
        depth, height, width = seen.shape[2:]
        core = seen[:, :, z0 : depth - z1, y0 : height - y1, x0 : width - x1]
        assert core.all()
        assert core.sum() == poisoned.sum()


def test_it_starts_as_the_filter_with_a_constant_variance():
    network = BranchUNet(SOLID)
    patches = [torch.randn(2, 1, 12, 16, 16, generator=torch.Generator().manual_seed(3))]
    network.initialise(patches)
    out = network(patches[0])
    torch.testing.assert_close(out[:, :1], network.filter(patches[0]))
    assert network.filter.weight.abs().sum() > 0
    assert (out[:, 1] == FIRST_LOG_VARIANCE).all()


def test_a_configuration_survives_json():
    for config in (SOLID, FLAT, OBLONG):
        assert config_from_dict("branch-unet", config_to_dict(config)) == config


@pytest.mark.parametrize(
    "change", [{"fold": (1, 2, 2)}, {"blur": True}, {"batch_norm": True}, {"pooled": (2, 1, 2)}]
)
def test_what_a_branch_cannot_be_is_refused(change):
    described = config_to_dict(BranchUNetConfig())
    described["unet"] |= change
    with pytest.raises(ModelError, match="a branch"):
        config_from_dict("branch-unet", described)
