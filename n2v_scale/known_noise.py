"""Which noise a prediction is made with: the camera's as told, the model's, or a sample's."""

from __future__ import annotations

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Denoiser
from n2v_scale.diagnosis import diagnose_volume
from n2v_scale.errors import ConfigError
from n2v_scale.io.volume import Volume
from n2v_scale.noise import NoiseModel


def noise_for(
    denoiser: Denoiser, volume: Volume, settings: PredictSettings
) -> tuple[NoiseModel, ...] | None:
    """The noise by channel that the posterior uses; None where there is to be no posterior.

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
        return None
    if settings.posterior is False:
        return None
    if settings.camera is not None:
        return (NoiseModel(*settings.camera),) * volume.shape[1]
    found = denoiser.noise_for(volume) or _seen(volume, settings)
    known = tuple(noise for noise in found if noise is not None)
    if len(known) == len(found):
        return known
    if settings.posterior:
        raise ConfigError(
            f"{volume.address} is too small to see its noise: pass the camera's --gain, --offset "
            "and --read-noise, or --no-posterior"
        )
    return None


def _seen(volume: Volume, settings: PredictSettings) -> tuple[NoiseModel | None, ...]:
    """By channel, from a sample; None where it is not known, or where nobody insists and it is not
    to be trusted: off the camera's line, or alike in neighbours, which then tell of it.
    """
    channels = diagnose_volume(volume, seed=settings.seed).channels
    if settings.posterior:
        return tuple(channel.noise for channel in channels)
    return tuple(
        channel.noise
        if channel.noise is not None
        and channel.noise.trusted
        and not any(axis.strong for axis in channel.correlation)
        else None
        for channel in channels
    )
