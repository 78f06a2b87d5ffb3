"""What an expert would choose for a volume: network, patch, batch, from its shape and voxels.

Pure decisions; every value can be overridden by a setting, and all are recorded in the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2, prod, sqrt

from n2v_scale.config import TrainSettings
from n2v_scale.errors import ConfigError, InputError
from n2v_scale.geometry import Shape, as_shape, round_down
from n2v_scale.nets import NetworkConfig
from n2v_scale.nets.filter_unet import FilterUNetConfig
from n2v_scale.nets.unet import UNetConfig

PATCH_VOXELS = 2**16
DEEPEST_PATCH = 32
"""Along Z. A mouse brain had 30.5 dB after three minutes with 16 x 64 x 64, and 31.6 with 32 x 48
x 48 (one run each); a simulated volume with coarse Z hardly differed (31.24, 31.31)."""
FEWEST_PATCHES = 2
"""A step. One large patch takes twice as long as two half as large: with few channels, torch's
fast convolutions on a CPU need batch x channels x Z x Y above 20,480."""
THINNEST_POOLED = 8
"""An axis is not pooled below this extent."""
SMALLEST_PLANE = 16
DEFAULT_STEPS = 1500
DEFAULT_FILTERS = {"filter-unet": 16, "unet": 32}


@dataclass(frozen=True)
class Design:
    """The resolved choices."""

    network: str
    network_config: NetworkConfig
    patch: Shape
    batch: int
    radius: Shape
    turns: bool
    """Whether 90° turns in the plane are a symmetry: square voxels and patches."""


def design_for(
    settings: TrainSettings, shape: Shape, voxel_size: tuple[float, float, float]
) -> Design:
    """Network and patch for a volume of ``shape`` (z, y, x) and ``voxel_size``.

    Raises
    ------
    InputError
        When the volume is too small to train on.
    ConfigError
        When a setting contradicts the volume or another setting.
    """
    if min(shape[1:]) < SMALLEST_PLANE:
        raise InputError(
            f"the volume is {shape} (z, y, x): Y and X need at least {SMALLEST_PLANE} voxels "
            "to train on"
        )
    anisotropy = max(1.0, voxel_size[0] / min(voxel_size[1:]))
    pooled = _pooled(settings, shape, anisotropy)
    unet = UNetConfig(
        in_channels=2 if settings.net == "filter-unet" else 1,
        depth=_depth(settings),
        filters=settings.filters or DEFAULT_FILTERS[settings.net],
        kernel=_odd(settings.kernel) or as_shape([3 if n >= 3 else 1 for n in shape]),
        pooled=pooled,
        batch_norm=settings.net == "unet",
    )
    window = as_shape([1 if n < 3 else 3 if n < THINNEST_POOLED else 5 for n in shape])
    config: NetworkConfig = unet if settings.net == "unet" else FilterUNetConfig(window, unet)
    patch = _patch(settings, shape, unet.stride)
    if any(p < w for p, w in zip(patch, window, strict=True)):
        raise ConfigError(
            f"patch {patch} is smaller than {window}, the neighbourhood that a voxel is predicted "
            "from: pass a larger --patch"
        )
    same = abs(voxel_size[1] - voxel_size[2]) <= 1e-3 * voxel_size[1]
    return Design(
        settings.net,
        config,
        patch,
        settings.batch or max(FEWEST_PATCHES, round(FEWEST_PATCHES * PATCH_VOXELS / prod(patch))),
        settings.radius or as_shape([min(2, n - 1) if n > 1 else 1 for n in shape]),
        turns=same and patch[1] == patch[2],
    )


def _depth(settings: TrainSettings) -> int:
    return 2 if settings.depth is None else settings.depth


def _pooled(settings: TrainSettings, shape: Shape, anisotropy: float) -> Shape:
    """Poolings per axis: fewer where the axis is thin, and in Z where its voxels are coarse."""
    coarser = (round(log2(anisotropy)), 0, 0)
    poolings = []
    for n, skip in zip(shape, coarser, strict=True):
        possible = max(0, floor(log2(max(1, n) / THINNEST_POOLED))) if n >= THINNEST_POOLED else 0
        poolings.append(max(0, min(_depth(settings) - skip, possible)))
    return as_shape(poolings)


def _odd(kernel: Shape | None) -> Shape | None:
    if kernel is not None and any(k % 2 == 0 for k in kernel):
        raise ConfigError(f"kernel {kernel}: sizes must be odd, so that a voxel has a centre")
    return kernel


def _patch(settings: TrainSettings, shape: Shape, stride: Shape) -> Shape:
    if settings.patch is not None:
        return _checked_patch(settings.patch, shape, stride)
    z = min(shape[0], DEEPEST_PATCH)
    z = max(stride[0], round_down(z, stride[0]))
    side = 16 * round(sqrt(PATCH_VOXELS / z) / 16)
    plane = [
        max(s, round_down(min(side, n), s)) for n, s in zip(shape[1:], stride[1:], strict=True)
    ]
    return as_shape([z, *plane])


def _checked_patch(patch: Shape, shape: Shape, stride: Shape) -> Shape:
    if any(p % s for p, s in zip(patch, stride, strict=True)):
        raise ConfigError(
            f"patch {patch} is not a multiple of the network's stride {stride}: "
            "round it, or lower --depth"
        )
    if any(p > n for p, n in zip(patch, shape, strict=True)):
        raise InputError(
            f"the volume is {shape} (z, y, x), smaller than a patch of {patch}: "
            "pass a smaller --patch"
        )
    return patch
