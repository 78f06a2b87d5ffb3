"""A convolution of a nearest-neighbour upsampling, without the upsampling.

Every second output voxel sees the same cells through the same sums of weights, so the voxels are
computed in pairs per axis, from the cells themselves: 8 products a channel and voxel instead of
27 for a kernel of 3³ and factors of 2, and nothing of the upsampled size is stored. Along one
axis, with a kernel of 3, cells ``c`` and weights ``w``::

    cells                  c0          c1                 v1 = (w0 + w1) c0 + w2 c1
    upsampled voxels     v0  v1      v2  v3               v2 = w0 c0 + (w1 + w2) c1
    a pair                   [v1 .... v2]

Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?", for a
nearest-neighbour filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import Box, Shape, ceil_div
from n2v_scale.nets.convolution import Convolution


@dataclass(frozen=True)
class AxisPhases:
    """Which cells the voxels of a pair see, along one axis. With a factor of 1, pairs are single.

    Group ``i`` is the voxels ``factor * i - shift`` and on; it sees the cells from ``i + first``.
    """

    factor: int
    kernel: int

    @property
    def shift(self) -> int:
        """Chosen so that a pair sees as few cells as possible."""
        return (self.kernel // 2) % self.factor

    @property
    def first(self) -> int:
        """The first cell that is seen, relative to the group."""
        return (-self.shift - self.kernel // 2) // self.factor

    @property
    def taps(self) -> int:
        """How many cells are seen."""
        last = (self.factor - 1 - self.shift + self.kernel // 2) // self.factor
        return last - self.first + 1

    def sums(self) -> Tensor:
        """(factor, taps, kernel), 1 where a phase's tap adds a weight of the kernel."""
        table = torch.zeros(self.factor, self.taps, self.kernel, dtype=torch.float64)
        for phase, k in product(range(self.factor), range(self.kernel)):
            cell = (phase - self.shift + k - self.kernel // 2) // self.factor
            table[phase, cell - self.first, k] = 1
        return table

    def groups(self, start: int, stop: int) -> tuple[int, int]:
        """The groups that share a voxel with ``start <= v < stop``."""
        return (start + self.shift) // self.factor, ceil_div(stop + self.shift, self.factor)

    def cells(self, groups: tuple[int, int]) -> tuple[int, int]:
        """The cells that groups see."""
        return groups[0] + self.first, groups[1] - 1 + self.first + self.taps

    def voxels(self, phase: int, start: int, stop: int) -> tuple[slice, tuple[int, int]]:
        """Where the voxels of one phase lie in ``start <= v < stop``, and their groups."""
        groups = (
            ceil_div(start + self.shift - phase, self.factor),
            ceil_div(stop + self.shift - phase, self.factor),
        )
        at = self.factor * groups[0] - self.shift + phase - start
        return slice(at, None, self.factor), groups


class UpsampledConvolution(nn.Module):
    """Adds ``convolution(upsample(cells))`` to a tensor of the upsampled resolution."""

    def __init__(self, weight: Tensor, factors: Shape) -> None:
        """``weight`` is (outputs, inputs, kz, ky, kx) of the convolution after the upsampling."""
        super().__init__()
        kernel = weight.shape[2:]
        self.axes = [AxisPhases(f, k) for f, k in zip(factors, kernel, strict=True)]
        z, y, x = (axis.sums().to(weight.device) for axis in self.axes)
        summed = torch.einsum("oizyx,aZz,bYy,cXx->abcoiZYX", weight.detach().double(), z, y, x)
        summed = summed.to(weight.dtype).flatten(2, 3)  # phases along X beside the outputs
        self.phases = nn.ModuleList(
            Convolution(summed[a, b]) for a in range(factors[0]) for b in range(factors[1])
        )

    def padded(self, cells: Tensor, at: Shape, out: Box) -> tuple[Tensor, Shape]:
        """``cells``, whose first is at ``at``, with zeros wherever ``out`` sees more than there
        are, and where its first is then; positions are relative to the core's.
        """
        around, starts = [], []
        for axis, phases in enumerate(self.axes):
            first, last = phases.cells(phases.groups(out.start[axis], out.stop[axis]))
            end = at[axis] + cells.shape[axis + 2]
            around.append((max(0, at[axis] - first), max(0, last - end)))
            starts.append(at[axis] - around[-1][0])
        z, y, x = starts
        if not any(any(sides) for sides in around):
            return cells, (z, y, x)
        return F.pad(cells, [n for sides in reversed(around) for n in sides]), (z, y, x)

    def add(self, out: Tensor, cells: Tensor, at: Shape, box: Box) -> None:
        """Add the response to ``cells``, which :meth:`padded` made, to ``out``, which is ``box``.

        Channels of ``out`` are this layer's outputs; positions are relative to the core's.
        """
        z, y, x = self.axes
        groups = x.groups(box.start[2], box.stop[2])
        x_cells = _slice(x.cells(groups), at[2])
        x_first = box.start[2] - (x.factor * groups[0] - x.shift)
        for number, convolution in enumerate(self.phases):
            phase_z, phase_y = divmod(number, y.factor)
            z_voxels, z_groups = z.voxels(phase_z, box.start[0], box.stop[0])
            y_voxels, y_groups = y.voxels(phase_y, box.start[1], box.stop[1])
            if z_groups[0] >= z_groups[1] or y_groups[0] >= y_groups[1]:
                continue
            z_cells, y_cells = _slice(z.cells(z_groups), at[0]), _slice(y.cells(y_groups), at[1])
            seen = convolution(cells[:, :, z_cells, y_cells, x_cells], self._valid)
            # (b, phases of X * outputs, z, y, groups) to (b, outputs, z, y, x)
            seen = seen.unflatten(1, (x.factor, -1)).permute(0, 2, 3, 4, 5, 1).flatten(4)
            out[:, :, z_voxels, y_voxels] += seen.narrow(4, x_first, box.shape[2])

    @property
    def _valid(self) -> tuple[tuple[int, int], ...]:
        return tuple((axis.taps // 2, axis.taps // 2) for axis in self.axes)


def _slice(cells: tuple[int, int], at: int) -> slice:
    return slice(cells[0] - at, cells[1] - at)
