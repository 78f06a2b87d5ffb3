"""What a forward pass over a tile computes, in multiplications, from shapes alone.

Beside :mod:`n2v_scale.forward_memory`, and of the same schedule: every layer computes what the core
needs of it, so a halo costs less than the voxels that are read for it.
"""

from __future__ import annotations

from math import prod

from n2v_scale.branch_margins import branch_levels, directions_of
from n2v_scale.geometry import NO_HALO, Halo, Shape, as_shape, ceil_div
from n2v_scale.margins import Level, cells_of, extent
from n2v_scale.network_config import (
    LANES,
    BlindUNetConfig,
    BranchUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    NetworkConfig,
    UNetConfig,
)


def forward_products(config: NetworkConfig, core: Shape, crop: Halo) -> int:
    """Multiplications of one forward pass; ``core`` and ``crop`` are multiples of the stride."""
    if isinstance(config, FilterConfig):
        return _filter_products(config) * prod(core)
    if isinstance(config, BlindUNetConfig):
        return _lattice_products(config, core, crop)
    if isinstance(config, BranchUNetConfig):
        return _branch_products(config, core, crop)
    if isinstance(config, UNetConfig):
        if not config.plain:  # computed as it is, margins and all
            return _unet_products(config, extent(core, crop), NO_HALO)
        return _unet_products(config, core, crop)
    read = cells_of(config.unet, core, crop)[0]
    given = prod(extent(read.core, read.given)) * prod(config.unet.fold)
    return _unet_products(config.unet, core, crop) + _filter_products(config) * (given + prod(core))


def overhead(config: NetworkConfig, core: Shape, crop: Halo) -> float:
    """The multiplications of a tile over those of as many voxels without a halo."""
    return forward_products(config, core, crop) / forward_products(config, core, NO_HALO)


def _lattice_products(config: BlindUNetConfig, core: Shape, crop: Halo) -> int:
    lattice = config.lattice
    z, y, x = ((low // s, high // s) for (low, high), s in zip(crop, lattice, strict=True))
    cells = as_shape([n // s for n, s in zip(core, lattice, strict=True)])
    read = cells_of(config.unet, cells, (z, y, x))[0]
    stem = config.features * prod(config.stem) * prod(extent(read.core, read.given))
    filtered = _filter_products(FilterConfig(config.window)) * prod(core)
    return prod(lattice) * (stem + _unet_products(config.unet, cells, (z, y, x))) + filtered


def _branch_products(config: BranchUNetConfig, core: Shape, crop: Halo) -> int:
    """Of all directions, each with the margins it needs, and of what joins them."""
    unet, directions = config.unet, directions_of(config)
    filters, kernel = unet.filters, prod(unet.kernel)
    seen = 1 + len(directions) * filters
    joining = 4 * filters * (seen + 2 * filters) + 2 * filters * unet.out_channels
    products = (joining + _filter_products(FilterConfig(config.window))) * prod(core)
    for direction in directions:
        levels = branch_levels(unet, direction.axis, direction.shape(core), direction.halo(crop))
        for number, level in enumerate(levels):
            width = filters << number
            inputs = width // 2 if number else unet.in_channels
            products += width * kernel * (inputs + width) * prod(extent(level.core, level.given))
            if number < unet.depth:
                below = levels[number + 1]
                reduced = 2 * prod(extent(below.core, below.decoded))
                decoded = 3 * kernel * prod(extent(level.core, level.skip))
                products += width * width * (reduced + decoded)
    return products


def _filter_products(config: FilterConfig | FilterUNetConfig) -> int:
    """A voxel."""
    z, y, x = config.window
    return z * y * LANES * (1 + ceil_div(x - 1, LANES))


def _unet_products(config: UNetConfig, core: Shape, crop: Halo) -> int:
    levels = cells_of(config, core, crop)
    return sum(_level_products(config, number, level) for number, level in enumerate(levels))


def _level_products(config: UNetConfig, number: int, level: Level) -> int:
    kernel, width = prod(config.kernel), config.filters << number
    inputs = width // 2 if number else config.in_channels * prod(config.fold)
    outputs = width // 2 if number else config.out_channels * prod(config.fold)
    hidden, encoded, between, decoded = (
        prod(extent(level.core, margin))
        for margin in (level.hidden, level.encoded, level.between, level.decoded)
    )
    products = width * (kernel * (inputs * hidden + width * encoded) + outputs * decoded)
    if number < config.depth:
        taps = prod(_taps(config, number))
        products += width * width * ((kernel + taps) * between + kernel * decoded)
    return products


def _taps(config: UNetConfig, number: int) -> Shape:
    """Cells of the level below that a pair of voxels sees, per axis; see ``nets.upsampling``."""
    pairs = zip(config.kernel, config.factors(number), strict=True)
    return as_shape([k if f == 1 else k // 2 + 1 for k, f in pairs])
