"""What a forward pass over a tile takes, forecast from shapes alone, in microseconds.

It follows the schedule of :mod:`n2v_scale.nets.stages`: the tensors that the levels hand to each
other, and the slab that is being worked on. A test holds it against the bytes of all tensors that
live at a time, for any configuration; a benchmark holds it against what a process takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from n2v_scale.branch_margins import BranchLevel, branch_levels, directions_of
from n2v_scale.geometry import Halo, Shape, as_shape, ceil_div
from n2v_scale.margins import Level, cells_of, extent, slab_bytes, slabs
from n2v_scale.network_config import (
    LANES,
    BlindUNetConfig,
    BranchUNetConfig,
    FilterConfig,
    FilterUNetConfig,
    NetworkConfig,
    UNetConfig,
)

FLOAT32 = 4
LEAST_BYTES = 4 * 2**20
"""Reordered weights, and what is rounded up around a tile of a few voxels."""


def forward_bytes(
    config: NetworkConfig,
    core: Shape,
    crop: Halo,
    *,
    device: str = "cpu",
    precision: str = "float32",
) -> int:
    """An upper bound of the bytes of all tensors while a tile is computed, on its device.

    Input and output are counted, the weights are not. ``core`` and ``crop``, the context around
    it, are multiples of the stride.
    """
    item = FLOAT32 if precision == "float32" else 2
    if isinstance(config, FilterConfig):
        return _filter_bytes(config, core, crop, slab_bytes(device))
    if isinstance(config, BlindUNetConfig):
        return _lattice_bytes(config, core, crop, slab_bytes(device), item)
    if isinstance(config, BranchUNetConfig):
        return _branch_bytes(config, core, crop, slab_bytes(device), item)
    if isinstance(config, UNetConfig) and not config.plain:
        return _whole_bytes(config, core, crop, item)
    filtered = isinstance(config, FilterUNetConfig)
    unet = config.unet if isinstance(config, FilterUNetConfig) else config
    forward = _Forward(unet, filtered, cells_of(unet, core, crop), slab_bytes(device), item)
    tile = FLOAT32 * forward.inputs * prod(extent(core, crop))
    # At the end the filter is applied to the core, and added to the correction.
    filtering = (forward.read_copies * forward.inputs + unet.out_channels) * FLOAT32 * prod(core)
    return LEAST_BYTES + tile + max(*forward.moments(), filtering)


def _filter_bytes(config: FilterConfig, core: Shape, crop: Halo, most: int) -> int:
    """Of a filter alone: the tile, the estimate, and a slab of what lies between."""
    _, height, width = core
    start, stop = next(slabs((0, core[0]), 1, FLOAT32 * height * width, most))
    z, y, x = (2 * (k // 2) for k in config.window)
    slab = (stop - start + z) * (height + y) * (width + x + 2 * LANES)
    return LEAST_BYTES + FLOAT32 * (prod(extent(core, crop)) + prod(core) + 8 * slab)


def _whole_bytes(config: UNetConfig, core: Shape, crop: Halo, item: int) -> int:
    """Of a network that is computed as it is: feature maps of the whole tile, at full resolution
    eight, and below an eighth of them a level.
    """
    tile = prod(extent(core, crop))
    maps = 8 * config.filters + config.in_channels + config.out_channels
    below = sum(
        8 * (config.filters << level) / prod(prod(config.factors(k)) for k in range(level))
        for level in range(1, config.depth + 1)
    )
    return LEAST_BYTES + int(item * tile * (maps + below)) + 2 * FLOAT32 * tile


def _lattice_bytes(config: BlindUNetConfig, core: Shape, crop: Halo, most: int, item: int) -> int:
    """Of one lattice after the other: the tile, padded; the estimate; a U-Net. Then the filter."""
    lattice = config.lattice
    z, y, x = ((low // s, high // s) for (low, high), s in zip(crop, lattice, strict=True))
    cells = as_shape([n // s for n, s in zip(core, lattice, strict=True)])
    forward = _Forward(config.unet, False, cells_of(config.unet, cells, (z, y, x)), most, item)
    filtering = _filter_bytes(FilterConfig(config.window), core, crop, most)
    tile = extent(core, crop)
    padded = prod(n + w - 1 for n, w in zip(tile, config.stem, strict=True))
    held = FLOAT32 * (prod(tile) + padded + 2 * prod(core))
    lattice_out = 2 * FLOAT32 * prod(cells)
    return max(
        filtering + 2 * FLOAT32 * prod(core),
        LEAST_BYTES + held + lattice_out + max(forward.moments()),
    )


def _branch_bytes(config: BranchUNetConfig, core: Shape, crop: Halo, most: int, item: int) -> int:
    """Of one branch after the other: the tile, what is joined so far, and a U-Net."""
    unet, tile = config.unet, prod(extent(core, crop))
    rounded = item * (tile + prod(core)) if item != FLOAT32 else 0
    held = FLOAT32 * (tile + prod(core)) + rounded
    features = unet.filters * item * prod(core)
    joined = 4 * features
    moments = [2 * joined + 3 * features]  # of a branch, and their product
    for direction in directions_of(config):
        halo = direction.halo(crop)
        levels = branch_levels(unet, direction.axis, direction.shape(core), halo)
        values = tile + max(_branch_moments(unet, direction.axis, levels))
        moments.append(joined + item * values)
    filtering = _filter_bytes(FilterConfig(config.window), core, crop, most)
    return LEAST_BYTES + max(filtering, held + max(moments))


def _branch_moments(unet: UNetConfig, axis: int, levels: list[BranchLevel]) -> Iterator[int]:
    """Values that live while each encoder and each decoder of a branch takes most."""
    skips = 0
    for number, level in enumerate(levels):
        width, given = unet.filters << number, extent(level.core, level.given)
        inputs = width // 2 if number else unet.in_channels
        padded = _behind(given, axis, unet.kernel[axis] - 1)
        # A convolution's input as it came, with zeros before it, and its output.
        yield skips + inputs * prod(given) + width * (prod(given) + prod(padded) + prod(given))
        if number == unet.depth:
            break
        skip = width * prod(extent(level.core, level.skip))
        pooling = width * (2 * prod(given) + prod(_behind(given, axis, 1)))
        yield skips + skip + pooling
        shape = extent(level.core, level.skip)
        behind = width * prod(_behind(shape, axis, unet.kernel[axis] - 1))
        below = levels[number + 1]
        upsampled = width * prod(extent(below.core, below.decoded)) * prod(unet.factors(number))
        yield skips + max(3 * skip + max(upsampled, skip), 3 * skip + 2 * behind)
        skips += skip


def _behind(shape: Shape, axis: int, cells: int) -> Shape:
    return as_shape([n + cells if a == axis else n for a, n in enumerate(shape)])


@dataclass(frozen=True)
class _Forward:
    unet: UNetConfig
    filtered: bool
    levels: list[Level]
    slab_bytes: int
    item: int

    @property
    def inputs(self) -> int:
        """Channels of the tile."""
        return self.unet.in_channels // 2 if self.filtered else self.unet.in_channels

    @property
    def read_copies(self) -> int:
        """Of what is read, while the first layer's input is made: the cells that the filter sees,
        its response, the sum of the neighbours and their share, both joined.
        """
        return (7 if self.filtered else 1) + (2 if prod(self.unet.fold) > 1 else 0)

    def width(self, level: int) -> int:
        """Channels of a level."""
        return self.unet.filters << level

    def moments(self) -> Iterator[int]:
        """What lives beside the tile at the height of each level, in the order of computing."""
        skips = before = 0
        for number, level in enumerate(self.levels[:-1]):
            shape = extent(level.core, level.encoded)
            skip = self._bytes(self.width(number), extent(level.core, level.skip))
            pooled = self._bytes(self.width(number), shape) // prod(self.unet.factors(number))
            yield skips + before + skip + pooled + self._encoding(number)
            skips, before = skips + skip, pooled
        cells = self._ended(len(self.levels) - 1)
        yield skips + before + cells + self._encoding(len(self.levels) - 1)
        for number in reversed(range(self.unet.depth)):
            level = self.levels[number]
            out = self._ended(number)
            yield skips + self._seen_cells(number, cells) + out + self._decoding(number)
            skips -= self._bytes(self.width(number), extent(level.core, level.skip))
            cells = out

    def _bytes(self, channels: int, shape: Shape) -> int:
        return self.item * channels * prod(shape)

    def _ended(self, number: int) -> int:
        """A level's output: reduced for the level above, or the estimate."""
        shape = extent(self.levels[number].core, self.levels[number].decoded)
        if number:
            return self._bytes(self.width(number - 1), shape)
        return FLOAT32 * self.unet.out_channels * prod(self.unet.fold) * prod(shape)

    def _seen_cells(self, number: int, cells: int) -> int:
        """The level below, and a copy with zeros around it where the tile ends at a face."""
        level, below = self.levels[number], self.levels[number + 1]
        shape = extent(below.core, below.decoded)
        grown = as_shape([n + 2 * (k // 2) for n, k in zip(shape, self.unet.kernel, strict=True)])
        face = any(
            have < ceil_div(want + k // 2, f)
            for k, f, sides, wants in zip(
                self.unet.kernel,
                self.unet.factors(number),
                below.decoded,
                level.between,
                strict=True,
            )
            for have, want in zip(sides, wants, strict=True)
        )
        return cells + (self._bytes(self.width(number), grown) if face else 0)

    def _encoding(self, number: int) -> int:
        """The slabs of an encoder, when they take most."""
        level = self.levels[number]
        slab = self._slab(number, level.given, level.hidden, level.encoded)
        read = 0
        if number == 0:
            _, height, width = extent(level.core, level.given)
            planes = slab.planes + 4 * (self.unet.kernel[0] // 2)
            voxels = prod(self.unet.fold) * planes * height * width
            rounded = 2 * self.unet.in_channels if self.item != FLOAT32 else 0
            read = voxels * (self.read_copies * FLOAT32 * self.inputs + rounded)
        pooling = 3 * slab.out // 4  # halved twice
        lowest = number == self.unet.depth
        return slab.peak(reading=read, ending=self._ending(number, slab) if lowest else pooling)

    def _decoding(self, number: int) -> int:
        """The slabs of a decoder, when they take most."""
        level = self.levels[number]
        slab = self._slab(number, level.skip, level.between, level.decoded)
        z, y, x = self.unet.factors(number)
        # One phase of the level below: its cells, and the response.
        phase = slab.fresh // (z * y) + 2 * slab.fresh // (z * y * x)
        return slab.peak(reading=phase, ending=self._ending(number, slab))

    def _ending(self, number: int, slab: _Slab) -> int:
        """The convolution that ends a level, of a copy where a face was cut from its input."""
        copy = slab.out if slab.at_face else 0
        if number:
            return copy + slab.out // 2
        rounded = 2 * slab.out if self.item != FLOAT32 else 0
        ends = FLOAT32 * self.unet.out_channels * prod(self.unet.fold)
        out = 2 * slab.out * ends // (self.item * self.width(0))  # unfolded, too
        return copy + rounded + out

    def _slab(self, number: int, given: Halo, have: Halo, want: Halo) -> _Slab:
        core, item = self.levels[number].core, self.item * self.width(number)
        reach = as_shape([k // 2 for k in self.unet.kernel])
        every, height, width = extent(core, have)
        wanted = (-want[0][0], core[0] + want[0][1])
        multiple = self.unet.factors(number)[0] if number < self.unet.depth else 1
        start, stop = next(slabs(wanted, multiple, item * height * width, self.slab_bytes))
        planes = stop - start
        needed = min(planes + 2 * reach[0], every)
        first = _computed(core, given, have, reach)
        second = _computed(core, have, want, reach)
        several = stop < wanted[1]
        return _Slab(
            planes=planes,
            hidden=item * needed * height * width,
            fresh=item * (planes + (0 if several else 2) * reach[0]) * first[1] * first[2],
            out=item * needed * second[1] * second[2],
            several=several,
            at_face=second != extent(core, want),
        )


@dataclass(frozen=True)
class _Slab:
    planes: int
    hidden: int
    """Between the convolutions, with the planes that are kept from the slab before."""
    fresh: int
    """Out of the first convolution."""
    out: int
    """Out of the second."""
    several: bool
    at_face: bool

    def peak(self, *, reading: int, ending: int) -> int:
        kept = self.hidden if self.several else 0
        return max(
            kept + self.fresh + max(reading, self.hidden),
            self.hidden + self.out + ending,
        )


def _computed(core: Shape, have: Halo, want: Halo, reach: Shape) -> Shape:
    """What a convolution computes: at a face also what is cut away afterwards."""
    return as_shape(
        [
            n + low + high if (low - a, high - b) != (r, r) else n + a + b
            for n, (low, high), (a, b), r in zip(core, have, want, reach, strict=True)
        ]
    )
