"""Noise2Void: what is hidden, what counts, and that nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.geometry import NO_HALO, Box
from n2v_scale.masks import site_cell
from n2v_scale.methods import method_from_dict, method_to_dict
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.noise import NoiseModel
from n2v_scale.streams import Streams

SHAPES = st.tuples(st.integers(1, 6), st.integers(2, 10), st.integers(2, 10))


def streams(seed: int = 0, patches: int = 1) -> Streams:
    return Streams([(seed, k) for k in range(patches)])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distinct(*shape: int) -> torch.Tensor:
    """Every voxel has a value of its own, none is 0."""
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(shape)


@given(SHAPES, st.integers(1, 3), st.integers(1, 2), st.integers(2, 40), st.integers(0, 99))
@settings(deadline=None)
def test_input_differs_from_target_at_the_sites_and_nowhere_else(shape, b, c, n, seed):
    batch = distinct(b, c, *shape)
    example = Noise2Void(n).prepare(batch, streams(seed, b))
    sites = example.weight == 1
    assert torch.equal(example.input != example.target, sites)
    assert torch.equal(example.target, batch)
    assert torch.equal(example.weight, sites.float())


def test_the_number_of_sites_is_one_a_cell_in_every_channel():
    shape = (4, 9, 9)
    example = Noise2Void(16).prepare(distinct(2, 3, *shape), streams(0, 2))
    assert site_cell(shape, 16) == (2, 3, 3)
    assert (example.weight.sum(dim=(2, 3, 4)) == 2 * 3 * 3).all()


def test_channels_and_samples_hide_different_voxels():
    example = Noise2Void().prepare(distinct(2, 2, 8, 16, 16), streams(0, 2))
    weight = example.weight.reshape(4, -1)
    for a in range(4):
        for b in range(a):
            assert not torch.equal(weight[a], weight[b])


@pytest.mark.parametrize("radius", [(1, 1, 1), (2, 1, 3)])
def test_a_hidden_voxel_takes_the_value_of_a_neighbour_of_its_own_channel(radius):
    shape = (5, 12, 12)
    batch = distinct(2, 2, *shape)
    example = Noise2Void(8, radius).prepare(batch, streams(1, 2))
    for sample, channel, *site in torch.nonzero(example.weight).tolist():
        taken = example.input[sample, channel, site[0], site[1], site[2]]
        where = torch.nonzero(batch[sample, channel] == taken)
        assert len(where) == 1, "the value comes from another channel or sample"
        assert all(abs(p - q) <= r for p, q, r in zip(where[0].tolist(), site, radius, strict=True))


def test_the_loss_is_taken_at_the_sites_alone():
    method = Noise2Void()
    example = method.prepare(torch.randn(1, 1, 6, 9, 9, generator=rng()), streams(2))
    output = torch.zeros_like(example.input, requires_grad=True)
    method.loss(output, example).backward()
    assert output.grad is not None
    assert torch.equal(output.grad != 0, example.weight == 1)


def test_the_loss_is_the_mean_squared_error_at_the_sites():
    method = Noise2Void()
    example = method.prepare(distinct(1, 1, 4, 6, 6), streams(3))
    wrong = example.target + 3 * example.weight + 100 * (1 - example.weight)
    assert method.loss(example.target, example).item() == 0
    assert method.loss(wrong, example).item() == pytest.approx(9)


def test_an_error_counts_by_the_precision_of_the_noise_around_it():
    noise = NoiseModel(gain=0.5, offset=-1.0, read_noise=0.5)
    plain, method = Noise2Void(), Noise2Void(noise=noise)
    typical = noise.variance(np.zeros(()))
    found = {}
    for level in (-3.0, -1.0, 0.0, 2.0):
        batch = torch.full((2, 1, 4, 9, 9), level)
        example = method.prepare(batch, streams(3, 2))
        sites = plain.prepare(batch, streams(3, 2)).weight
        assert torch.equal(example.weight > 0, sites > 0)
        found[level] = method.loss(example.target + 2, example).item() / 4  # each errs by 2
        variance = noise.variance(np.array(level))
        assert found[level] == pytest.approx(1.1 * typical / (variance + 0.1 * typical), rel=1e-5)
    assert found[0.0] == pytest.approx(1)
    assert found[-3.0] == found[-1.0] > 1 > found[2.0]  # no less noise than without light


@pytest.mark.parametrize(("level", "weight"), [(-1.0, 4.0), (1e4, 0.05)])
def test_a_noise_model_that_is_wrong_costs_little(level, weight):
    method = Noise2Void(noise=NoiseModel(gain=0.5, offset=-1.0, read_noise=0.0))
    example = method.prepare(torch.full((1, 1, 4, 9, 9), level), streams())
    assert example.weight.max().item() == pytest.approx(weight)


def test_the_weight_of_a_voxel_does_not_know_its_value():
    """Else dark values would count more, and the best prediction would be too dark."""
    method = Noise2Void(noise=NoiseModel(gain=0.5, offset=-1.0, read_noise=0.1))
    batch = torch.rand(1, 1, 6, 12, 12, generator=rng())
    example = method.prepare(batch, streams(5))
    tried = 0
    for site in torch.nonzero(example.weight).tolist():
        changed = batch.clone()
        changed[tuple(site)] += 7
        again = method.prepare(changed, streams(5))
        if torch.equal(again.input, example.input):  # it replaces no other hidden voxel
            assert torch.equal(again.weight, example.weight)
            tried += 1
    assert tried > 10


def test_local_means_are_those_of_the_voxels_that_are_there():
    batch = torch.rand(1, 2, 4, 7, 6, generator=rng())
    method = Noise2Void(radius=(1, 2, 0))
    found = method._local_mean(batch)
    for z, y, x in [(0, 0, 0), (3, 6, 5), (2, 3, 1)]:
        window = batch[0, 1, max(0, z - 1) : z + 2, max(0, y - 2) : y + 3, x]
        assert found[0, 1, z, y, x].item() == pytest.approx(window.mean().item(), rel=1e-5)


@given(st.floats(0.05, 0.95), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_missing_voxels_weigh_nothing_and_never_enter(share, seed):
    batch = distinct(1, 2, 4, 8, 8)
    missing = torch.rand(batch.shape, generator=rng(seed)) < share
    holed = batch.masked_fill(missing, torch.nan)
    example = Noise2Void(4).prepare(holed, streams(seed))
    whole = Noise2Void(4).prepare(batch, streams(seed))
    assert torch.isfinite(example.input).all()
    assert torch.isfinite(example.target).all()
    assert torch.equal(example.weight, whole.weight * ~missing)
    assert torch.equal(example.target[~missing], batch[~missing])
    assert (example.target[missing] == 0).all()


def test_a_patch_without_data_has_a_finite_loss_and_no_gradient():
    method = Noise2Void()
    example = method.prepare(torch.full((1, 1, 2, 4, 4), torch.nan), streams())
    output = torch.ones_like(example.input, requires_grad=True)
    loss = method.loss(output, example)
    loss.backward()
    assert loss.item() == 0
    assert output.grad is not None
    assert (output.grad == 0).all()


def test_the_batch_given_is_left_alone():
    batch = distinct(1, 1, 4, 8, 8)
    Noise2Void().prepare(batch, streams())
    assert torch.equal(batch, distinct(1, 1, 4, 8, 8))


def test_the_streams_decide_everything():
    batch = torch.randn(2, 1, 6, 9, 9, generator=rng(5))
    first, again, other = (Noise2Void().prepare(batch, streams(s, 2)) for s in (6, 6, 7))
    assert torch.equal(first.input, again.input)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_a_patch_is_hidden_alike_in_whatever_batch():
    batch = torch.randn(4, 2, 6, 9, 9, generator=rng(5))
    together = Noise2Void().prepare(batch, streams(6, 4))
    for k in range(4):
        alone = Noise2Void().prepare(batch[k : k + 1], Streams([(6, k)]))
        assert torch.equal(alone.input[0], together.input[k])
        assert torch.equal(alone.weight[0], together.weight[k])


def test_inference_is_the_plain_forward_pass():
    seen = []

    def network(tile, crop, inside):
        seen.append((crop, inside))
        return tile + 1

    tile, inside = distinct(1, 1, 2, 4, 4), Box.whole((2, 4, 3))
    estimate = Noise2Void().infer(network, tile, NO_HALO, inside)
    assert torch.equal(estimate.mean, tile + 1)
    assert estimate.std is None
    assert seen == [(NO_HALO, inside)]


def test_a_method_survives_json():
    method = Noise2Void(9, (1, 2, 3))
    assert method_from_dict("n2v", method_to_dict(method)) == method
    noisy = replace(method, noise=NoiseModel(0.5, -1.0, 0.2))
    stored = json.loads(json.dumps(method_to_dict(noisy)))
    assert method_from_dict("n2v", stored) == noisy
