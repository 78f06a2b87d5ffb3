"""What a sample says of a volume's noise, and so how it is best denoised."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.base import compute
from dask.delayed import delayed

from n2v_scale.correlation import (
    AXES,
    PATTERN,
    AxisCorrelation,
    LineCells,
    axis_correlation,
    corrected,
    line_cells,
)
from n2v_scale.errors import InputError
from n2v_scale.io.volume import Volume, check_dtype
from n2v_scale.noise import NoiseModel
from n2v_scale.recommendation import Recommendation, recommend
from n2v_scale.statistics import SampledBox, sample_boxes
from n2v_scale.survey import BoxSample, ChannelSurvey, box_sample, survey_channel

log = logging.getLogger(__name__)

SAMPLED_VOXELS, FEWEST_BOXES = 2**24, 32
"""Of a channel: a volume up to this size is read whole, of a larger one about as much, in at least
so many boxes."""
NARROWEST = 4
"""Voxels along an axis that a mask [1 -2 1] needs to leave something."""
PILE = 3
"""So many times as often as its neighbour a value at the range's end must occur to be a pile."""
FEWEST_PILED = 10
FILTERS: dict[str, tuple[int, tuple[int, ...]]] = {
    "z": (0, (1, 2)),
    "y": (1, (0, 2)),
    "x": (2, (0, 1)),
    "y in plane": (1, (2,)),
    "x in plane": (2, (1,)),
}
"""What is looked at: along which axis, and across which ones the signal is taken away."""


@dataclass(frozen=True)
class BoxNoise:
    """What is kept of one box: the Dask task's result."""

    sample: BoxSample
    lines: dict[str, LineCells]
    """By the name of the filter."""


@dataclass(frozen=True)
class ChannelDiagnosis:
    """Of one channel, in the volume's units."""

    survey: ChannelSurvey
    noise: NoiseModel | None
    """The survey's, corrected for the correlation; None where there is too little to see it."""
    correlation: tuple[AxisCorrelation, ...]
    """Along z, y and x."""
    saturated: float
    """Share of the voxels at the highest value, where these pile up."""
    clipped: float
    """The same at the lowest value: clipped by the camera, or padding."""
    cells: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
    """Mean and corrected noise variance of the sampled cells: the mean-variance plot."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        described = self.survey.to_dict() | {"saturated": self.saturated, "clipped": self.clipped}
        return described | {
            "noise": None if self.noise is None else asdict(self.noise),
            "noise_uncorrected": described["noise"],
            "correlation": {
                found.axis: {"lags": list(found.lags), "errors_95": list(found.errors)}
                for found in self.correlation
            },
        }


@dataclass(frozen=True)
class Diagnosis:
    """Of a volume: its channels, and what follows for all of them."""

    channels: tuple[ChannelDiagnosis, ...]
    recommendation: Recommendation

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "recommendation": self.recommendation.to_dict(),
            "channels": [channel.to_dict() for channel in self.channels],
        }


def diagnose_volume(volume: Volume, *, seed: int = 0) -> Diagnosis:
    """See :func:`n2v_scale.diagnose`.

    Runs as Dask tasks on the current client, on threads without one, and depends on the volume and
    ``seed`` alone.
    """
    check_dtype(volume)
    places = sample_boxes(volume, count=_count(volume), seed=seed)
    task = delayed(_box_noise, pure=False)
    results: tuple[BoxNoise | None, ...] = compute(*(task(volume, place) for place in places))
    voxels = volume.shape[0] * prod(volume.spatial_shape)
    found = tuple(
        _channel([r for r, p in zip(results, places, strict=True) if r and p.c == c], voxels)
        for c in range(volume.shape[1])
    )
    noises = [(channel.noise, channel.correlation) for channel in found]
    return Diagnosis(found, recommend(noises, voxels))


def _count(volume: Volume) -> int:
    """How many boxes a channel: all of a small volume, a sample of a large one."""
    largest = max(place.box.size for place in sample_boxes(volume, count=FEWEST_BOXES))
    return max(FEWEST_BOXES, SAMPLED_VOXELS // largest)


def _box_noise(volume: Volume, place: SampledBox) -> BoxNoise | None:
    """The Dask task; None for a box that cannot be read."""
    try:
        values = volume.read(place.t, place.c, place.box)
    except InputError as error:
        log.warning("left out of the diagnosis: %s", error)
        return None
    lines = {}
    for name, (axis, across) in FILTERS.items():
        wide = [a for a in across if values.shape[a] >= NARROWEST]
        if wide and values.shape[axis] >= 2:
            lines[name] = line_cells(values, axis, wide)
    return BoxNoise(box_sample(values, place.box), lines)


def _channel(boxes: Sequence[BoxNoise], voxels: int) -> ChannelDiagnosis:
    survey = survey_channel([box.sample for box in boxes], voxels)
    correlation = correlations([box.lines for box in boxes])
    noise = None if survey.noise is None else corrected(survey.noise, correlation)
    factor = 1.0
    if noise is not None and survey.noise is not None and survey.noise.read_noise > 0:
        factor = (noise.read_noise / survey.noise.read_noise) ** 2
    values = np.concatenate([np.empty(0, np.float32), *[box.sample.values for box in boxes]])
    cells = [box.sample.cells for box in boxes if box.sample.cells is not None]
    means = np.concatenate([np.empty(0, np.float32), *[c.mean.ravel() for c in cells]])
    variances = np.concatenate([np.empty(0, np.float32), *[c.noise.ravel() for c in cells]])
    known = np.isfinite(means) & np.isfinite(variances)
    return ChannelDiagnosis(
        survey,
        noise,
        correlation,
        max(survey.saturated, pile(values, -1)),
        pile(values, 0),
        (means[known], variances[known] * np.float32(factor)),
    )


def correlations(boxes: Sequence[dict[str, LineCells]]) -> tuple[AxisCorrelation, ...]:
    """Along z, y and x, from what was kept of the boxes.

    A pattern that repeats from plane to plane vanishes under a mask along z: where there is one, y
    and x are looked at in the plane alone.
    """
    found = {
        name: axis_correlation(name[0], [box[name] for box in boxes if name in box])
        for name in FILTERS
    }
    in_plane = found["z"].pattern >= PATTERN
    names = [f"{a} in plane" if in_plane and a != "z" else a for a in AXES]
    return tuple(found[name] for name in names)


def pile(values: npt.NDArray[np.float32], end: int) -> float:
    """Share of the values that lie at the lowest (0) or highest (-1) one, if they pile up there."""
    distinct, counts = np.unique(values, return_counts=True)
    if distinct.size < 3:
        return 0.0
    at_end, beside = (counts[-1], counts[-2]) if end else (counts[0], counts[1])
    piled = at_end >= FEWEST_PILED and at_end > PILE * beside
    return float(at_end / values.size) if piled else 0.0
