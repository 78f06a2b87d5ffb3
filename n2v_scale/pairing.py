"""The second volume of a training from pairs."""

from __future__ import annotations

from collections.abc import Sequence

from n2v_scale.config import TrainSettings
from n2v_scale.errors import ConfigError, InputError
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume


def paired_volume(volumes: Sequence[Volume], settings: TrainSettings) -> Volume | None:
    """What is aimed at, voxel for voxel beside the volume; None for methods that need nothing.

    Raises
    ------
    ConfigError
        When there are several volumes.
    InputError
        When it cannot be opened, or has another shape.
    """
    address = settings.pair or settings.target
    if address is None:
        return None
    if len(volumes) > 1:
        raise ConfigError("--pair and --target are for one volume: train on one")
    (volume,) = volumes
    paired = open_volume(
        address,
        storage_options=volume.storage,
        channels=settings.pair_channels,
        timepoints=None if settings.pair_timepoints is None else _indices(settings.pair_timepoints),
    )
    if paired.shape != volume.shape:
        raise InputError(
            f"{volume.address} is {volume.shape} (t, c, z, y, x) and {address} is {paired.shape}: "
            "select the same part of both with --channel, --timepoints, --pair-channel and "
            "--pair-timepoints"
        )
    same = (paired.channels, paired.timepoints) == (volume.channels, volume.timepoints)
    if same and paired.identity() == volume.identity():
        raise ConfigError(
            f"{address} is {volume.address} itself, from which only the noise would be learned: "
            "name another capture, or other channels or time points of it"
        )
    return paired


def _indices(text: str) -> slice | list[int]:
    try:
        if ":" in text:
            start, stop = text.split(":")
            return slice(*(int(part) if part else None for part in (start, stop)))
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--pair-timepoints {text!r} is no list such as 0,2 and no range such as 1:46"
        ) from None


def pair_request(volumes: Sequence[Volume], settings: TrainSettings) -> str | None:
    """The second volume as a training remembers it: its address and content."""
    paired = paired_volume(volumes, settings)
    if paired is None:
        return None
    return f"{paired.address} {list(paired.channels)} {list(paired.timepoints)} {paired.identity()}"
