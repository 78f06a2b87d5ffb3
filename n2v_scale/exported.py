"""A model as it is exported: which graph, of what sizes, and files that say what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Normalisation, OpenOptions, Region
from n2v_scale.errors import ConfigError, ModelError
from n2v_scale.export_files import (
    EXAMPLE_CELLS,
    answers_of_onnx,
    answers_of_torchscript,
    onnx_file,
    torchscript_file,
)
from n2v_scale.export_graph import ExportedModel
from n2v_scale.export_samples import Sample, sample_for, training_volume
from n2v_scale.geometry import Box, Shape, as_shape, round_up
from n2v_scale.io.volume import Volume
from n2v_scale.known_noise import KnownNoise, noise_for
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.model import Model
from n2v_scale.model_card import read_kind
from n2v_scale.noise import NoiseModel

FloatArray = npt.NDArray[np.float32]

COMPARED = 40
"""Voxels along each axis of an image that files are compared on: what they take grows with it."""
MOST_DIFFERENT = 1e-4
"""Of the output's standard deviation: by how much a file may differ from the model."""


@dataclass(frozen=True)
class Checked:
    """A graph that was written and opened again."""

    kind: str
    """``torchscript`` or ``onnx``."""
    difference: float
    """The largest to the model's own output, in its standard deviations."""
    bytes: int


class Export:
    """A model as it is exported: which graph, of what sizes, tried on what."""

    def __init__(self, folder: Path, settings: PredictSettings) -> None:
        """``settings`` say what of the estimate, and with which noise."""
        check_can_be_exported(folder)
        plain = Model(folder)
        self.card = card = plain.card
        self.constants = Normalisation(card.trained_on.offset, card.trained_on.scale)
        self.volume = training_volume(card.trained_on)
        self.known = known_noise(plain, self.volume, settings)
        self.std = settings.parts == 2
        self.model = Model(
            folder, OpenOptions(self.constants, noise=self.known.noise, std=self.std)
        )
        if self.std and not self.model.knows_std:
            why = self.known.why_not or f"{card.method} predicts none"
            raise ConfigError(f"there is no standard deviation to export: {why}")

    @property
    def flat(self) -> bool:
        """Whether images have no Z."""
        return self.card.trained_on.shape[2] == 1

    @property
    def channels(self) -> int:
        """Of an image: those of the training volume."""
        return len(self.constants.offset)

    @cached_property
    def step(self) -> Shape:
        """What extents are multiples of, so that tiles that begin at them are in phase."""
        method = self.model.method
        partition = method.partition if isinstance(method, Noise2Self) else (1, 1, 1)
        return as_shape([lcm(s, p) for s, p in zip(self.model.stride, partition, strict=True)])

    @property
    def halo(self) -> Shape:
        """How far an output voxel sees, per axis, in multiples of the step."""
        sides = zip(self.model.halo, self.step, strict=True)
        z, y, x = (round_up(max(pair), step) for pair, step in sides)
        return 0 if self.flat else z, y, x

    @property
    def least(self) -> Shape:
        """Of a tile: what its halo leaves over is one step."""
        return as_shape([2 * h + s for h, s in zip(self.halo, self.step, strict=True)])

    @cached_property
    def sample(self) -> Sample:
        """The image to try it on."""
        return sample_for(self.card.trained_on, self.volume, self.step, self.least)

    @cached_property
    def graph(self) -> ExportedModel:
        """What is exported."""
        noise = self.known.noise
        pairs = zip(self.constants.offset, self.constants.scale, strict=True)
        normalised = (
            None
            if noise is None
            else tuple(n.normalised(*pair) for n, pair in zip(noise, pairs, strict=True))
        )
        return ExportedModel(
            self.model.network, self.model.method, normalised, flat=self.flat, std=self.std
        ).eval()

    def example(self) -> torch.Tensor:
        """An image to record the graph with, (2, c, …)."""
        shape = [EXAMPLE_CELLS * s for s in self.model.stride]
        drawn = torch.Generator().manual_seed(0)
        return torch.randn(2, self.channels, *shape[1 if self.flat else 0 :], generator=drawn)

    def metadata(self) -> dict[str, Any]:
        """What a program needs to know beside the graph; it travels in the file."""
        axes = "bcyx" if self.flat else "bczyx"
        return {
            "package_version": self.card.package_version,
            "method": self.card.method,
            "weights_sha256": self.card.weights_sha256,
            "axes": axes,
            "offset": list(self.constants.offset),
            "scale": list(self.constants.scale),
            "multiple_of": list(self.step[1 if self.flat else 0 :]),
            "halo": list(self.halo[1 if self.flat else 0 :]),
            "outputs": ["denoised", "std"] if self.std else ["denoised"],
            "own_value": self.known.noise is not None,
            "usage": "give (image - offset) / scale, take output * scale + offset (std * scale)",
        }

    def normalised(self, values: FloatArray) -> FloatArray:
        """An image (c, z, y, x) as the graph takes it, (1, c, …)."""
        offset, scale = (
            np.asarray(n, np.float32)[:, None, None, None]
            for n in (self.constants.offset, self.constants.scale)
        )
        image = ((values - offset) / scale).astype(np.float32)[None]
        return image[:, :, 0] if self.flat else image

    def own_answer(self, values: FloatArray) -> list[FloatArray]:
        """The model's, of an image (c, z, y, x) that is a whole volume; in its units."""
        shape = as_shape(list(values.shape[1:]))
        found = [
            self.model.denoise(image, Region(0, c, Box.whole(shape), shape))
            for c, image in enumerate(values)
        ]
        means = np.stack([f.mean for f in found]).astype(np.float32)
        if not self.std:
            return [means]
        stds = [f.std for f in found if f.std is not None]
        return [means, np.stack(stds).astype(np.float32)]

    def difference(self, answers: Callable[[FloatArray], list[FloatArray]]) -> float:
        """The largest between what a file says and the model, over the model's spread.

        Of the sample, and of two parts of it in one batch, of another size.
        """
        z, y, x = (
            min(n, round_up(COMPARED, s))
            for n, s in zip(self.sample.values.shape[1:], self.step, strict=True)
        )
        values = self.sample.values[:, :z, :y, :x]
        smaller = [
            max(s, n * 2 // 3 // s * s) for n, s in zip(values.shape[1:], self.step, strict=True)
        ]
        z, y, x = smaller
        parts = (values[:, :z, :y, :x], values[:, -z:, -y:, -x:])
        worst = 0.0
        for batch in ((values,), parts):
            images = np.concatenate([self.normalised(part) for part in batch])
            found = answers(images)
            for k, part in enumerate(batch):
                worst = max(worst, self._apart([one[k] for one in found], part))
        return worst

    def _apart(self, found: list[FloatArray], values: FloatArray) -> float:
        own = self.own_answer(values)
        names = np.asarray(self.constants.scale)[:, None, None, None]
        offsets = np.asarray(self.constants.offset)[:, None, None, None]
        expected = [(own[0] - offsets) / names, *(s / names for s in own[1:])]
        spread = max(float(expected[0].std()), 1e-12)
        return max(
            float(np.abs(one.reshape(want.shape) - want).max()) / spread
            for one, want in zip(found, expected, strict=True)
        )


def check_can_be_exported(folder: Path) -> None:
    """Raise a ModelError for a denoiser that is no network."""
    kind = read_kind(folder)
    if kind != "network":
        raise ModelError(
            f"{folder} is a denoiser of kind {kind!r}, a calibrated classical filter, and no "
            "network: there is nothing to export; other programs have that filter too, and "
            f"`n2v-scale model show {folder}` prints its parameter"
        )


def known_noise(model: Model, volume: Volume | None, settings: PredictSettings) -> KnownNoise:
    """The noise that the voxels' own values are put back with, as in a prediction of the training
    volume; where that is gone, the camera's as told, or what the card says of a sample.
    """
    if volume is not None or not model.blind or settings.posterior is False:
        return noise_for(model, volume, settings) if volume is not None else _told(model, settings)
    if settings.camera is not None:
        return _told(model, settings)
    asked = model.card.training
    told = [asked.get(name) for name in ("gain", "offset", "read_noise")]
    channels = len(model.card.trained_on.channels)
    if all(value is not None for value in told):
        return KnownNoise((NoiseModel(*(float(v or 0) for v in told)),) * channels)
    survey = model.card.trained_on.survey or [{}] * channels
    seen = [NoiseModel(**one["noise"]) for one in survey if one.get("noise")]
    if len(seen) == channels and (settings.posterior or all(n.trusted for n in seen)):
        return KnownNoise(tuple(seen))
    return KnownNoise(
        None,
        "the training volume is not there to see its noise, and the card does not tell: "
        "--gain, --offset and --read-noise do",
    )


def _told(model: Model, settings: PredictSettings) -> KnownNoise:
    channels = len(model.card.trained_on.channels)
    if not model.blind and (settings.posterior or settings.camera is not None):
        raise ConfigError(
            "--posterior, --gain, --offset and --read-noise are for a model that predicts a voxel "
            "without having seen it, and this one sees it: leave them out"
        )
    if not model.blind:
        return KnownNoise(None)
    if settings.camera is None or settings.posterior is False:
        return KnownNoise(None, "--no-posterior was given")
    return KnownNoise((NoiseModel(*settings.camera),) * channels)


def export_files(export: Export, wanted: Sequence[tuple[str, Path]]) -> list[Checked]:
    """Write graphs, each a kind and a place, and check them.

    Raises
    ------
    ModelError
        When a file does not say what the model says; the message gives the difference.
    """
    writers: dict[str, Callable[..., None]] = {
        "torchscript": torchscript_file,
        "onnx": onnx_file,
    }
    readers = {"torchscript": answers_of_torchscript, "onnx": answers_of_onnx}
    checks = []
    for kind, path in wanted:
        writers[kind](export.graph, export.example(), export.metadata(), path)
        apart = export.difference(partial(readers[kind], path))
        if not apart <= MOST_DIFFERENT:
            raise ModelError(
                f"the {kind} file differs from the model by {apart:.1e} of its output's standard "
                f"deviation, and {MOST_DIFFERENT:g} is the limit: it is not written; please report "
                "this with the model's card"
            )
        checks.append(Checked(kind, apart, path.stat().st_size))
    return checks
