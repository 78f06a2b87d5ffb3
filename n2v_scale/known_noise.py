"""Which noise a prediction is made with: the camera's as told, the model's, or a sample's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Denoiser
from n2v_scale.diagnosis import ChannelDiagnosis, diagnose_volume
from n2v_scale.errors import ConfigError
from n2v_scale.io.volume import Volume
from n2v_scale.noise import NoiseModel

UNSEEN = "there is too little to see the noise"
ASKED = "--no-posterior was given"
LEAST_SEEN, MOST_SEEN = 0.8, 2.0
"""Of a learned noise's variance: what a sample of another volume shows if the camera is the same.
(Of thin membranes without a microscope's blur 1.7 was seen.)"""
CURE = "--gain, --offset and --read-noise tell of the camera, --posterior insists"


@dataclass(frozen=True)
class KnownNoise:
    """What the posterior is made with."""

    noise: tuple[NoiseModel, ...] | None
    """By channel; None where there is to be no posterior."""
    why_not: str | None = None
    """Why there is none although the model is blind; None where there is one, or none is missed."""


def noise_for(denoiser: Denoiser, volume: Volume, settings: PredictSettings) -> KnownNoise:
    """The noise that a prediction puts the voxels' own values back with, or why it does not.

    Raises
    ------
    ConfigError
        When a posterior is asked for that the model, or the data, cannot give.
    """
    if not denoiser.blind:
        if settings.posterior or settings.camera is not None:
            raise ConfigError(
                "--posterior, --gain, --offset and --read-noise are for a model that predicts a "
                "voxel without having seen it, and this one sees it: leave them out, or train with "
                "--method linear or n2s"
            )
        return KnownNoise(None)
    if settings.posterior is False:
        return KnownNoise(None, ASKED)
    if settings.camera is not None:
        return KnownNoise((NoiseModel(*settings.camera),) * volume.shape[1])
    found = denoiser.noise_for(volume) or _seen(volume, settings, denoiser.learned_noise)
    known = tuple(noise for noise in found if isinstance(noise, NoiseModel))
    if len(known) == len(found):
        return KnownNoise(known)
    if settings.posterior:
        raise ConfigError(
            f"{volume.address} is too small to see its noise: pass the camera's --gain, --offset "
            "and --read-noise, or --no-posterior"
        )
    return KnownNoise(None, _reason([noise or UNSEEN for noise in found], volume.channels))


def _reason(found: Sequence[NoiseModel | str], channels: Sequence[int]) -> str:
    """By channel, what is wrong with it; one channel is enough to leave out all."""
    wrong = [
        f"channel {channel}: {noise}" if len(channels) > 1 else noise
        for channel, noise in zip(channels, found, strict=True)
        if isinstance(noise, str)
    ]
    others = ", and so for none of the channels" if len(wrong) < len(channels) else ""
    return f"{'; '.join(wrong)}{others} ({CURE})"


def same_camera(
    learned: NoiseModel, seen: NoiseModel, means: npt.NDArray[np.floating[Any]]
) -> bool:
    """Whether what a sample shows may be the learned noise, at the brightnesses of its cells.

    Structure adds to what a sample shows, and nothing takes from it.
    """
    there = means[np.isfinite(means)]
    if not there.size:
        return False
    ratio = float(np.median(seen.variance(there) / learned.variance(there)))
    return LEAST_SEEN <= ratio <= MOST_SEEN


def _seen(
    volume: Volume, settings: PredictSettings, learned: NoiseModel | None
) -> tuple[NoiseModel | str, ...]:
    """By channel, from a sample, or ``learned`` where the sample is of the same camera; or why not:
    it is not seen, or nobody insists and it is not to be trusted, off the camera's line, or alike
    in neighbours, which then tell of it.
    """
    channels = diagnose_volume(volume, seed=settings.seed).channels
    insist = settings.posterior is True
    return tuple(_of_channel(channel, learned, insist=insist) for channel in channels)


def _of_channel(
    channel: ChannelDiagnosis, learned: NoiseModel | None, *, insist: bool
) -> NoiseModel | str:
    noise = channel.noise
    if noise is None:
        return UNSEEN
    if learned is not None and same_camera(learned, noise, channel.cells[0]):
        noise = learned
    if insist:
        return noise
    if not noise.trusted:
        return "the noise's variance lies on no camera's line"
    strong = [f"{axis.axis} ({axis.strongest:.2f})" for axis in channel.correlation if axis.strong]
    return f"the noise is correlated along {' and '.join(strong)}" if strong else noise
