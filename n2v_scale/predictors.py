"""What a denoised volume's error is estimated with: itself, or its model on sampled boxes.

A blind prediction that was stored needs no model. One with each voxel's own value put back has seen
the voxel, and so have a Noise2Void network and a filter: they are asked how they answer to a change
of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from n2v_scale.blocks import as_dtype
from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import (
    IDENTITY,
    Denoiser,
    Normalisation,
    OpenOptions,
    Region,
    open_denoiser,
    tile_boxes,
)
from n2v_scale.errors import InputError
from n2v_scale.filtering import CalibratedFilter
from n2v_scale.geometry import Box, Shape
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.kept_cells import KeptCells, kept_cells
from n2v_scale.model import Model
from n2v_scale.noise import NoiseModel
from n2v_scale.own_record import record_of
from n2v_scale.prediction import make_prediction_plan
from n2v_scale.resume import recorded_plan
from n2v_scale.statistics import SampledBox

Array = npt.NDArray[Any]

NO_OUTPUT = ".n2v-scale-evaluation"
"""A plan needs a name for its output; this one, beside the input, is never written."""
AGREE = 0.02
"""Of the standard deviation: by how much the model's prediction may differ from what is stored."""
LARGEST_ROUNDING = 0.5


CHANGE = 0.02
"""Of the noise, that the voxels are changed by; beyond it a posterior's kinks bend its answer."""
FILTER_ERROR = 0.08
"""Of what a filter has seen of the noise: Stein's lemma is that of normal noise, and thresholds
bend. On simulated volumes of 10, 40 and 160 electrons gaussian was up to 3% off, tv, wavelet and
nlm 2 to 6%."""


@dataclass(frozen=True)
class Predicted:
    """Of one box (z, y, x), in the volume's units."""

    noisy: Array
    """NaN where the output took over the input."""
    denoised: Array
    """What the error is that of."""
    blind: Array
    """What is looked at for lost structure: blind, where there is such a prediction."""
    seen: Array | float = 0.0
    """How far a voxel is seen in its own prediction: see :mod:`n2v_scale.blind_error`."""
    masked: tuple[Array, npt.NDArray[np.bool_]] | None = None
    """A network's prediction of voxels that were hidden from it, and where these are."""


class Predictor(Protocol):
    """Where a prediction comes from."""

    @property
    def of(self) -> str:
        """What the error is that of."""

    @property
    def computes(self) -> bool:
        """Whether a model runs."""

    @property
    def stride(self) -> Shape:
        """Boxes start at its multiples."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the estimate, once all boxes were seen."""

    @property
    def kept(self) -> KeptCells | None:
        """What of the output is the input, and tells nothing."""

    @property
    def seen_error(self) -> float:
        """Half-width at 95% of the relative error of what was seen, beside chance."""

    def at(self, place: SampledBox, noise: NoiseModel) -> Predicted:
        """The prediction in a box, and how it answers to ``noise``."""


@dataclass(frozen=True)
class StoredBlind:
    """What is stored is blind."""

    denoised: Volume
    noisy: Volume
    notes: tuple[str, ...] = ()
    kept: KeptCells | None = None
    of: str = "the blind prediction"
    computes: bool = False
    stride: Shape = (1, 1, 1)
    seen_error: float = 0.0

    def at(self, place: SampledBox, noise: NoiseModel) -> Predicted:
        """As it is stored."""
        del noise
        stored = self.denoised.read(place.t, place.c, place.box)
        return Predicted(_telling(self.noisy, place, self.kept), stored, stored)


def _telling(noisy: Volume, place: SampledBox, kept: KeptCells | None) -> Array:
    """The noisy voxels of a box, NaN where the output took them over."""
    values = noisy.read(place.t, place.c, place.box)
    if kept is None:
        return values
    return np.where(kept.computed(place), values.astype(np.float32), np.float32(np.nan))


class _Applied:
    """A denoiser that is applied again, as it was applied."""

    computes = True
    seen_error = 0.0

    def __init__(
        self,
        denoiser: Denoiser,
        folder: str,
        denoised: Volume,
        noisy: Volume,
        kept: KeptCells | None = None,
    ) -> None:
        self.denoiser, self.folder = denoiser, folder
        self.denoised, self.noisy, self.kept = denoised, noisy, kept
        self.apart: list[float] = []
        """By how much each box differs from what is stored, in standard deviations."""

    @property
    def stride(self) -> Shape:
        """The denoiser's."""
        return self.denoiser.stride

    def _channel(self, place: SampledBox) -> int:
        """Which of the denoiser's channels that of a box is."""
        return place.c

    def _again(self, place: SampledBox, offset: float) -> tuple[npt.NDArray[np.float32], Predicted]:
        """The noisy voxels that are needed, and what is made of them; ``offset`` stands for what is
        not finite.
        """
        noisy = _telling(self.noisy, place, self.kept)
        values = self.noisy.read(place.t, place.c, self._read_box(place)).astype(np.float32)
        values = np.where(np.isfinite(values), values, np.float32(offset))
        found = self._mean(self.denoiser, place, values)
        stored = self.denoised.read(place.t, place.c, place.box)
        computed = np.ones(noisy.shape, bool) if self.kept is None else np.isfinite(noisy)
        if computed.any():
            self._compare(stored[computed], found[computed])
        written = as_dtype(found, self.denoised.dtype)  # its rounding is part of the error
        return values, Predicted(noisy, written, found)

    def _mean(self, denoiser: Denoiser, place: SampledBox, values: Array) -> Array:
        region = Region(place.t, self._channel(place), place.box, self.noisy.spatial_shape)
        mean: Array = denoiser.denoise(np.ascontiguousarray(values), region).mean
        return mean

    def _read_box(self, place: SampledBox) -> Box:
        halo, stride = self.denoiser.halo, self.denoiser.stride
        return tile_boxes(place.box, halo, stride, self.noisy.spatial_shape).data

    def _seen(self, place: SampledBox, values: Array, found: Array, noise: NoiseModel) -> Array:
        """``s² dp/dy``, on average: the answer to a random change of all voxels at once."""
        rng = np.random.default_rng((place.t, place.c, *place.box.start))
        box = self._read_box(place)
        change = 2 * rng.integers(0, 2, values.shape).astype(np.float32) - 1
        spread = np.full(values.shape, self._deviation(found, noise).mean(), np.float32)
        spread[place.box.slices_in(box)] = self._deviation(found, noise)
        changed = self._mean(self.denoiser, place, values + np.float32(CHANGE) * spread * change)
        inside = place.box.slices_in(box)
        answer: Array = (changed - found) * (spread * change)[inside] / CHANGE
        return answer

    @staticmethod
    def _deviation(mean: Array, noise: NoiseModel) -> npt.NDArray[np.float32]:
        deviation: npt.NDArray[np.float32] = np.sqrt(noise.variance(mean)).astype(np.float32)
        return deviation

    def _compare(self, stored: Array, computed: Array) -> None:
        """Remember how far the denoiser is from what is stored; rounding does not count."""
        rounded = LARGEST_ROUNDING if stored.dtype.kind in "iu" else 0.0
        apart = np.maximum(np.abs(computed - stored.astype(np.float32)) - rounded, 0)
        self.apart.append(float(np.nanmedian(apart)) / (float(np.nanstd(stored)) or 1.0))

    @property
    def notes(self) -> tuple[str, ...]:
        """What does not count, and whether the denoiser made what is stored."""
        left = () if self.kept is None else (LEFT_OUT,)
        if self.apart and float(np.median(self.apart)) > AGREE:
            return (
                *left,
                f"{self.denoised.address} is not what {self.folder} makes of "
                f"{self.noisy.address}: the error is that of the model's prediction",
            )
        return left


class FilterPredictor(_Applied):
    """A calibrated filter, which sees every voxel."""

    of = "what the filter makes"
    seen_error = FILTER_ERROR

    def __init__(
        self,
        filtering: CalibratedFilter,
        denoised: Volume,
        noisy: Volume,
        kept: KeptCells | None,
        channels: Sequence[int],
    ) -> None:
        """``channels`` are the filter's, for each of the volume."""
        super().__init__(filtering, str(filtering.folder), denoised, noisy, kept)
        self.offset, self.channels = filtering.card.offset, channels

    def at(self, place: SampledBox, noise: NoiseModel) -> Predicted:
        """See :class:`Predictor`."""
        values, found = self._again(place, self.offset[self._channel(place)])
        return replace(found, seen=self._seen(place, values, found.blind, noise))

    def _channel(self, place: SampledBox) -> int:
        return self.channels[place.c]


class ModelPredictor(_Applied):
    """A trained model."""

    def __init__(
        self,
        folder: str,
        options: OpenOptions,
        denoised: Volume,
        noisy: Volume,
        kept: KeptCells | None = None,
    ) -> None:
        self.model = Model(folder, options)
        super().__init__(self.model, folder, denoised, noisy, kept)

    @property
    def of(self) -> str:
        """How it was applied."""
        if not self.model.blind:
            return "the network's prediction"
        return "the blind prediction" if self.model.options.noise is None else "the posterior mean"

    @cached_property
    def plain(self) -> Model:
        """Without the posterior."""
        return Model(self.model.folder, replace(self.model.options, noise=None))

    @property
    def constants(self) -> Normalisation:
        """The volume's."""
        assert self.model.options.normalisation is not None
        return self.model.options.normalisation

    def at(self, place: SampledBox, noise: NoiseModel) -> Predicted:
        """See :class:`Predictor`."""
        values, found = self._again(place, self.constants.offset[place.c])
        if self.model.blind and self.model.options.noise is None:
            return found
        seen = self._seen(place, values, found.blind, noise)
        if self.model.blind:
            inner = tile_boxes(
                place.box, self.plain.halo, self.plain.stride, self.noisy.spatial_shape
            ).data.slices_in(self._read_box(place))
            return replace(found, blind=self._mean(self.plain, place, values[inner]), seen=seen)
        hides = self.model.card.method not in ("n2n", "supervised")  # those train on what is seen
        masked = self._masked(place, values) if hides else None
        return replace(found, seen=seen, masked=masked)

    def _masked(self, place: SampledBox, values: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Voxels hidden as in training, and predicted by a network that has not seen them."""
        import torch

        from n2v_scale.streams import Streams

        offset = np.float32(self.constants.offset[place.c])
        scale = np.float32(self.constants.scale[place.c])
        batch = torch.from_numpy((values - offset) / scale)[None, None]
        streams = Streams([(place.t, place.c, *place.box.start)])
        example = self.model.method.prepare(batch, streams)
        hidden = example.input[0, 0].numpy() * scale + offset
        sites = example.weight[0, 0].numpy()[place.box.slices_in(self._read_box(place))] > 0
        return self._mean(self.model, place, hidden), sites


def predictor_for(
    denoised: Volume,
    noisy: Volume,
    *,
    model: str | None,
    camera: tuple[float, float, float] | None,
) -> Predictor:
    """The way to a blind prediction: by the model that is told, or by the one on the record.

    Raises
    ------
    InputError
        When the record names a model that is gone, and what is stored is not blind; or a mask that
        is gone or another one now.
    """
    record = record_of(denoised)
    named = None if record is None else str(record["plan"]["denoiser"]["address"])
    if model is None and (named is None or named == IDENTITY):
        return StoredBlind(denoised, noisy, (NOT_KNOWN,))
    folder = normalise(model or named or "")
    if model is None and not Path(folder).exists():
        raise InputError(
            f"{denoised.address} was made by {folder}, which is not there: say where it is with "
            "--model"
        )
    opened = open_denoiser(folder)
    plan = kept = None
    if record is not None and record["plan"]["denoiser"]["key"] == opened.key:
        plan = recorded_plan(record, denoised.address, denoised.storage)
        kept = kept_cells(plan, record["plan"]["foreground"], noisy)
    if isinstance(opened, CalibratedFilter):
        if plan is None:
            opened.check_fits(noisy)
        channels = range(len(noisy.channels)) if plan is None else denoised.channels
        return FilterPredictor(opened, denoised, noisy, kept, channels)
    if plan is None:
        options = _fresh(folder, noisy, camera if opened.blind else None)
        return ModelPredictor(folder, options, denoised, noisy)
    options = replace(plan.open_options, device="cpu", threads=None, precision="float32")
    if Model(folder, OpenOptions(plain=plan.plain)).blind and plan.noise is None:
        return StoredBlind(denoised, noisy, () if kept is None else (LEFT_OUT,), kept)
    return ModelPredictor(folder, _of_channels(options, denoised.channels), denoised, noisy, kept)


def _of_channels(options: OpenOptions, channels: Sequence[int]) -> OpenOptions:
    """The constants and the noise of the channels of the output that are looked at."""
    constants, noise = options.normalisation, options.noise
    if constants is not None:
        constants = Normalisation(
            tuple(constants.offset[c] for c in channels),
            tuple(constants.scale[c] for c in channels),
        )
    chosen = None if noise is None else tuple(noise[c] for c in channels)
    return replace(options, normalisation=constants, noise=chosen)


LEFT_OUT = (
    "voxels that were left as they were (--mask, --nodata) are not counted: the error is that of "
    "the others"
)
NOT_KNOWN = (
    "nothing says what made this volume: the estimate holds only if no voxel was predicted from "
    "itself; with --model it holds for that model"
)


def _fresh(folder: str, noisy: Volume, camera: tuple[float, float, float] | None) -> OpenOptions:
    """As a prediction would open the model now."""
    told = (
        {} if camera is None else dict(zip(("gain", "offset", "read_noise"), camera, strict=True))
    )
    settings = PredictSettings(device="cpu", **told)
    plan = make_prediction_plan(noisy, folder, f"{noisy.address}{NO_OUTPUT}", settings)
    return replace(plan.open_options, threads=None)
