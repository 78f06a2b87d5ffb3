"""The least-squares linear filter without its centre.

The best linear prediction of a voxel from its neighbours, solved in closed form from sampled
voxels (Batson and Royer 2019 call such a function J-invariant). It sees no voxel it predicts, and
it is a good denoiser within seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.errors import TrainingError
from n2v_scale.geometry import Box, Shape, as_shape

MOST_WINDOWS = 4096
"""Of one batch of patches: neighbouring windows say nearly the same."""
FEWEST_WINDOWS = 4
"""Without a missing voxel, for each weight."""
RIDGE = 1e-4
"""Added to the diagonal, relative to its mean: keeps empty or saturated samples solvable."""


class BlindFilter(nn.Module):
    """A convolution without its centre, exact for constants up to the volume's faces.

    At a face the neighbours outside do not exist. Each missing one is replaced by the mean of
    those in the window that do, which keeps the filter linear, blind and exact for a constant.
    """

    inside: Tensor
    neighbours: Tensor

    def __init__(self, kernel: Shape, hidden: tuple[Shape, ...] = ()) -> None:
        """``hidden`` are offsets from the centre that it must not see either."""
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.zeros(1, 1, *kernel))
        neighbours = torch.ones(1, 1, *kernel)
        for offset in ((0, 0, 0), *hidden):
            place = [k // 2 + o for k, o in zip(kernel, offset, strict=True)]
            if all(0 <= p < k for p, k in zip(place, kernel, strict=True)):
                neighbours[(0, 0, *place)] = 0
        self.register_buffer("neighbours", neighbours, persistent=False)

    def forward(self, x: Tensor, inside: Box | None = None, every: Shape = (1, 1, 1)) -> Tensor:
        """Filter each channel of ``x`` (b, c, z, y, x) alone; ``inside`` is the part of it that
        lies in the volume, all of it when None. Only one voxel in ``every`` is computed, from the
        first on.
        """
        b, c, *shape = x.shape
        x = x.reshape(b * c, 1, *shape)
        padding = [k // 2 for k in self.kernel]
        weight = self.weight * self.neighbours
        both = F.conv3d(x, torch.cat([weight, self.neighbours]), padding=padding, stride=every)
        out, total = both[:, :1], both[:, 1:]  # (b * c, 1, z, y, x)
        whole = Box.whole(as_shape(shape))
        share = missing_share(weight[0, 0], self.neighbours[0, 0], whole, inside or whole)
        z, y, x_ = every
        out = out + share[::z, ::y, ::x_] * total
        return out.reshape(b, c, *out.shape[2:])

    @torch.no_grad()
    def fit(self, patches: Iterable[Tensor]) -> None:
        """Solve for the weights: argmin E |x - sum_k w_k x_k|² over the voxels of ``patches``.

        Parameters
        ----------
        patches
            Normalised (b, 1, z, y, x), each at least as large as the kernel; NaN where there is no
            data. Whole windows count; where they are few, those too that miss less than half and
            not the centre, with the mean in its place.

        Raises
        ------
        TrainingError
            When no patch holds such a window, or nothing but one value.
        """
        size = prod(self.kernel)
        centre = size // 2
        moments = torch.zeros(2, size, size, dtype=torch.float64)
        count = 0
        for batch in patches:
            windows = _windows(batch.detach().cpu(), self.kernel)  # (n, size)
            windows = windows[:: max(1, len(windows) // MOST_WINDOWS)].double()
            there = torch.isfinite(windows)
            whole = there.all(dim=1)
            torn = there[:, centre] & (there.sum(dim=1) > size // 2) & ~whole
            for k, chosen in enumerate((whole, torn)):
                seen = torch.where(there[chosen], windows[chosen], 0.0)
                moments[k] += seen.T @ seen
            count += int(whole.sum())
        moments = moments[0] if count >= FEWEST_WINDOWS * size else moments.sum(dim=0)
        keep = self.neighbours.flatten().nonzero().flatten().tolist()
        if not keep:
            raise TrainingError("the blind mask hides the filter's whole window: use a smaller one")
        gram = moments[keep][:, keep]
        scale = float(gram.diagonal().mean())
        if scale <= 0:
            raise TrainingError("the sampled voxels hold no signal to fit a filter to")
        gram += RIDGE * scale * torch.eye(len(keep), dtype=torch.float64)
        solution = torch.linalg.solve(gram, moments[keep, centre])
        weight = torch.zeros(size, dtype=torch.float64)
        weight[keep] = solution
        self.weight.copy_(weight.reshape(self.weight.shape))


def missing_share(weight: Tensor, neighbours: Tensor, box: Box, inside: Box) -> Tensor:
    """The weight of the neighbours that are missing over the number of those that are there.

    For each voxel of ``box`` (z, y, x); exactly zero where all neighbours lie in ``inside``.
    """
    kinds, places = [], []
    for axis, size in enumerate(weight.shape):
        there, place = _kinds_of_voxels(
            (box.start[axis], box.stop[axis]), (inside.start[axis], inside.stop[axis]), size
        )
        kinds.append(there.to(weight))
        places.append(place.to(weight.device))
    present = torch.einsum("az,by,cx->abczyx", *kinds)
    missing = ((1 - present) * weight).sum(dim=(3, 4, 5))
    share = missing / (present * neighbours).sum(dim=(3, 4, 5)).clamp_min(1)
    for axis, place in enumerate(places):
        share = share.index_select(axis, place)
    return share


def _kinds_of_voxels(
    voxels: tuple[int, int], inside: tuple[int, int], size: int
) -> tuple[Tensor, Tensor]:
    """Along one axis, the few sets of taps that are there, (kinds, size), and each voxel's kind."""
    taps = torch.arange(size)
    seen = torch.arange(*voxels)[:, None] + taps - size // 2
    bits = ((seen >= inside[0]) & (seen < inside[1])).long() << taps
    codes, place = bits.sum(dim=1).unique(return_inverse=True)
    return (codes[:, None] >> taps) & 1, place


def _windows(batch: Tensor, kernel: Shape) -> Tensor:
    """Every whole window of ``batch`` as a row, (n, prod(kernel))."""
    unfolded = batch[:, 0]  # (b, z, y, x)
    for axis, k in enumerate(kernel):
        unfolded = unfolded.unfold(axis + 1, k, 1)  # (b, z', y', x', kz, ky, kx)
    return unfolded.reshape(-1, prod(kernel))
