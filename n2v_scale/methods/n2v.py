"""Noise2Void (Krull, Buchholz and Jug, CVPR 2019) and its two nearest relatives.

Noise that is independent from voxel to voxel cannot be predicted from the neighbours, the signal
can. A few voxels are replaced by a neighbour's value, and the network learns to predict what was
there.

N2V2 (Höck et al. 2022) replaces by the neighbourhood's median, which never repeats the voxel. Where
the noise of neighbours is alike, they are hidden too, as far as it is: structN2V (Broaddus et al.
2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import Box, Halo, Shape, as_shape
from n2v_scale.masks import (
    flat_index,
    hidden_structures,
    neighbourhood_medians,
    site_cell,
    stratified_sites,
    uniform_neighbours,
)
from n2v_scale.methods.base import Example, TensorEstimate
from n2v_scale.noise import NoiseModel
from n2v_scale.streams import Streams

LEAST_ERROR = 0.1
"""Of the noise's variance at the mean, what a prediction errs by itself at least."""
WEIGHTS = (0.05, 4.0)
"""Bounds: a noise model that is wrong costs little."""
MOST_HIDDEN = 0.25
"""Of the voxels: what is left must tell what was there."""


@dataclass(frozen=True)
class Noise2Void:
    """Stratified sites, a neighbour's value in their place, squared error at the sites.

    Where the noise grows with the signal, bright voxels say less and count less: the error is
    weighted with the inverse of the noise's variance where they are, as their neighbours tell. The
    weight has not seen the voxel, so the best prediction is the mean as before; it is found from
    fewer voxels.
    """

    voxels_per_site: int = 16
    """One voxel in this many is hidden and predicted."""
    radius: Shape = (2, 2, 2)
    """Reach of the window that replacements are drawn from, per axis."""
    noise: NoiseModel | None = None
    """Of normalised voxels; None weights all alike."""
    replacement: Literal["uniform", "median"] = "uniform"
    """A neighbour's value, each equally likely; or the median of all of them."""
    blind_mask: tuple[Shape, ...] = ()
    """What is hidden beside each site, as offsets (z, y, x) from it."""
    name: str = "n2v"
    blind: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    reach: ClassVar[Shape] = (0, 0, 0)
    passes: ClassVar[int] = 1

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """Hide the sites; see :class:`n2v_scale.methods.base.Method`."""
        b, c, *extent = batch.shape
        shape = as_shape(extent)
        voxels = batch.reshape(b * c, -1)
        sites = stratified_sites(b * c, shape, site_cell(shape, self._voxels_a_site), streams)
        at = flat_index(sites, torch.tensor(shape, device=batch.device).expand_as(sites))
        clean = torch.nan_to_num(voxels, nan=0.0)
        hidden = self._hidden(clean, sites, at, shape, streams)
        weight = torch.zeros_like(clean).scatter(1, at, 1.0) * torch.isfinite(voxels)
        hidden, weight = hidden.reshape(batch.shape), weight.reshape(batch.shape)
        if self.noise is not None:
            weight = weight * self._precision(self._local_mean(hidden))
        return Example(hidden, clean.reshape(batch.shape), weight)

    def loss(self, output: Tensor, example: Example) -> Tensor:
        """Mean squared error over the hidden sites, weighted with the precision of the noise."""
        error = (output - example.target).square() * example.weight
        return error.sum() / (example.weight > 0).sum().clamp_min(1)

    def infer(
        self,
        network: nn.Module,
        tile: Tensor,
        crop: Halo,
        inside: Box | None,
        origin: Shape = (0, 0, 0),
    ) -> TensorEstimate:
        """The plain forward pass: the network sees every voxel, as in the paper."""
        del origin
        return TensorEstimate(network(tile, crop, inside))

    @property
    def _voxels_a_site(self) -> int:
        return max(self.voxels_per_site, round((1 + len(self.blind_mask)) / MOST_HIDDEN))

    def _hidden(
        self, voxels: Tensor, sites: Tensor, at: Tensor, shape: Shape, streams: Streams
    ) -> Tensor:
        """The voxels (n, z * y * x) with the sites replaced."""
        if self.blind_mask:
            where = (self.blind_mask, self.radius)
            return voxels.gather(1, hidden_structures(sites, at, shape, *where, streams))
        if self.replacement == "median":
            return voxels.scatter(1, at, neighbourhood_medians(voxels, sites, shape, self.radius))
        neighbours = uniform_neighbours(sites, shape, self.radius, streams)
        source = flat_index(neighbours, torch.tensor(shape, device=at.device).expand_as(sites))
        return voxels.scatter(1, at, voxels.gather(1, source))

    def _precision(self, mean: Tensor) -> Tensor:
        """The inverse variance where the signal is ``mean``; 1 at the volume's mean, which is 0."""
        assert self.noise is not None
        gain, dark, floor = self.noise.gain, self.noise.offset, self.noise.read_noise**2
        typical = gain * max(0.0, -dark) + floor
        variance = gain * (mean - dark).clamp_min(0) + floor
        return ((1 + LEAST_ERROR) * typical / (variance + LEAST_ERROR * typical)).clamp(*WEIGHTS)

    def _local_mean(self, voxels: Tensor) -> Tensor:
        """Over the window that replacements come from, (b, c, z, y, x)."""
        b, c, *shape = voxels.shape
        both = torch.cat([voxels.reshape(b * c, 1, *shape), voxels.new_ones(1, 1, *shape)])
        for axis, reach in enumerate(self.radius):
            size, padding = [1, 1, 1], [0, 0, 0]
            size[axis], padding[axis] = 2 * reach + 1, reach
            both = F.conv3d(both, voxels.new_ones(1, 1, *size), padding=padding)
        means: Tensor = both[:-1] / both[-1]  # sums over the window, and how many are there
        return means.reshape(voxels.shape)
