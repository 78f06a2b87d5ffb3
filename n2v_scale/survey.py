"""What a stratified sample says of a volume: normalisation, noise, emptiness, with confidence.

One box from each stratum that the training will draw from, read in parallel through Dask: the time
does not depend on the volume's size.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client

from n2v_scale.content import Cells, cells_of
from n2v_scale.errors import InputError
from n2v_scale.geometry import Box
from n2v_scale.io.volume import Volume
from n2v_scale.noise import NoiseModel, fit_noise
from n2v_scale.regions import Region
from n2v_scale.statistics import ChannelStatistics, box_statistics

log = logging.getLogger(__name__)

KEPT_VALUES = 2048
"""Of a box, for the percentiles."""
PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
CONFIDENCE = 1.96
"""Standard errors on either side that hold 95% of a normal distribution."""
HOLDS_NOTHING = 0.1
"""A cell with less signal than this share of its variance shows none."""
DARK = 0.05
"""Of the way from the offset to the 99.9th percentile."""


@dataclass(frozen=True)
class BoxSample:
    """What is kept of one box: the Dask task's result."""

    moments: ChannelStatistics
    values: npt.NDArray[np.float32]
    """Spread evenly over the box, without NaN and infinity."""
    saturated: int
    """Voxels that hold the largest value of an integer type."""
    cells: Cells | None
    """None for a box that cannot be read."""


@dataclass(frozen=True)
class ChannelSurvey:
    """Of one channel, in the volume's units. The errors are half-widths at 95% confidence."""

    moments: ChannelStatistics
    mean_error: float
    std_error: float
    percentiles: dict[float, float]
    saturated: float
    """Share of the sampled voxels."""
    empty: float
    """Share of the sampled cells that are dark and hold nothing but noise."""
    noise: NoiseModel | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sampled_voxels": self.moments.voxels,
            "mean": self.moments.mean,
            "mean_error_95": self.mean_error,
            "std": self.moments.std,
            "std_error_95": self.std_error,
            "percentiles": {f"{p:g}": v for p, v in self.percentiles.items()},
            "saturated": self.saturated,
            "empty": self.empty,
            "noise": None if self.noise is None else asdict(self.noise),
        }


@dataclass(frozen=True)
class Survey:
    """Of a volume: its channels, and how much signal each sampled box holds."""

    channels: tuple[ChannelSurvey, ...]
    content: tuple[float, ...]
    """Mean share of the variance that is signal, one number a box."""

    @property
    def statistics(self) -> tuple[ChannelStatistics, ...]:
        """Mean, standard deviation and range by channel."""
        return tuple(channel.moments for channel in self.channels)


def survey_volume(volume: Volume, boxes: Sequence[Region], client: Client) -> Survey:
    """Read ``boxes`` on the client's workers and sum up what they say.

    The result depends on the volume and the boxes alone. A box that cannot be read is left out.
    """
    futures = client.map(_sampled, [volume] * len(boxes), boxes, pure=False, batch_size=64)
    samples: list[BoxSample] = client.gather(futures)
    noise: list[NoiseModel | None] = []
    channels = []
    for c in range(volume.shape[1]):
        of_channel = [s for s, box in zip(samples, boxes, strict=True) if box.c == c]
        channels.append(survey_channel(of_channel, volume.shape[0] * prod(volume.spatial_shape)))
        noise.append(channels[-1].noise)
    pairs = zip(samples, boxes, strict=True)
    content = tuple(_content(sample, noise[box.c]) for sample, box in pairs)
    return Survey(tuple(channels), content)


def _sampled(volume: Volume, sample: Region) -> BoxSample:
    try:
        return box_sample(volume.read(sample.t, sample.c, sample.box), sample.box)
    except InputError as error:
        log.warning("left out of the statistics: %s", error)
        nothing = ChannelStatistics(0, 0.0, 0.0, np.inf, -np.inf, 0)
        return BoxSample(nothing, np.empty(0, np.float32), 0, None)


def box_sample(values: npt.NDArray[Any], box: Box) -> BoxSample:
    """What is kept of the voxels of one box."""
    flat = values.reshape(-1)
    kept = flat[:: (flat.size // KEPT_VALUES) | 1].astype(np.float32)  # odd: not in step with rows
    top = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else None
    return BoxSample(
        box_statistics(values, box),
        kept[np.isfinite(kept)],
        0 if top is None else int(np.count_nonzero(values == top)),
        cells_of(values),
    )


def _content(sample: BoxSample, noise: NoiseModel | None) -> float:
    if sample.cells is None or not sample.cells.mean.size:
        return 0.0
    return float(sample.cells.content(noise).mean())


def survey_channel(samples: list[BoxSample], voxels: int) -> ChannelSurvey:
    """What the boxes of one channel say together; the volume holds ``voxels`` of it."""
    moments = ChannelStatistics(0, 0.0, 0.0, np.inf, -np.inf, 0)
    for sample in samples:
        moments = moments.merge(sample.moments)
    values = np.concatenate([np.empty(0, np.float32), *[s.values for s in samples]])
    percentiles = dict.fromkeys(PERCENTILES, float("nan"))
    if values.size:
        found = np.percentile(values, PERCENTILES)
        percentiles = {p: float(v) for p, v in zip(PERCENTILES, found, strict=True)}
    cells = [s.cells for s in samples if s.cells is not None]
    noise = noise_of(cells)
    # What is read whole is known exactly.
    unseen = sqrt(max(0.0, 1 - (moments.voxels + moments.not_finite) / voxels))
    mean_error, std_error = _errors([s.moments for s in samples if s.moments.voxels], moments)
    return ChannelSurvey(
        moments,
        unseen * mean_error,
        unseen * std_error,
        percentiles,
        sum(s.saturated for s in samples) / max(1, moments.voxels),
        _empty(cells, noise, percentiles[99.9]),
        noise,
    )


def noise_of(cells: Sequence[Cells]) -> NoiseModel | None:
    """The noise that the cells of one channel's boxes show; None where they are too few."""
    if not cells:
        return None
    largest = max(c.freedom for c in cells)
    whole = [c for c in cells if c.freedom == largest]
    means = np.concatenate([c.mean.ravel() for c in whole])
    noise = np.concatenate([c.noise.ravel() for c in whole])
    varied = np.concatenate([c.variance.ravel() for c in whole]) > 0  # padding has no noise
    return fit_noise(means[varied], noise[varied], largest)


def _empty(cells: list[Cells], noise: NoiseModel | None, bright: float) -> float:
    """Share of the cells that are dark and hold nothing but noise, or one value only."""
    total = sum(c.mean.size for c in cells)
    if not total:
        return 0.0
    offset = 0.0 if noise is None else noise.offset
    limit = offset + DARK * (bright - offset)
    found = 0
    for c in cells:
        nothing = (c.content(noise) < HOLDS_NOTHING) & (c.mean <= limit)
        found += int(np.count_nonzero(nothing | (c.variance == 0)))
    return found / total


def _errors(boxes: list[ChannelStatistics], whole: ChannelStatistics) -> tuple[float, float]:
    """Half-widths of the mean's and the standard deviation's 95% intervals.

    Boxes are the sampled units (Cochran 1977, section 9A: clusters), as voxels of a box are alike;
    that strata scatter less than chance is left out, so the intervals are rather too wide.
    """
    if len(boxes) < 2 or not whole.voxels:
        return whole.std, whole.std
    share = np.array([b.voxels for b in boxes]) / whole.voxels
    means = np.array([b.mean for b in boxes]) - whole.mean
    squares = np.array([b.std**2 for b in boxes]) + means**2 - whole.std**2
    inflation = len(boxes) / (len(boxes) - 1)
    mean_error = float(np.sqrt(inflation * np.sum((share * means) ** 2)))
    variance_error = float(np.sqrt(inflation * np.sum((share * squares) ** 2)))
    std_error = variance_error / (2 * whole.std) if whole.std > 0 else 0.0
    return CONFIDENCE * mean_error, CONFIDENCE * std_error
