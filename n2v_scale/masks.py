"""Blind-spot sites and what replaces them.

Krull et al. 2019: a few voxels of a patch are hidden by a neighbour's value, and the loss is taken
there alone.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from n2v_scale.geometry import Shape, as_shape, grid_shape
from n2v_scale.streams import Streams


def site_cell(patch: Shape, voxels_per_site: int) -> Shape:
    """A cell of about ``voxels_per_site`` voxels, as cubic as the patch allows.

    One site is drawn in each cell, so the sites are spread evenly. Axes of extent 1 stay out.
    """
    cell = [1, 1, 1]
    axes = [axis for axis in (2, 1, 0) if patch[axis] > 1]
    while axes and prod(cell) < voxels_per_site:
        axis = min(axes, key=lambda a: cell[a])
        if cell[axis] == patch[axis]:
            axes.remove(axis)
            continue
        cell[axis] += 1
    return as_shape(cell)


def stratified_sites(batch: int, shape: Shape, cell: Shape, streams: Streams) -> Tensor:
    """One site in each cell of a grid, drawn uniformly in the cell.

    Returns
    -------
    Tensor
        int64 (b, n, 3), positions (z, y, x); on the streams' device.
    """
    device = streams.device
    counts = grid_shape(shape, cell)
    axes = [torch.arange(n, device=device) * c for n, c in zip(counts, cell, strict=True)]
    origins = torch.cartesian_prod(*axes).reshape(-1, 3)  # (n, 3)
    limits = torch.tensor(shape, device=device)
    extent = torch.minimum(origins + torch.tensor(cell, device=device), limits) - origins
    draws = streams.rand(batch, prod(counts), 3)
    return origins + torch.minimum((draws * extent).long(), extent - 1)


def uniform_neighbours(sites: Tensor, shape: Shape, radius: Shape, streams: Streams) -> Tensor:
    """For each site a neighbour, uniform over the window around it without the site itself.

    The window reaches ``radius`` voxels along each axis and is cut at the patch's border, so every
    neighbour, those in the site's own row, column and plane included, is equally likely.

    Returns
    -------
    Tensor
        int64, like ``sites`` (b, n, 3).
    """
    reach = torch.tensor(radius, device=sites.device)
    low = (sites - reach).clamp_min(0)
    high = torch.minimum(sites + reach, torch.tensor(shape, device=sites.device) - 1)
    extent = high - low + 1
    count = extent.prod(dim=-1)
    here = flat_index(sites - low, extent)
    draws = streams.rand(*sites.shape[:-1])
    pick = torch.minimum((draws * (count - 1)).long(), count - 2)
    pick = pick + (pick >= here)  # skip the site: count - 1 equally likely others
    x = pick % extent[..., 2]
    y = pick // extent[..., 2] % extent[..., 1]
    z = pick // (extent[..., 2] * extent[..., 1])
    return low + torch.stack([z, y, x], dim=-1)


def flat_index(position: Tensor, extent: Tensor) -> Tensor:
    """C-order index of ``position`` (…, 3) in a box of ``extent`` (…, 3)."""
    z, y, x = position.unbind(-1)
    _, ny, nx = extent.unbind(-1)
    return (z * ny + y) * nx + x
