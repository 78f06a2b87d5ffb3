"""What networks are made of, as the model card says it; without torch, so that planning knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from n2v_scale.errors import ModelError
from n2v_scale.geometry import Shape, as_shape

LANES = 8
"""Neighbours along X that the linear filter computes together; see ``nets.filtering``."""


@dataclass(frozen=True)
class UNetConfig:
    """What a U-Net is made of. Lengths are per axis (z, y, x)."""

    in_channels: int = 1
    out_channels: int = 1
    depth: int = 2
    """Number of poolings."""
    filters: int = 32
    """Channels at full resolution; every pooling doubles them."""
    kernel: Shape = (3, 3, 3)
    pooled: Shape = (2, 2, 2)
    """How many of the ``depth`` poolings act along each axis: the last ones, so that an axis with
    coarse voxels is pooled late, and a thin one not at all."""
    fold: Shape = (1, 1, 1)
    """Cells of this many voxels become channels first (space to depth), and voxels again at the
    end (Shi et al. 2016): the convolutions run on so many times fewer positions."""
    batch_norm: bool = False
    blur: bool = False
    """Pooling is a maximum with stride 1 and a blur with stride 2 (Zhang 2019), without aliases."""
    top_skip: bool = True
    """Whether the full resolution is handed over to the decoder (N2V2 leaves it away)."""

    @property
    def plain(self) -> bool:
        """Whether it is the U-Net that is known how to compute piece by piece."""
        return self.top_skip and not self.blur

    def factors(self, level: int) -> Shape:
        """The pooling between ``level`` and the one below it, per axis."""
        return as_shape([2 if level >= self.depth - n else 1 for n in self.pooled])

    @property
    def stride(self) -> Shape:
        """What origins and extents must be multiples of."""
        return as_shape([f * 2**n for f, n in zip(self.fold, self.pooled, strict=True)])


@dataclass(frozen=True)
class FilterConfig:
    """A linear filter and nothing else."""

    window: Shape = (5, 5, 5)
    hidden: tuple[Shape, ...] = ()
    """Offsets in the window that it does not see, beside its centre."""

    @property
    def stride(self) -> Shape:
        """What origins and extents must be multiples of: nothing."""
        return (1, 1, 1)


@dataclass(frozen=True)
class FilterUNetConfig:
    """The filter's window and the U-Net that corrects it."""

    window: Shape = (5, 5, 5)
    unet: UNetConfig = field(default_factory=lambda: UNetConfig(in_channels=2, filters=16))
    hidden: tuple[Shape, ...] = ()
    """Offsets in the window that the filter does not see, beside its centre."""

    @property
    def stride(self) -> Shape:
        """What origins and extents must be multiples of."""
        return self.unet.stride


@dataclass(frozen=True)
class BlindUNetConfig:
    """A stem without its centre, a U-Net on lattices of what it says, and a linear filter."""

    window: Shape = (5, 5, 5)
    """Of the filter."""
    stem: Shape = (3, 3, 3)
    """Of what features are made of."""
    features: int = 16
    unet: UNetConfig = field(
        default_factory=lambda: UNetConfig(in_channels=16, out_channels=2, filters=16, depth=1)
    )

    @property
    def lattice(self) -> Shape:
        """Its step: a power of two, and more than the stem reaches."""
        return as_shape([1 << (w // 2).bit_length() for w in self.stem])

    @property
    def stride(self) -> Shape:
        """What origins and extents must be multiples of."""
        return as_shape([a * b for a, b in zip(self.lattice, self.unet.stride, strict=True)])


@dataclass(frozen=True)
class BranchUNetConfig:
    """A window without its centre, and U-Nets that each look one way."""

    window: Shape = (5, 5, 5)
    unet: UNetConfig = field(default_factory=lambda: UNetConfig(out_channels=2, filters=8))
    """Of a branch, and what all branches together say."""
    turned: bool = True
    """Whether the four directions in the plane share their weights: its voxels are square."""

    def __post_init__(self) -> None:
        """Refuse U-Nets that a branch cannot be."""
        unet = self.unet
        if unet.fold != (1, 1, 1) or unet.batch_norm or not unet.plain:
            raise ValueError("a branch has no folding, batch normalisation or blurred pooling")
        if self.turned and (unet.kernel[1] != unet.kernel[2] or unet.pooled[1] != unet.pooled[2]):
            raise ValueError("a branch that turns has kernels and poolings alike along Y and X")

    @property
    def stride(self) -> Shape:
        """What origins and extents must be multiples of."""
        return self.unet.stride


NetworkConfig = BlindUNetConfig | BranchUNetConfig | FilterConfig | FilterUNetConfig | UNetConfig

NETWORK_CONFIGS: dict[str, type[NetworkConfig]] = {
    "blind-unet": BlindUNetConfig,
    "branch-unet": BranchUNetConfig,
    "filter": FilterConfig,
    "filter-unet": FilterUNetConfig,
    "unet": UNetConfig,
}


def unet_of(config: NetworkConfig) -> UNetConfig | None:
    """The U-Net in a network; None where there is none."""
    if isinstance(config, FilterConfig):
        return None
    return config if isinstance(config, UNetConfig) else config.unet


def config_from_dict(name: str, config: dict[str, Any]) -> NetworkConfig:
    """A network's configuration from its name and :func:`config_to_dict`.

    Raises
    ------
    ModelError
        When the name or the configuration is unknown to this version.
    """
    if name not in NETWORK_CONFIGS:
        raise ModelError(
            f"the model's network is {name!r}, and this version knows {', '.join(NETWORK_CONFIGS)}"
        )
    try:
        made: NetworkConfig = TypeAdapter(NETWORK_CONFIGS[name]).validate_python(config)
    except ValidationError as error:
        raise ModelError(f"the model's network configuration is not valid: {error}") from None
    return made


def config_to_dict(config: NetworkConfig) -> dict[str, Any]:
    """A network's configuration as JSON."""
    return asdict(config)
