"""What is chosen for a volume, and which wishes are refused."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from n2v_scale.architecture import PATCH_VOXELS, SMALLEST_PLANE, THINNEST_POOLED, design_for
from n2v_scale.branch_margins import directions_of
from n2v_scale.config import TrainSettings
from n2v_scale.errors import ConfigError, InputError
from n2v_scale.nets import build_network

CUBIC = (1.0, 1.0, 1.0)


def design(shape, voxel_size=CUBIC, **settings):
    return design_for(TrainSettings(**settings), shape, voxel_size)


def window_of(chosen):
    return getattr(chosen.network_config, "window", None)


def unet_of(chosen):
    return getattr(chosen.network_config, "unet", chosen.network_config)


def test_an_isotropic_volume():
    chosen = design((512, 1024, 1024))
    assert chosen.network == "filter-unet"
    assert window_of(chosen) == (5, 5, 5)
    unet = unet_of(chosen)
    assert (unet.in_channels, unet.depth, unet.kernel, unet.pooled) == (2, 2, (3,) * 3, (2,) * 3)
    assert not unet.batch_norm
    assert (chosen.patch, chosen.batch) == ((32, 48, 48), 2)
    assert chosen.radius == (2, 2, 2)
    assert chosen.turns


def test_the_plain_unet_has_one_input_and_batch_norm():
    unet = unet_of(design((64, 64, 64), net="unet"))
    assert (unet.in_channels, unet.batch_norm) == (1, True)


@pytest.mark.parametrize(("z_size", "poolings"), [(1, 2), (1.3, 2), (2, 1), (4, 0), (9, 0)])
def test_coarse_planes_are_pooled_less(z_size, poolings):
    chosen = design((512, 512, 512), (z_size, 1, 1))
    assert unet_of(chosen).pooled == (poolings, 2, 2)
    assert chosen.network_config.stride == (2**poolings, 4, 4)


def test_fine_planes_are_pooled_like_the_others():
    assert unet_of(design((512, 512, 512), (0.25, 1, 1))).pooled == (2, 2, 2)


def test_a_thin_stack_is_not_pooled_along_z():
    chosen = design((10, 512, 512))
    assert unet_of(chosen).pooled == (0, 2, 2)
    assert unet_of(chosen).kernel == (3, 3, 3)
    assert window_of(chosen) == (5, 5, 5)
    assert chosen.patch == (10, 80, 80)


def test_a_few_planes_get_a_smaller_window():
    chosen = design((5, 512, 512))
    assert window_of(chosen) == (3, 5, 5)
    assert chosen.radius == (2, 2, 2)


def test_a_single_plane_is_a_2d_problem():
    chosen = design((1, 512, 512))
    assert window_of(chosen) == (1, 5, 5)
    assert unet_of(chosen).kernel == (1, 3, 3)
    assert unet_of(chosen).pooled == (0, 2, 2)
    assert chosen.patch[0] == chosen.radius[0] == 1


@pytest.mark.parametrize("shape", [(64, 15, 64), (64, 64, 15), (1, 8, 8)])
def test_a_tiny_plane_is_refused(shape):
    with pytest.raises(InputError, match="Y and X need at least 16 voxels"):
        design(shape)


@pytest.mark.parametrize("kernel", [(2, 3, 3), (3, 3, 4)])
def test_an_even_kernel_is_refused(kernel):
    with pytest.raises(ConfigError, match="sizes must be odd"):
        design((64, 64, 64), kernel=kernel)


def test_a_patch_off_the_stride_is_refused():
    with pytest.raises(ConfigError, match=r"patch \(18, 32, 32\) .* stride \(4, 4, 4\)"):
        design((64, 64, 64), patch=(18, 32, 32))
    assert design((64, 64, 64), patch=(18, 32, 32), depth=1).patch == (18, 32, 32)


def test_a_patch_larger_than_the_volume_is_refused():
    with pytest.raises(InputError, match=r"\(32, 64, 64\).* smaller than a patch of \(32, 64, 68"):
        design((32, 64, 64), patch=(32, 64, 68))


@pytest.mark.parametrize("net", ["filter-unet", "unet"])
@pytest.mark.parametrize("patch", [(4, 16, 16), (16, 16, 4), (1, 1, 1)])
def test_a_patch_smaller_than_a_voxels_neighbourhood_is_refused(patch, net):
    with pytest.raises(ConfigError, match=r"smaller than .*\(5, 5, 5\).*larger --patch"):
        design((32, 32, 32), patch=patch, depth=0, net=net)
    assert design((32, 32, 32), patch=(5, 5, 5), depth=0, net=net).patch == (5, 5, 5)
    assert design((1, 32, 32), patch=(1, 8, 8), depth=0, net=net).patch == (1, 8, 8)


@pytest.mark.parametrize(
    ("size", "patch", "turns"),
    [((4, 1, 1), None, True), ((1, 1, 1.2), None, False), ((1, 1, 1), (8, 16, 32), False)],
)
def test_turns_need_square_voxels_and_patches(size, patch, turns):
    assert design((64, 64, 64), size, patch=patch).turns is turns


def test_wishes_are_kept():
    chosen = design(
        (64, 64, 64), depth=1, filters=5, kernel=(1, 5, 3), patch=(8, 16, 24), batch=3,
        radius=(1, 4, 3),
    )  # fmt: skip
    unet = unet_of(chosen)
    assert (unet.depth, unet.filters, unet.kernel) == (1, 5, (1, 5, 3))
    assert (chosen.patch, chosen.batch, chosen.radius) == ((8, 16, 24), 3, (1, 4, 3))


@given(
    st.tuples(st.integers(1, 3000), st.integers(16, 3000), st.integers(16, 3000)),
    st.sampled_from([0.2, 1.0, 2.0, 5.0, 30.0]),
    st.sampled_from(["filter-unet", "unet"]),
    st.none() | st.integers(0, 6),
)
@example((600, 600, 600), 1.0, "filter-unet", 6)
@example((20, 64, 64), 0.2, "filter-unet", None)
def test_the_patch_is_on_the_stride_and_in_the_volume(shape, z_size, net, depth):
    chosen = design(shape, (z_size, 1, 1), net=net, depth=depth)
    stride = chosen.network_config.stride
    for p, n, s, pooled in zip(chosen.patch, shape, stride, unet_of(chosen).pooled, strict=True):
        assert p > 0
        assert p % s == 0
        assert p <= n
        assert not pooled or n >= THINNEST_POOLED * s
        assert p >= min(n, 5)
    assert chosen.batch >= 2
    # The side is the nearest multiple of 16, of which there are at least 3: 3.5 may become 4.
    if prod(chosen.patch) > (4 / 3.5) ** 2 * PATCH_VOXELS:  # only where the stride asks for it
        assert max(stride) > 16
    for k, w, r, n in zip(
        unet_of(chosen).kernel, window_of(chosen) or (1, 1, 1), chosen.radius, shape, strict=True
    ):
        assert k % 2 == w % 2 == 1
        assert k <= n
        assert w <= n
        assert 1 <= r <= max(1, n - 1)


@given(st.tuples(st.integers(1, 40), *[st.integers(SMALLEST_PLANE, 80)] * 2))
def test_the_design_can_be_built(shape):
    chosen = design(shape, filters=1)
    assert build_network(chosen.network, chosen.network_config).stride == (
        chosen.network_config.stride
    )


@pytest.mark.parametrize(("mask", "turns"), [("x:2", False), ("x:2,y:2", True), ("z:3", True)])
def test_turns_are_a_symmetry_only_if_what_is_hidden_turns_too(mask, turns):
    settings = TrainSettings(method="structn2v", blind_mask=mask)
    assert design_for(settings, (32, 96, 96), (1.0, 1.0, 1.0)).turns == turns


def test_a_window_is_wider_than_what_is_hidden():
    settings = TrainSettings(method="linear", blind_mask="box:0,2,2")
    design = design_for(settings, (1, 256, 256), (1.0, 1.0, 1.0))
    assert design.network_config.window == (1, 7, 7)
    lines = TrainSettings(method="linear", blind_mask="x:9")
    assert design_for(lines, (32, 96, 96), (1.0, 1.0, 1.0)).network_config.window == (5, 5, 5)
    with pytest.raises(ConfigError, match="hides all that is around a voxel"):
        design_for(
            TrainSettings(method="linear", blind_mask="box:0,9,9"), (1, 17, 17), (1.0, 1.0, 1.0)
        )


def test_three_planes_can_be_trained_on_blindly():
    design = design_for(TrainSettings(method="ssdn"), (3, 64, 64), (1.0, 1.0, 1.0))
    assert design.patch[0] == 3


@pytest.mark.parametrize(
    ("shape", "voxel_size", "directions", "weights", "filters"),
    [
        ((64, 96, 128), (2.0, 0.5, 0.5), 6, 2, 8),
        ((64, 96, 128), (0.5, 0.5, 0.6), 6, 3, 8),
        ((1, 96, 128), (1.0, 0.5, 0.5), 4, 1, 16),
        ((2, 96, 128), (1.0, 0.5, 0.5), 4, 1, 8),  # too thin for a kernel along Z
        ((64, 17, 128), (0.5, 0.5, 0.5), 6, 3, 8),  # Y is pooled less than X
    ],
)
def test_branches_look_along_every_axis_and_share_what_is_alike(
    shape, voxel_size, directions, weights, filters
):
    settings = TrainSettings(method="ssdn", net="branch-unet")
    chosen = design_for(settings, shape, voxel_size)
    found = directions_of(chosen.network_config)
    assert len(found) == directions
    assert len({direction.branch for direction in found}) == weights
    assert chosen.network_config.unet.filters == filters
    assert chosen.network_config.unet.out_channels == 2
    assert f"{directions} branches" in chosen.reasons[0]
    build_network(chosen.network, chosen.network_config)


def test_branches_need_an_axis_to_look_along():
    settings = TrainSettings(method="ssdn", net="branch-unet", kernel=(1, 1, 1))
    with pytest.raises(ConfigError, match="kernels above 1"):
        design_for(settings, (32, 96, 96), (1.0, 1.0, 1.0))
