"""Which noise a prediction is made with: the camera's as told, the model's, or a sample's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Denoiser
from n2v_scale.diagnosis import ChannelDiagnosis, diagnose_volume
from n2v_scale.errors import ConfigError
from n2v_scale.io.volume import Volume
from n2v_scale.noise import NoiseModel

UNSEEN = "there is too little to see the noise"
ASKED = "--no-posterior was given"
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
    found = denoiser.noise_for(volume) or _seen(volume, settings)
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


def _seen(volume: Volume, settings: PredictSettings) -> tuple[NoiseModel | str, ...]:
    """By channel, from a sample; or why not: it is not seen, or nobody insists and it is not to be
    trusted, off the camera's line, or alike in neighbours, which then tell of it.
    """
    channels = diagnose_volume(volume, seed=settings.seed).channels
    return tuple(_of_channel(channel, insist=settings.posterior is True) for channel in channels)


def _of_channel(channel: ChannelDiagnosis, *, insist: bool) -> NoiseModel | str:
    noise = channel.noise
    if noise is None:
        return UNSEEN
    if insist:
        return noise
    if not noise.trusted:
        return "the noise's variance lies on no camera's line"
    strong = [f"{axis.axis} ({axis.strongest:.2f})" for axis in channel.correlation if axis.strong]
    return f"the noise is correlated along {' and '.join(strong)}" if strong else noise
