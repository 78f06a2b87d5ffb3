"""A U-Net as it is applied to tiles: the trained function, with less work and memory.

The same sums in another order: batch normalisation is folded into the convolutions; every layer
computes only what the core needs of it (:mod:`n2v_scale.margins`); nothing is upsampled or
joined (:mod:`n2v_scale.nets.upsampling`); levels are computed in slabs
(:mod:`n2v_scale.nets.stages`). In float64 the result is the trained network's to 1e-14.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, as_shape
from n2v_scale.margins import Level, Planes, cells_of, extent
from n2v_scale.nets.convolution import (
    Convolution,
    convolutions,
    empty_like,
    layout,
)
from n2v_scale.nets.stages import Decoder, Encoder, Read, with_planes
from n2v_scale.nets.unet import UNet, fold, unfold

ReadBox = Callable[[Box], Tensor]
"""The voxels of a box of a tile, (b, c, z, y, x)."""

PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""What the U-Net computes in; None leaves its weights as they are."""


class UNetInference(nn.Module):
    """A trained :class:`UNet`, for tiles."""

    def __init__(self, network: UNet, *, slab_bytes: int, precision: str = "float32") -> None:
        super().__init__()
        config = self.config = network.config
        self.slab_bytes = slab_bytes
        self.encoders = [Encoder(block) for block in network.encoder]
        self.decoders = [
            Decoder(block, config.factors(level)) for level, block in enumerate(network.decoder)
        ]
        self.reduce = convolutions(network.reduce)
        self.layers = nn.ModuleList([*self.encoders, *self.decoders, *self.reduce])
        self.layers.to(PRECISIONS[precision])
        # The head stays: its output would be rounded to three digits.
        self.head = Convolution(network.head.weight, network.head.bias)

    def forward(self, x: Tensor, crop: Halo = NO_HALO, inside: Box | None = None) -> Tensor:
        """The estimate for the core of a tile; see :meth:`UNet.forward`."""
        del inside
        return self.run(lambda box: x[(..., *box.slices)], as_shape(list(x.shape[2:])), crop)

    def run(self, read: ReadBox, shape: Shape, crop: Halo) -> Tensor:
        """The estimate for the core of a tile of ``shape``, of which boxes are asked for."""
        core = as_shape([n - low - high for n, (low, high) in zip(shape, crop, strict=True)])
        levels = cells_of(self.config, core, crop)
        planes: Read = self._folded(read, levels[0], crop)
        skips: list[Tensor] = []
        for number, level in enumerate(levels[:-1]):
            skip, pooled = self.encoders[number].halves(
                planes, level, self.config.factors(number), self.slab_bytes
            )
            skips.append(skip)
            planes = _planes(pooled, levels[number + 1])
            del skip, pooled
        cells = self._lowest(planes, levels[-1])
        del planes
        for number in reversed(range(self.config.depth)):
            cells = self._decoded(number, skips.pop(), cells, levels)
        return cells

    def _folded(self, read: ReadBox, level: Level, crop: Halo) -> Read:
        """Planes of the input in folded cells, with the margins that the first level is given."""
        cell, dtype = self.config.fold, self.encoders[0].first.weight.dtype
        whole = Box.whole(level.core).expand(level.given)

        def planes(wanted: Planes) -> Tensor:
            box = with_planes(whole, wanted)
            scaled = Box(_times(box.start, cell), _times(box.stop, cell))
            return fold(read(scaled.shift(tuple(low for low, _ in crop))).to(dtype), cell)

        return planes

    def _lowest(self, planes: Read, level: Level) -> Tensor:
        """The lowest level, encoded and reduced; of a network without poolings, the estimate."""
        slabs = self.encoders[-1](planes, level, 1, self.slab_bytes)
        return self._collected(self.config.depth, level, slabs)

    def _decoded(self, number: int, skip: Tensor, cells: Tensor, levels: list[Level]) -> Tensor:
        """A level, decoded and reduced; the highest is the estimate."""
        level, below = levels[number], levels[number + 1]
        slabs = self.decoders[number](skip, cells, level, below, self.slab_bytes)
        return self._collected(number, level, slabs)

    def _collected(
        self, number: int, level: Level, slabs: Iterable[tuple[Planes, Tensor]]
    ) -> Tensor:
        """Slabs of a level, each through the 1x1 convolution that ends the level, joined."""
        last, cell = (
            (self.reduce[number - 1], (1, 1, 1)) if number else (self.head, self.config.fold)
        )
        shape = _times(extent(level.core, level.decoded), cell)
        low = level.decoded[0][0]
        joined: Tensor | None = None
        for (start, stop), slab in slabs:
            part = unfold(last(slab.to(last.weight.dtype, memory_format=layout(last.weight))), cell)
            if joined is None:
                joined = empty_like(part, part.shape[1], shape)
            joined[:, :, cell[0] * (start + low) : cell[0] * (stop + low)] = part
            del slab, part
        assert joined is not None  # a core is never empty
        return joined


def _planes(x: Tensor, level: Level) -> Read:
    low = level.given[0][0]
    return lambda wanted: x[:, :, wanted[0] + low : wanted[1] + low]


def _times(shape: Shape, factors: Shape) -> Shape:
    return as_shape([n * f for n, f in zip(shape, factors, strict=True)])
