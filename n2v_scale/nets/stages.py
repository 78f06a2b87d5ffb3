"""One level of a U-Net's encoder or decoder, computed slab by slab along Z.

What lies between two convolutions never exists as a whole: a slab of it stays in the processor's
cache, and the peak of memory is what the levels hand to each other. Nothing is computed twice::

    hidden, one slab      |  kept  |       fresh       |
    the next                               |  kept  |       fresh       |
    output, one slab          |                   |
    the next                                      |                   |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from n2v_scale.geometry import Box, Halo, Shape, as_shape
from n2v_scale.margins import Level, Planes, difference, extent, slabs
from n2v_scale.nets.convolution import Convolution, convolutions, empty_like, max_pool
from n2v_scale.nets.upsampling import UpsampledConvolution

Read = Callable[[Planes], Tensor]
"""Some planes of a tensor (b, c, z, y, x), with all of its margins along Y and X."""


class Encoder(nn.Module):
    """Two convolutions with ReLU."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.first, self.second = convolutions(block)

    def forward(
        self, read: Read, level: Level, multiple: int, slab_bytes: int
    ) -> Iterator[tuple[Planes, Tensor]]:
        """Slab after slab of the output, with its margins; ``read`` gives the input."""

        def first(wanted: Planes) -> Tensor:
            given = seen(wanted, self.first, level.core, level.given)
            x: Tensor = self.first(read(given), cut(given, wanted, level.given, level.hidden))
            return x

        margins = (level.hidden, level.encoded)
        return through(first, self.second, level.core, margins, multiple, slab_bytes)

    def halves(
        self, read: Read, level: Level, factors: Shape, slab_bytes: int
    ) -> tuple[Tensor, Tensor]:
        """What the decoder needs of the output, and all of it pooled."""
        skip = pooled = None
        encoded, kept = level.encoded[0], level.skip[0]
        inner = difference(level.encoded, level.skip)
        for (start, stop), out in self(read, level, factors[0], slab_bytes):
            part = max_pool(out, factors)
            if skip is None or pooled is None:
                channels, shape = part.shape[1], extent(level.core, level.encoded)
                fewer = as_shape([n // f for n, f in zip(shape, factors, strict=True)])
                skip = empty_like(out, channels, extent(level.core, level.skip))
                pooled = empty_like(out, channels, fewer)
            at = (start + encoded[0]) // factors[0]
            pooled[:, :, at : at + part.shape[2]] = part
            low, high = max(start, -kept[0]), min(stop, level.core[0] + kept[1])
            if low < high:
                plane = _without(out[:, :, low - start : high - start], inner)
                skip[:, :, low + kept[0] : high + kept[0]] = plane
                del plane
            del out, part
        assert skip is not None  # a core is never empty
        assert pooled is not None
        return skip, pooled


class Decoder(nn.Module):
    """Two convolutions with ReLU, of the encoder's output beside the upsampled level below."""

    def __init__(self, block: nn.Module, factors: Shape) -> None:
        super().__init__()
        both, self.second = convolutions(block)
        half = both.weight.shape[1] // 2
        self.first = Convolution(both.weight[:, :half], both.bias)
        self.upsampled = UpsampledConvolution(both.weight[:, half:], factors)
        self.multiple = factors[0]

    def forward(
        self, skip: Tensor, cells: Tensor, level: Level, below: Level, slab_bytes: int
    ) -> Iterator[tuple[Planes, Tensor]]:
        """Slab after slab of the output, with its margins.

        ``cells`` is the level below, decoded and reduced.
        """
        whole = Box.whole(level.core).expand(level.between)
        z, y, x = (-low for low, _ in below.decoded)
        cells, at = self.upsampled.padded(cells, (z, y, x), whole)
        low = level.skip[0][0]

        def first(wanted: Planes) -> Tensor:
            given = seen(wanted, self.first, level.core, level.skip)
            planes = skip[:, :, given[0] + low : given[1] + low]
            x: Tensor = self.first(planes, cut(given, wanted, level.skip, level.between))
            self.upsampled.add(x, cells, at, with_planes(whole, wanted))
            return x

        margins = (level.between, level.decoded)
        return through(first, self.second, level.core, margins, self.multiple, slab_bytes)


def through(
    first: Read,
    second: Convolution,
    core: Shape,
    margins: tuple[Halo, Halo],
    multiple: int,
    slab_bytes: int,
) -> Iterator[tuple[Planes, Tensor]]:
    """Slab after slab of ``relu(second(relu(first)))``, each of a multiple of planes.

    ``margins`` are those between the two, and those of the result.
    """
    have, want = margins
    _, height, width = extent(core, have)
    plane = second.weight.shape[1] * height * width * second.weight.element_size()
    hidden: Tensor | None = None
    done = -have[0][0]
    for wanted in slabs((-want[0][0], core[0] + want[0][1]), multiple, plane, slab_bytes):
        needed = seen(wanted, second, core, have)
        fresh, kept = first((done, needed[1])), hidden
        old = done - needed[0]
        hidden = empty_like(fresh, fresh.shape[1], (old + fresh.shape[2], height, width))
        if kept is not None:
            hidden[:, :, :old] = kept[:, :, kept.shape[2] - old :]
        torch.clamp_min(fresh, 0, out=hidden[:, :, old:])
        del fresh, kept
        done = needed[1]
        yield wanted, second(hidden, cut(needed, wanted, have, want)).relu_()


def seen(wanted: Planes, convolution: Convolution, core: Shape, margin: Halo) -> Planes:
    """The planes that a convolution sees for ``wanted`` planes, of those that there are."""
    reach = convolution.weight.shape[2] // 2
    low, high = margin[0]
    return max(-low, wanted[0] - reach), min(core[0] + high, wanted[1] + reach)


def cut(given: Planes, wanted: Planes, have: Halo, want: Halo) -> Halo:
    """What a convolution from ``given`` to ``wanted`` planes leaves away, and along Y and X."""
    _, y, x = difference(have, want)
    return (wanted[0] - given[0], given[1] - wanted[1]), y, x


def with_planes(box: Box, planes: Planes) -> Box:
    """``box`` with another range along Z."""
    return Box((planes[0], *box.start[1:]), (planes[1], *box.stop[1:]))


def _without(x: Tensor, margin: Halo) -> Tensor:
    """``x`` without a margin along Y and X."""
    for axis in (1, 2):
        low, high = margin[axis]
        x = x.narrow(axis + 2, low, x.shape[axis + 2] - low - high)
    return x
