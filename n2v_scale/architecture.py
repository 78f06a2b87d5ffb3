"""What an expert would choose for a volume: network, patch, batch, from its shape and voxels.

Pure decisions; every value can be overridden by a setting, and all are recorded in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2, prod, sqrt

from n2v_scale.blind_masks import mask_name, parse_blind_mask
from n2v_scale.branch_margins import directions_of
from n2v_scale.config import TrainSettings
from n2v_scale.errors import ConfigError, InputError
from n2v_scale.geometry import Shape, as_shape, round_down
from n2v_scale.io.volume import Volume
from n2v_scale.network_config import (
    BlindUNetConfig,
    BranchUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    NetworkConfig,
    UNetConfig,
    unet_of,
)

PATCH_VOXELS = 2**16
LATTICE_PATCH_VOXELS = 2**15
"""Of a network that learns from one lattice of a patch. Many small steps of many patches: a mouse
brain left the linear start by 0.02 dB with 65,536 predicted voxels a step after 169 steps, and by
0.9 with 16,384 from four patches after 400, for half of the work; all lattices of one patch, 32,768
voxels, had 31.9 dB after three minutes."""
DEEPEST_PATCH = 32
"""Along Z. A mouse brain had 30.5 dB after three minutes with 16 x 64 x 64, and 31.6 with
32 x 48 x 48; a simulated volume with coarse Z hardly differed (31.24, 31.31). One run each, which
scatter by a quarter of a decibel."""
MOST_DIFFERENT = 2.0
"""Between the anisotropies of volumes that share a network."""
FEWEST_PATCHES = 2
"""A step. One large patch takes twice as long as two half as large: with few channels, torch's
fast convolutions on a CPU need batch x channels x Z x Y above 20,480."""
FEWEST_LATTICES = 4
THINNEST_POOLED = 8
"""An axis is not pooled below this extent."""
SMALLEST_PLANE = 16
MOST_PATCHES = 16
"""A step on a GPU."""
GPU_SHARE = 0.5
"""Of a GPU's memory, for a batch."""
TENSORS_A_VOXEL = 14
"""Float32 feature maps of the full resolution that a training step holds, all levels together."""
DEFAULT_FILTERS = {"filter-unet": 16, "unet": 32, "blind-unet": 16, "branch-unet": 8}
FLAT_BRANCH_FILTERS = 16
"""Of a branch in images without depth: as much work a voxel as 8 are in volumes."""


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
    reasons: tuple[str, ...] = ()
    """Why, a sentence each."""


def common_shape(volumes: Sequence[Volume]) -> tuple[Shape, tuple[float, float, float]]:
    """The extent that fits in every volume, and their voxel size.

    Raises
    ------
    InputError
        When the voxels of one are twice as anisotropic as those of another.
    """
    first = volumes[0]
    for other in volumes[1:]:
        ratio = _anisotropy(other.voxel_size) / _anisotropy(first.voxel_size)
        if not 1 / MOST_DIFFERENT < ratio < MOST_DIFFERENT:
            raise InputError(
                f"{first.address} has voxels of {first.voxel_size} (z, y, x) and {other.address} "
                f"of {other.voxel_size}: one network learns one anisotropy; train one model each"
            )
    shape = [min(extents) for extents in zip(*(v.spatial_shape for v in volumes), strict=True)]
    return as_shape(shape), first.voxel_size


def design_for(
    settings: TrainSettings,
    shape: Shape,
    voxel_size: tuple[float, float, float],
    device_bytes: int | None = None,
) -> Design:
    """Network and patch for a volume of ``shape`` (z, y, x) and ``voxel_size``.

    ``device_bytes`` is the memory of the GPU that trains; None on a CPU.

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
    settings = settings.resolved()
    assert settings.net is not None
    anisotropy = _anisotropy(voxel_size)
    hidden = parse_blind_mask(settings.blind_mask) if settings.blind_mask else ()
    window = _window(settings, shape, hidden)
    config = _network(settings, shape, voxel_size, window)
    patch = _patch(settings, shape, config.stride)
    if any(p < w for p, w in zip(patch, window, strict=True)):
        raise ConfigError(
            f"patch {patch} is smaller than {window}, the neighbourhood that a voxel is predicted "
            "from: pass a larger --patch"
        )
    unet = unet_of(config)
    batch = settings.batch or _batch(settings, patch, _channels(config), device_bytes)
    turns = turnable(voxel_size, patch, hidden)
    return Design(
        settings.net,
        config,
        patch,
        batch,
        settings.radius or usual_radius(shape),
        turns,
        (f"window (z, y, x) {window}: a voxel is predicted from its neighbours in it",)
        if unet is None
        else _reasons(settings, shape, anisotropy, config, patch, batch, device_bytes),
    )


def _network(
    settings: TrainSettings,
    shape: Shape,
    voxel_size: tuple[float, float, float],
    window: Shape,
) -> NetworkConfig:
    hidden = parse_blind_mask(settings.blind_mask) if settings.blind_mask else ()
    if settings.net == "filter":
        return FilterConfig(window, hidden)
    stem = as_shape([min(3, w) for w in window])
    lattice = BlindUNetConfig(stem=stem).lattice if settings.net == "blind-unet" else (1, 1, 1)
    cells = as_shape([n // s for n, s in zip(shape, lattice, strict=True)])
    filters = settings.filters or _usual_filters(str(settings.net), shape)
    unet = UNetConfig(
        in_channels={"filter-unet": 2, "blind-unet": filters}.get(str(settings.net), 1),
        out_channels=2 if settings.method == "ssdn" else 1,
        depth=_depth(settings),
        filters=filters,
        kernel=_odd(settings.kernel) or as_shape([3 if n >= 3 else 1 for n in cells]),
        pooled=_pooled(settings, cells, _anisotropy(voxel_size)),
        batch_norm=settings.net == "unet",
        blur=settings.method == "n2v2",
        top_skip=settings.method != "n2v2",
    )
    if settings.net == "blind-unet":
        return BlindUNetConfig(window, stem, filters, unet)
    if settings.net == "branch-unet":
        return _branches(window, unet, voxel_size)
    return unet if settings.net == "unet" else FilterUNetConfig(window, unet, hidden)


def _branches(
    window: Shape, unet: UNetConfig, voxel_size: tuple[float, float, float]
) -> BranchUNetConfig:
    if max(unet.kernel) == 1:
        raise ConfigError(f"kernel {unet.kernel}: branches look along axes with kernels above 1")
    alike = unet.kernel[1] == unet.kernel[2] and unet.pooled[1] == unet.pooled[2]
    return BranchUNetConfig(window, unet, turned=alike and square(voxel_size))


def _usual_filters(net: str, shape: Shape) -> int:
    return FLAT_BRANCH_FILTERS if net == "branch-unet" and shape[0] == 1 else DEFAULT_FILTERS[net]


def _channels(config: NetworkConfig) -> int:
    """At full resolution, of all U-Nets together."""
    unet = unet_of(config)
    if unet is None:
        return 1
    several = len(directions_of(config)) if isinstance(config, BranchUNetConfig) else 1
    return several * unet.filters


def _window(settings: TrainSettings, shape: Shape, hidden: tuple[Shape, ...]) -> Shape:
    """Of the linear filter: five voxels where there are enough, more where they would be hidden."""
    thinnest = 4 if settings.net == "blind-unet" else 3  # its patch is a multiple of its lattice
    window = [1 if n < thinnest else 3 if n < THINNEST_POOLED else 5 for n in shape]

    def seen() -> int:
        inside = [
            o for o in hidden if all(abs(a) <= w // 2 for a, w in zip(o, window, strict=True))
        ]
        return prod(window) - 1 - len(inside)

    while hidden and not seen():
        wider = [w + 2 if 1 < w <= n - 2 else w for w, n in zip(window, shape, strict=True)]
        if wider == window:
            raise ConfigError(
                f"blind mask {mask_name(settings.blind_mask or '')} hides all that is around a "
                f"voxel of {shape}: "
                "use a smaller one"
            )
        window = wider
    return as_shape(window)


def usual_radius(shape: Shape) -> Shape:
    """Of the window that replacements are drawn from."""
    return as_shape([min(2, n - 1) if n > 1 else 1 for n in shape])


def turnable(
    voxel_size: tuple[float, float, float], patch: Shape, hidden: tuple[Shape, ...]
) -> bool:
    """Whether 90° turns in the plane are a symmetry of voxels, patches and what is hidden."""
    turned = {(z, x, y) for z, y, x in hidden}
    return square(voxel_size) and patch[1] == patch[2] and turned == set(hidden)


def square(voxel_size: tuple[float, float, float]) -> bool:
    """Whether voxels are as long along Y as along X."""
    return abs(voxel_size[1] - voxel_size[2]) <= 1e-3 * voxel_size[1]


def _anisotropy(voxel_size: tuple[float, float, float]) -> float:
    """How much longer a voxel is along Z; at least 1."""
    return max(1.0, voxel_size[0] / min(voxel_size[1:]))


def _batch(settings: TrainSettings, patch: Shape, filters: int, device_bytes: int | None) -> int:
    """Patches a step: the fewest that fill a CPU, as many as fit and help on a GPU."""
    least = FEWEST_LATTICES if settings.net == "blind-unet" else FEWEST_PATCHES
    fewest = max(least, round(least * _patch_voxels(settings) / prod(patch)))
    if device_bytes is None:
        return fewest
    fit = GPU_SHARE * device_bytes / (prod(patch) * filters * TENSORS_A_VOXEL * 4)
    return max(1, min(int(fit), fewest * MOST_PATCHES // least))


def _reasons(
    settings: TrainSettings,
    shape: Shape,
    anisotropy: float,
    config: NetworkConfig,
    patch: Shape,
    batch: int,
    device_bytes: int | None,
) -> tuple[str, ...]:
    """What was chosen and why; a setting needs no reason."""
    unet = unet_of(config)
    assert unet is not None
    reasons = []
    if isinstance(config, BranchUNetConfig):
        looks = directions_of(config)
        shared = "share weights: voxels are square" if config.turned else "share weights in pairs"
        reasons.append(f"{len(looks)} branches look one way each; those in the plane {shared}")
    poolings = f"poolings (z, y, x) {unet.pooled}"
    if unet.pooled[0] < unet.pooled[1] and anisotropy > 1:
        reasons.append(f"{poolings}: voxels are {anisotropy:.3g} times as long along Z")
    elif min(unet.pooled) < unet.depth:
        reasons.append(f"{poolings}: no axis below {THINNEST_POOLED} voxels, of {shape}")
    else:
        reasons.append(f"{poolings}: voxels are about as long along every axis")
    if settings.patch is None:
        reasons.append(
            f"patch {patch}: about {_patch_voxels(settings):,} voxels, at most {DEEPEST_PATCH} "
            "along Z, multiples of the pooling"
        )
    if settings.batch is None:
        where = "a CPU" if device_bytes is None else f"a GPU of {device_bytes / 1e9:.0f} GB"
        reasons.append(f"batch {batch}: for {where}")
    if settings.filters is None:
        reasons.append(f"{unet.filters} channels at full resolution: the default of {settings.net}")
    if settings.minutes is None:
        asked = "steps" in settings.model_fields_set
        why = "as asked for" if asked else f"preset {settings.preset}"
        reasons.append(f"{settings.steps} steps: {why}")
    return tuple(reasons)


def _depth(settings: TrainSettings) -> int:
    usual = 1 if settings.net == "blind-unet" else 2  # its lattice is coarse already
    return usual if settings.depth is None else settings.depth


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
        return checked_patch(settings.patch, shape, stride)
    z = min(shape[0], DEEPEST_PATCH)
    z = max(stride[0], round_down(z, stride[0]))
    side = 16 * round(sqrt(_patch_voxels(settings) / z) / 16)
    plane = [
        max(s, round_down(min(side, n), s)) for n, s in zip(shape[1:], stride[1:], strict=True)
    ]
    return as_shape([z, *plane])


def _patch_voxels(settings: TrainSettings) -> int:
    return LATTICE_PATCH_VOXELS if settings.net == "blind-unet" else PATCH_VOXELS


def checked_patch(patch: Shape, shape: Shape, stride: Shape) -> Shape:
    """``patch``, if it fits the volume and the network."""
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
