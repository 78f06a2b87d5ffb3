"""Blind-spot sites and what replaces them.

Krull et al. 2019: a few voxels of a patch are hidden by a neighbour's value, and the loss is taken
there alone.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from math import prod

import torch
from torch import Tensor

from n2v_scale.errors import ConfigError
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


def neighbourhood_medians(voxels: Tensor, sites: Tensor, shape: Shape, radius: Shape) -> Tensor:
    """The median of the window around each site, without the site (Höck et al. 2022).

    Parameters
    ----------
    voxels
        (n, z * y * x), finite.
    sites
        int64 (n, sites, 3).

    Returns
    -------
    Tensor
        (n, sites). At the border the window is cut, and what is missing is the nearest there is.
    """
    reach = [min(r, n - 1) for r, n in zip(radius, shape, strict=True)]
    around = [o for o in product(*(range(-r, r + 1) for r in reach)) if any(o)]
    extent = torch.tensor(shape, device=sites.device)
    values = []
    for offset in torch.tensor(around, device=sites.device):
        place = _clamped(sites + offset, extent)
        # A voxel at the border must not stand in for itself: the one across does.
        itself = (place == sites).all(dim=-1, keepdim=True)
        place = torch.where(itself, _clamped(sites - offset, extent), place)
        values.append(voxels.gather(1, flat_index(place, extent.expand_as(place))))
    return torch.stack(values).median(dim=0).values


def hidden_structures(
    sites: Tensor,
    at: Tensor,
    shape: Shape,
    mask: tuple[Shape, ...],
    radius: Shape,
    streams: Streams,
) -> Tensor:
    """Where each voxel takes its value from, so that sites and their masks are hidden.

    All of a site's structure takes the values of the same structure somewhere else nearby, so that
    its texture stays and nothing of what is hidden is left (Broaddus et al. 2020 replace by random
    values). Where structures meet, one of them counts; a site's own replacement always does.

    Parameters
    ----------
    sites, at
        Positions (n, sites, 3) and their indices in C order (n, sites), all different.
    mask
        Offsets (z, y, x) of what is hidden beside a site.
    radius
        Reach of the window that the place is drawn from; it grows until there is one that
        the structure leaves free.

    Returns
    -------
    Tensor
        int64 (n, z * y * x), indices.
    """
    extent = torch.tensor(shape, device=sites.device).expand_as(sites)
    shifts = torch.tensor(free_shifts(mask, radius, shape), device=sites.device)
    draws = (streams.rand(*sites.shape[:-1]) * len(shifts)).long()
    shift = shifts[draws.clamp_max(len(shifts) - 1)]
    beyond = (sites + shift < 0) | (sites + shift >= extent)
    shift = torch.where(beyond, -shift, shift)  # all signs of a shift leave the structure
    count = prod(shape)
    source = torch.full((len(sites), count), -1, device=sites.device)
    for offset in torch.tensor(mask, device=sites.device):
        place = sites + offset
        out = ((place < 0) | (place >= extent)).any(dim=-1, keepdim=True)
        place = torch.where(out, sites, place)
        taken = flat_index(_clamped(place + shift, extent), extent)
        # Of several, the largest: whatever the order.
        source = source.scatter_reduce(1, flat_index(place, extent), taken, "amax")
    source = source.scatter(1, at, flat_index(sites + shift, extent))
    return torch.where(source < 0, torch.arange(count, device=sites.device), source)


@cache
def free_shifts(mask: tuple[Shape, ...], radius: Shape, shape: Shape) -> list[Shape]:
    """The shifts within reach that lead a structure, or its mirror images, away from itself.

    Raises
    ------
    ConfigError
        When a patch of ``shape`` has no room for the structure beside itself.
    """
    whole = [(0, 0, 0), *mask]
    own = {tuple(abs(a - b) for a, b in zip(p, q, strict=True)) for p in whole for q in whole}
    reach = [min(r, (n - 1) // 2) for r, n in zip(radius, shape, strict=True)]
    while True:
        found = [
            as_shape(list(s))
            for s in product(*(range(-r, r + 1) for r in reach))
            if tuple(map(abs, s)) not in own
        ]
        if found:
            return found
        wider = [min(r + 1, (n - 1) // 2) for r, n in zip(reach, shape, strict=True)]
        if wider == reach:
            raise ConfigError(
                f"the blind mask hides {len(whole)} voxels in a patch of {shape}, which leaves "
                "nothing beside it: use a smaller mask or a larger patch"
            )
        reach = wider


def _clamped(position: Tensor, extent: Tensor) -> Tensor:
    """The nearest position inside a patch of ``extent``."""
    return torch.minimum(position.clamp_min(0), extent - 1)


def flat_index(position: Tensor, extent: Tensor) -> Tensor:
    """C-order index of ``position`` (…, 3) in a box of ``extent`` (…, 3)."""
    z, y, x = position.unbind(-1)
    _, ny, nx = extent.unbind(-1)
    return (z * ny + y) * nx + x
