"""The error of a denoised volume where there is no clean one: see :mod:`n2v_scale.blind_error`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.blind_error import BlindError, ErrorEstimate, box_error, estimate_of
from n2v_scale.diagnosis import Diagnosis, diagnose_volume
from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape, ceil_div, round_down
from n2v_scale.io.volume import Volume, check_dtype
from n2v_scale.noise import NoiseModel
from n2v_scale.own_record import means_of
from n2v_scale.predictors import Predicted, Predictor, predictor_for
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.residuals import ALIKE, LAGS, ResidualSums
from n2v_scale.statistics import SampledBox, sample_boxes
from n2v_scale.written import WrittenBlocks, written_blocks

log = logging.getLogger(__name__)

STORED_VOXELS, PREDICTED_VOXELS = 2**24, 2**22
"""Of a channel: so many are read of what is stored, and predicted anew where a model is needed."""
FEWEST_BOXES = 16
DRAWN = 4
"""Times as many boxes are drawn where some of them may hold nothing that was denoised."""
KEPT_VALUES = 4096
"""Of a box, for the range."""
EDGE = 64
ROUNDING = 1 / 12
"""Variance that whole numbers add."""
KNOWN_ERROR = 0.01
"""Of the noise's variance at 95%: how well anybody knows a camera."""
SAMPLED_ERROR = 0.06
"""The same where the camera is not known: what the estimate from a sample was seen to be off by on
simulated cameras, beside its misfit."""
PEAK = (0.1, 99.9)
"""Percentiles of the denoised volume whose distance is the PSNR's peak when none is given."""
CORRELATED = (
    "the noise is correlated along {axes}, so that a voxel's noise shows in its neighbours: the "
    "error is larger than estimated by what the model has learned of it"
)


@dataclass(frozen=True)
class PlacedError:
    """The estimated error of one box."""

    t: int
    c: int
    box: Box
    voxels: int
    mse: float


@dataclass(frozen=True)
class SelfEvaluation:
    """What a noisy volume says of the error of its denoised one; PSNR in dB, intervals of 95%."""

    of: str
    """What the error is that of: see :class:`n2v_scale.predictors.Predicted`."""
    psnr: float
    """inf where the estimated error is not above 0."""
    psnr_low: float
    psnr_high: float
    """inf where the error may be none."""
    mse: float
    mse_error: float
    loss: float
    """Mean squared difference of the blind prediction from the noisy voxels."""
    noise: float
    """Mean variance of the noise."""
    masked_psnr: float | None
    """Of a network that sees what it predicts: at voxels that were hidden from it as in training,
    which holds for any noise that is independent; None for other models."""
    noise_known: bool
    """Whether the camera was told; else it was seen in a sample."""
    db_per_percent: float
    """What 1% of the noise's variance moves the PSNR by."""
    data_range: float
    voxels: int
    residual: dict[str, tuple[float, ...]]
    """Correlation of what was taken away, by axis, lag 1 first."""
    residual_with_signal: float
    notes: tuple[str, ...]
    places: tuple[PlacedError, ...] = field(default=(), repr=False)
    """Box by box; each alone is uncertain."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON, which knows no infinity: None. Without the boxes."""
        return {
            k: None if isinstance(v, float) and not math.isfinite(v) else v
            for k, v in asdict(replace(self, places=())).items()
            if k != "places"
        }


def evaluate_itself(
    denoised: Volume,
    noisy: Volume,
    *,
    model: str | None = None,
    camera: tuple[float, float, float] | None = None,
    data_range: float | None = None,
    seed: int = 0,
    diagnosis: Diagnosis | None = None,
    progress: Progress | None = None,
) -> SelfEvaluation:
    """See :func:`n2v_scale.estimate_error`. ``diagnosis`` is that of the noisy volume, if made.

    Raises
    ------
    InputError
        When the volumes differ in shape, or nothing can be told of the noise.
    """
    denoised, noisy = means_of(denoised), means_of(noisy)
    if denoised.shape != noisy.shape:
        raise InputError(
            f"{denoised.address} is {denoised.shape} (t, c, z, y, x) and {noisy.address} is "
            f"{noisy.shape}: select the same part of both with --channel and --timepoints"
        )
    check_dtype(noisy)
    predictor = predictor_for(denoised, noisy, model=model, camera=camera)
    diagnosis = diagnosis or diagnose_volume(noisy, seed=seed)
    noise = _noise(camera, diagnosis, noisy)
    places, unseen = _places(noisy, predictor, seed)
    written = written_blocks(denoised)
    boxes = _Boxes(noise, ROUNDING if camera and np.dtype(noisy.dtype).kind in "iu" else 0.0)
    with (progress or NoProgress()).step("evaluating", len(places), "block") as bar:
        for place in places:
            found = _predicted(predictor, place, noise[place.c], written)
            if found is not None:
                boxes.add(found, place)
            bar.advance()
    noise_error = _noise_error(camera, noise)
    estimate = estimate_of(
        boxes.errors, unseen=unseen, noise_error=noise_error, seen_error=predictor.seen_error
    )
    if estimate is None:
        raise InputError(
            f"{noisy.address} holds no finite voxel that could be compared: none of the sampled "
            "ones was denoised"
        )
    masked = estimate_of(boxes.masked, unseen=unseen, noise_error=noise_error)
    peak = _peak(np.concatenate(boxes.values), denoised) if data_range is None else data_range
    psnr, low, high = estimate.psnr(peak)
    return SelfEvaluation(
        of=predictor.of,
        psnr=psnr,
        psnr_low=low,
        psnr_high=high,
        mse=estimate.mse,
        mse_error=estimate.error,
        loss=estimate.loss,
        noise=estimate.noise,
        masked_psnr=None if masked is None else masked.psnr(peak)[0],
        noise_known=camera is not None,
        db_per_percent=estimate.percent_of_noise,
        data_range=peak,
        voxels=estimate.voxels,
        residual=boxes.residual.correlation,
        residual_with_signal=boxes.residual.with_signal,
        notes=(*predictor.notes, *_notes(diagnosis, boxes.residual, estimate, camera)),
        places=tuple(boxes.places),
    )


def _predicted(
    predictor: Predictor, place: SampledBox, noise: NoiseModel, written: WrittenBlocks | None
) -> Predicted | None:
    """None for a box that cannot be read, or of which nothing is written yet."""
    here = None if written is None else written.mask(place.t, place.c, place.box)
    if here is not None and not here.any():
        return None
    try:
        found = predictor.at(place, noise)
    except InputError as error:
        log.warning("left out of the estimate: %s", error)
        return None
    if here is None:
        return found
    noisy = np.where(here, found.noisy.astype(np.float32), np.float32(np.nan))
    return replace(found, noisy=noisy)


class _Boxes:
    """What is kept of the boxes."""

    def __init__(self, noise: tuple[NoiseModel, ...], rounding: float) -> None:
        self.noise, self.rounding = noise, rounding  # what is seen in a sample holds the rounding
        self.errors: list[BlindError] = []
        self.masked: list[BlindError] = []
        self.residual = ResidualSums()
        self.values: list[npt.NDArray[Any]] = []
        self.places: list[PlacedError] = []

    def add(self, found: Predicted, place: SampledBox) -> None:
        """One more box."""
        common = (self.noise[place.c],)
        error = box_error(found.noisy, found.denoised, *common, found.seen, rounding=self.rounding)
        if error is not None:
            self.errors.append(error)
            self.places.append(PlacedError(place.t, place.c, place.box, error.voxels, error.mse))
        if found.masked is not None:
            hidden, where = found.masked
            error = box_error(found.noisy, hidden, *common, rounding=self.rounding, where=where)
            self.masked += [] if error is None else [error]
        self.residual += ResidualSums.of(found.noisy, found.blind)
        flat = found.denoised[np.isfinite(found.noisy)]
        self.values.append(flat[:: flat.size // KEPT_VALUES | 1])


def _noise(
    camera: tuple[float, float, float] | None, diagnosis: Diagnosis, noisy: Volume
) -> tuple[NoiseModel, ...]:
    """By channel: as told, or as seen in a sample."""
    if camera is not None:
        return (NoiseModel(*camera),) * noisy.shape[1]
    known = [channel.noise for channel in diagnosis.channels if channel.noise is not None]
    if len(known) < noisy.shape[1]:
        raise InputError(
            f"{noisy.address} is too small to see its noise: pass the camera's --gain, --offset "
            "and --read-noise"
        )
    return tuple(known)


def _noise_error(camera: tuple[float, float, float] | None, noise: tuple[NoiseModel, ...]) -> float:
    if camera is not None:
        return KNOWN_ERROR
    return SAMPLED_ERROR + 2 * max(model.misfit for model in noise)


def _places(noisy: Volume, predictor: Predictor, seed: int) -> tuple[list[SampledBox], float]:
    """Boxes evenly spread; where they are predicted anew, on the model's grid and small. And the
    share of what counts that is in none of them.

    Where a part of the output was left as it was, boxes are drawn until enough hold something else.
    """
    first = sample_boxes(noisy, count=FEWEST_BOXES, seed=seed)
    edge = [EDGE] * 3 if predictor.computes else list(noisy.spatial_shape)
    largest = max(prod(min(n, e) for n, e in zip(p.box.shape, edge, strict=True)) for p in first)
    voxels = PREDICTED_VOXELS if predictor.computes else STORED_VOXELS
    count = max(FEWEST_BOXES, voxels // largest)
    kept = predictor.kept
    places = [
        SampledBox(place.t, place.c, _middle(place.box, edge, predictor.stride))
        for place in sample_boxes(noisy, count=count * (1 if kept is None else DRAWN), seed=seed)
    ]
    seen = min(1.0, sum(place.box.size for place in places) / prod(noisy.shape))
    if kept is None:
        return places, 1 - seen
    telling = [place for place in places if kept.computed(place).any()]
    most = count * noisy.shape[1]
    chosen = telling[:: max(1, ceil_div(len(telling), most))]
    return chosen, 1 - seen * len(chosen) / max(1, len(telling))


def _middle(box: Box, edge: list[int], stride: Shape) -> Box:
    """A part of a box with at most so many voxels, which starts on the model's grid."""
    start, stop = [], []
    for a, b, most, s in zip(box.start, box.stop, edge, stride, strict=True):
        low = round_down(a + max(0, b - a - most) // 2, s)
        start.append(low)
        stop.append(min(b, low + most))
    return Box(as_shape(start), as_shape(stop))


def _peak(values: npt.NDArray[Any], denoised: Volume) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    low, high = np.percentile(finite, PEAK) if finite.size else (0.0, 0.0)
    if not high > low:
        raise InputError(f"{denoised.address} is constant: pass the PSNR's range with --range")
    return float(high - low)


def _notes(
    diagnosis: Diagnosis,
    residual: ResidualSums,
    estimate: ErrorEstimate,
    camera: tuple[float, float, float] | None,
) -> Iterator[str]:
    axes = dict.fromkeys(
        axis.axis for c in diagnosis.channels for axis in c.correlation if axis.strong
    )
    if axes:
        yield CORRELATED.format(axes=" and ".join(axes))
    if camera is None:
        yield (
            "the noise was seen in a sample and may be off by some percent, which is what makes "
            "the interval wide: pass the camera's --gain, --offset and --read-noise"
        )
    if estimate.mse <= 0:
        yield "the error is too small beside the noise to be told from it"
    alike = {axis: max(lags[:LAGS], default=0) for axis, lags in residual.correlation.items()}
    seen = [axis for axis, value in alike.items() if value > ALIKE]
    if seen:
        yield (
            f"what was taken away is alike along {' and '.join(seen)}: structure is lost, or the "
            "noise is correlated"
        )
