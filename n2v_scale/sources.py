"""What is trained on: volumes, each with its own constants, held-out boxes and content.

The regions of several volumes come in one order, mixed, each volume in proportion to its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import sqrt
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client

from n2v_scale.content import CELL, Cells
from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import InputError
from n2v_scale.foreground import Foreground
from n2v_scale.geometry import Box, Shape, grid_cell, grid_indices, grid_shape
from n2v_scale.io.volume import Volume
from n2v_scale.noise import NoiseModel
from n2v_scale.regions import STRATA, Region, RegionSampler, held_out_boxes
from n2v_scale.statistics import normalisation_from
from n2v_scale.survey import Survey, survey_volume

LEAST_COMMON = 0.05
"""Content that noise alone may seem to have stays below this."""
LEAST_CHANCE = 0.1
"""Of a place that holds nothing but noise, beside one with as much content as is common."""
FEWEST_STRATA = 16
REDRAWS = 8
"""Cells of a stratum that are looked at for one with foreground."""

Chances = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Source:
    """A volume, and how it is sampled."""

    volume: Volume
    regions: RegionSampler
    held_out: tuple[Box, ...]
    survey: Survey | None = None
    """None until it is looked at."""
    foreground: Foreground | None = None
    uniform: bool = False
    """Whether every place is as likely as any other."""
    target: Volume | None = None
    """What is aimed at, voxel for voxel; None where the volume itself is all there is."""

    @cached_property
    def normalisation(self) -> Normalisation:
        """Constants by channel, from the survey."""
        assert self.survey is not None
        return normalisation_from(self.survey.statistics, self.volume.address)

    @cached_property
    def common(self) -> float:
        """The content of a common box."""
        return LEAST_COMMON if self.survey is None else _common(self.survey)

    def chances(self, region: Region, cells: Cells) -> Chances:
        """For each cell of a region, the chance that a patch there is taken, 0 to 1."""
        if self.foreground is not None:
            outside = self.foreground.over(region.t, region.c, region.box)
            shape = grid_shape(region.box.shape, cells.size)  # with what the cells leave out
            boxes = (
                grid_cell(i, cells.size, region.box.shape) for i in grid_indices(shape, (1,) * 3)
            )
            there = [not outside(box.shift(region.box.start)) for box in boxes]
            return np.array(there, np.float32).reshape(shape)
        if self.uniform or self.survey is None:
            return np.ones(cells.mean.shape, np.float32)
        content = cells.content(self.survey.channels[region.c].noise)
        found: Chances = (content / np.float32(self.common)).clip(LEAST_CHANCE, 1)
        return found


def open_sources(
    volumes: Sequence[Volume],
    patch: Shape,
    client: Client,
    *,
    seed: int = 0,
    uniform: bool = False,
    foregrounds: Sequence[Foreground | None] | None = None,
    target: Volume | None = None,
) -> tuple[Source, ...]:
    """Survey the volumes: a sample of each is read, on the client's workers.

    Raises
    ------
    InputError
        When a volume is smaller than a patch.
    """
    masks = foregrounds or [None] * len(volumes)
    samplers = []
    for k, volume in enumerate(volumes):
        if any(n < p for n, p in zip(volume.spatial_shape, patch, strict=True)):
            raise InputError(
                f"{volume.address} is {volume.spatial_shape} (z, y, x), smaller than a patch of "
                f"{patch}: pass a smaller --patch"
            )
        times, channels = volume.shape[:2]
        samplers.append(
            RegionSampler(times, channels, volume.spatial_shape, volume.chunk, patch, seed + k)
        )
    cells = sum(s.cells for s in samplers)
    sources = []
    for volume, sampler, mask in zip(volumes, samplers, masks, strict=True):
        share = max(FEWEST_STRATA, round(STRATA * sampler.cells / cells))
        regions = replace(sampler, most=share)
        places = regions.survey_boxes()
        survey = survey_volume(volume, places, client)
        weights = _weights(survey, [r.stratum for r in places], regions.strata)
        weighted = not uniform and mask is None
        unit = volume.shard or volume.chunk
        sources.append(
            Source(
                volume,
                replace(regions, weights=weights if weighted else None),
                held_out_boxes(volume.spatial_shape, unit, patch, seed=regions.seed),
                survey,
                mask,
                uniform,
                target,
            )
        )
    return tuple(sources)


def sampled_voxels(sources: Sequence[Source]) -> list[list[int]]:
    """How many finite voxels of each channel of each source the survey has read.

    Fewer than before, on a volume that has not changed: a box could not be read.
    """
    surveys = [source.survey for source in sources]
    return [[c.moments.voxels for c in survey.channels] if survey else [] for survey in surveys]


def common_noise(sources: Sequence[Source], camera: NoiseModel | None = None) -> NoiseModel | None:
    """The mean noise of all channels of all sources, normalised.

    None where that of one is not known or not to be trusted; ``camera`` is known.
    """
    known = []
    for source in sources:
        if source.survey is None:
            return None
        constants = source.normalisation
        for c, channel in enumerate(source.survey.channels):
            noise = camera or channel.noise
            if noise is None or not noise.trusted:
                return None
            known.append(noise.normalised(constants.offset[c], constants.scale[c]))
    gain = fmean(n.gain for n in known) if known else 0.0
    # What is dark matters as much as the noise grows from there.
    offset = fmean(n.gain * n.offset for n in known) / gain if gain else 0.0
    noise = NoiseModel(gain, offset, sqrt(fmean(n.read_noise**2 for n in known)))
    return noise if noise.variance(np.zeros(())) > 0 else None


def _common(survey: Survey) -> float:
    """The content that most of the content is found in: its mean, weighted by itself."""
    content = np.asarray(survey.content)
    total = float(content.sum())
    return max(LEAST_COMMON, float(np.square(content).sum()) / total) if total else LEAST_COMMON


def _weights(survey: Survey, surveyed: Sequence[int], strata: int) -> tuple[float, ...]:
    """How often strata are drawn: by what the survey's box there holds, or in the one before."""
    content = np.asarray(survey.content)
    common = _common(survey)
    nearest = np.searchsorted(surveyed, np.arange(strata), side="right") - 1
    return tuple((content / common).clip(LEAST_CHANCE, 1)[nearest].tolist())


@dataclass(frozen=True)
class SourceRegion:
    """A region of the source with this number."""

    source: int
    region: Region


class SourceRegions:
    """The regions of all sources, by number: each pass holds every stratum of each of them."""

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        self.sources, self.seed = tuple(sources), seed
        self.pass_length = sum(s.regions.pass_length for s in self.sources)
        self._pass: Any = lru_cache(maxsize=4)(self._make_pass)

    def __getitem__(self, number: int) -> SourceRegion | None:
        """Region ``number``; None where there is no foreground."""
        found: SourceRegion = self._pass(number // self.pass_length)[number % self.pass_length]
        source = self.sources[found.source]
        if source.foreground is None:
            return found
        rng = np.random.default_rng((self.seed, 10, number))
        for _ in range(REDRAWS):
            region = found.region
            if not source.foreground.outside(region.t, region.c, region.box):
                return found
            found = replace(found, region=source.regions.redraw(region, rng))
        return None

    def _make_pass(self, number: int) -> list[SourceRegion]:
        regions = [
            SourceRegion(s, region)
            for s, source in enumerate(self.sources)
            for region in source.regions.one_pass(number)
        ]
        order = np.random.default_rng((self.seed, 9, number)).permutation(len(regions))
        return [regions[k] for k in order]


def cells_under(box: Box, region: Box, chances: Chances) -> Chances:
    """The cells that a box inside ``region`` touches."""
    inner = box.shift(tuple(-a for a in region.start))
    slices = tuple(
        slice(min(a // CELL, n - 1), max(min(a // CELL, n - 1) + 1, min(n, -(-b // CELL))))
        for a, b, n in zip(inner.start, inner.stop, chances.shape, strict=True)
    )
    return chances[slices]
