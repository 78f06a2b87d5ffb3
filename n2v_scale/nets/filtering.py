"""The blind linear filter for inference: on boxes of a tile, as a convolution of eight channels.

A convolution of one channel leaves seven of a processor's eight lanes idle. Eight neighbours along
X are stored side by side already, so a volume of one channel is, without a copy, a channels-last
volume of eight, an eighth as wide::

    x            0 1 2 3 4 5 6 7 | 8 9 …
    channels of the first cell   | of the second

and the filter is a convolution from eight channels to eight that reaches into the next cell.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import Box, Halo, as_shape, ceil_div
from n2v_scale.margins import slabs
from n2v_scale.nets.convolution import Convolution
from n2v_scale.nets.linear import BlindFilter, missing_share
from n2v_scale.network_config import LANES


class FilterInference(nn.Module):
    """A trained :class:`BlindFilter`, for boxes of a tile."""

    weight: Tensor
    neighbours: Tensor

    def __init__(self, network: BlindFilter) -> None:
        super().__init__()
        neighbours = network.neighbours[0, 0]
        weight = (network.weight.detach()[0, 0] * neighbours).contiguous()
        self.register_buffer("weight", weight)
        self.register_buffer("neighbours", neighbours)
        self.weighted = Convolution(in_lanes(weight))
        self.summed = Convolution(in_lanes(neighbours))

    def forward(self, x: Tensor, box: Box, inside: Box) -> Tensor:
        """The filter's response in ``box`` of a tile ``x`` (b, c, z, y, x); see
        :meth:`BlindFilter.forward`.
        """
        b, c = x.shape[:2]
        cells = self._cells(x, box)  # (b * c, 8, z, y, x / 8)
        out = self._response(self.weighted, cells, box)
        if not inside.contains(box.expand(self._reach)):
            share = missing_share(self.weight, self.neighbours, box, inside)
            out += share * self._response(self.summed, cells, box)
        joined: Tensor = out.unflatten(0, (b, c))
        return joined

    def in_slabs(self, x: Tensor, box: Box, inside: Box, slab_bytes: int) -> Tensor:
        """:meth:`forward`, some planes at a time."""
        out = x.new_empty(*x.shape[:2], *box.shape)
        depth, height, width = box.shape
        for start, stop in slabs((0, depth), 1, x.itemsize * height * width, slab_bytes):
            first = box.start[0]
            part = Box((first + start, *box.start[1:]), (first + stop, *box.stop[1:]))
            out[:, :, start:stop] = self(x, part, inside)
        return out

    @property
    def _reach(self) -> Halo:
        z, y, x = ((k // 2, k // 2) for k in self.weight.shape)
        return z, y, x

    def _cells(self, x: Tensor, box: Box) -> Tensor:
        """What the filter sees around ``box``, zero beyond the tile, in cells of eight voxels."""
        seen = box.expand(self._reach)
        there = seen.intersect(Box.whole(as_shape(list(x.shape[2:]))))
        depth, height, width = seen.shape
        width = LANES * (ceil_div(box.shape[2], LANES) + ceil_div(width - box.shape[2], LANES))
        sides = [
            (a - p, n - (b - p))
            for p, a, b, n in zip(
                seen.start, there.start, there.stop, (depth, height, width), strict=True
            )
        ]
        padded = F.pad(
            x[(..., *there.slices)].flatten(0, 1), [n for pair in reversed(sides) for n in pair]
        )
        cells: Tensor = padded.unflatten(3, (-1, LANES))
        return cells.permute(0, 4, 1, 2, 3)

    @staticmethod
    def _response(convolution: Convolution, cells: Tensor, box: Box) -> Tensor:
        """(b * c, z, y, x) of ``box``."""
        valid = as_shape([k // 2 for k in convolution.weight.shape[2:]])
        z, y, x = ((k, k) for k in valid)
        lanes: Tensor = convolution(cells, (z, y, x))
        return lanes.permute(0, 2, 3, 4, 1).flatten(3)[..., : box.shape[2]]


def in_lanes(kernel: Tensor) -> Tensor:
    """A kernel (z, y, x) as one from eight channels to eight, (8, 8, z, y, cells)."""
    size = kernel.shape[2]
    cells = 1 + ceil_div(size - 1, LANES)
    spread = kernel.new_zeros(LANES, *kernel.shape[:2], LANES * cells)
    for lane in range(LANES):
        spread[lane, :, :, lane : lane + size] = kernel
    lanes: Tensor = spread.unflatten(3, (cells, LANES))  # (8, z, y, cells, 8)
    return lanes.permute(0, 4, 1, 2, 3)
