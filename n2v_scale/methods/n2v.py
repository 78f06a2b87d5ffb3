"""Noise2Void (Krull, Buchholz and Jug, CVPR 2019).

Noise that is independent from voxel to voxel cannot be predicted from the neighbours, the signal
can. A few voxels are replaced by a neighbour's value, and the network learns to predict what was
there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.geometry import Box, Halo, Shape, as_shape
from n2v_scale.masks import flat_index, site_cell, stratified_sites, uniform_neighbours
from n2v_scale.methods.base import Example, TensorEstimate
from n2v_scale.noise import NoiseModel
from n2v_scale.streams import Streams

LEAST_ERROR = 0.1
"""Of the noise's variance at the mean, what a prediction errs by itself at least."""
WEIGHTS = (0.05, 4.0)
"""Bounds: a noise model that is wrong costs little."""


@dataclass(frozen=True)
class Noise2Void:
    """Stratified sites, uniform replacement without the centre, squared error at the sites.

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
    name: str = "n2v"
    blind: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """Hide the sites; see :class:`n2v_scale.methods.base.Method`."""
        b, c, *extent = batch.shape
        shape = as_shape(extent)
        voxels = batch.reshape(b * c, -1)
        sites = stratified_sites(b * c, shape, site_cell(shape, self.voxels_per_site), streams)
        neighbours = uniform_neighbours(sites, shape, self.radius, streams)
        extents = torch.tensor(shape, device=batch.device).expand_as(sites)
        at, source = flat_index(sites, extents), flat_index(neighbours, extents)
        clean = torch.nan_to_num(voxels, nan=0.0)
        hidden = clean.scatter(1, at, clean.gather(1, source))
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
        self, network: nn.Module, tile: Tensor, crop: Halo, inside: Box | None
    ) -> TensorEstimate:
        """The plain forward pass: the network sees every voxel, as in the paper."""
        return TensorEstimate(network(tile, crop, inside))

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
