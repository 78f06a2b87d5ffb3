"""Global statistics of a volume from a stratified sample of it, read in parallel through Dask.

One set of constants a volume and channel, the same for every tile, block and worker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.base import compute
from dask.delayed import delayed

from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape, grid_cell, grid_shape
from n2v_scale.io.volume import Volume

log = logging.getLogger(__name__)

SAMPLED_BOXES = 64
LARGEST_BOX = 128


@dataclass(frozen=True)
class SampledBox:
    """Where a sample is read: positions within the selection, and a box."""

    t: int
    c: int
    box: Box


@dataclass(frozen=True)
class ChannelStatistics:
    """What the finite voxels of a sample say of one channel."""

    voxels: int
    mean: float
    std: float
    minimum: float
    maximum: float
    not_finite: int
    first_not_finite: Shape | None = None
    """(z, y, x) of the first NaN or infinity that was met."""

    def merge(self, other: ChannelStatistics) -> ChannelStatistics:
        """The statistics of both samples together (Chan et al. 1979)."""
        n = self.voxels + other.voxels
        if not other.voxels:
            mean, variance = self.mean, self.std**2
        elif not self.voxels:
            mean, variance = other.mean, other.std**2
        else:
            delta = other.mean - self.mean
            mean = self.mean + delta * other.voxels / n
            within = self.voxels * self.std**2 + other.voxels * other.std**2
            variance = (within + delta**2 * self.voxels * other.voxels / n) / n
        return ChannelStatistics(
            n,
            mean,
            sqrt(variance),
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.not_finite + other.not_finite,
            self.first_not_finite or other.first_not_finite,
        )


def sample_boxes(volume: Volume, *, count: int = SAMPLED_BOXES, seed: int = 0) -> list[SampledBox]:
    """At most ``count`` boxes a channel, spread evenly over space and time.

    The boxes are whole chunks where chunks are small, so little is decoded in vain.
    """
    shape = volume.spatial_shape
    cell = as_shape(
        [
            min(n, chunk if chunk <= LARGEST_BOX else LARGEST_BOX // 2)
            for n, chunk in zip(shape, _grown(volume.chunk), strict=True)
        ]
    )
    times, channels = volume.shape[:2]
    return [
        SampledBox(t, c, grid_cell(index, cell, shape))
        for c in range(channels)
        for t, index in _stratified(times, grid_shape(shape, cell), count, (seed, c))
    ]


def _grown(chunk: Shape) -> Shape:
    """Thin chunks (planes of a stack) joined to at least 16 voxels along each axis."""
    return as_shape([c * max(1, 16 // c) for c in chunk])


def _stratified(
    times: int, grid: Shape, count: int, seed: tuple[int, ...]
) -> Iterator[tuple[int, Shape]]:
    """One (time, cell) from each of ``count`` equal runs of all cells in C order."""
    rng = np.random.default_rng(seed)
    cells = times * prod(grid)
    count = min(count, cells)
    for k in range(count):
        first, last = k * cells // count, (k + 1) * cells // count
        flat = int(rng.integers(first, last))
        t, z, y, x = np.unravel_index(flat, (times, *grid))
        yield int(t), (int(z), int(y), int(x))


def _statistics_of(volume: Volume, sample: SampledBox) -> ChannelStatistics:
    """The Dask task. A box that cannot be read counts no voxels."""
    try:
        return box_statistics(volume.read(sample.t, sample.c, sample.box), sample.box)
    except InputError as error:
        log.warning("left out of the statistics: %s", error)
        return ChannelStatistics(0, 0.0, 0.0, np.inf, -np.inf, 0)


def box_statistics(stored: npt.NDArray[Any], box: Box) -> ChannelStatistics:
    """The statistics of the voxels of one box."""
    values = stored.astype(np.float64)
    finite = np.isfinite(values)
    bad = None
    if not finite.all():
        at = np.argwhere(~finite)[0] + box.start
        bad = as_shape(at.tolist())
        values = values[finite]
    missing = int(finite.size - finite.sum())
    if not values.size:
        return ChannelStatistics(0, 0.0, 0.0, np.inf, -np.inf, missing, bad)
    return ChannelStatistics(
        values.size,
        float(values.mean()),
        float(values.std()),
        float(values.min()),
        float(values.max()),
        missing,
        bad,
    )


def sample_statistics(
    volume: Volume, *, count: int = SAMPLED_BOXES, seed: int = 0
) -> tuple[ChannelStatistics, ...]:
    """Mean, standard deviation and range of each channel, from a sample.

    Runs as Dask tasks on the current client, on threads without one. The result depends on the
    volume, ``count`` and ``seed`` alone.
    """
    samples = sample_boxes(volume, count=count, seed=seed)
    task = delayed(_statistics_of, pure=False)
    results: tuple[Any, ...] = compute(*(task(volume, sample) for sample in samples))
    merged: dict[int, ChannelStatistics] = {}
    for sample, result in zip(samples, results, strict=True):
        before = merged.get(sample.c)
        merged[sample.c] = before.merge(result) if before else result
    return tuple(merged[c] for c in sorted(merged))


def normalisation_from(statistics: tuple[ChannelStatistics, ...], name: str) -> Normalisation:
    """Mean and standard deviation of each channel.

    Raises
    ------
    InputError
        When a channel holds one value only, or none that is finite.
    """
    for c, channel in enumerate(statistics):
        if not channel.voxels:
            raise InputError(f"{name}: channel {c} holds no finite, readable voxel in the sample")
        if not channel.std > 0:
            raise InputError(
                f"{name}: all {channel.voxels} sampled voxels of channel {c} are "
                f"{channel.mean:g}: a constant volume holds nothing to denoise"
            )
    return Normalisation(tuple(s.mean for s in statistics), tuple(s.std for s in statistics))
