"""What a training was asked to do, as JSON, so that another run can tell whether it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2v_scale.blind_masks import mask_name
from n2v_scale.config import TrainSettings
from n2v_scale.errors import ConfigError
from n2v_scale.foreground import Foreground, open_foreground
from n2v_scale.io.volume import Volume
from n2v_scale.model_card import read_card
from n2v_scale.pairing import pair_request

FREE = {"checkpoint_every", "tensorboard", "preset"}
"""Settings that may differ between a run and the one that goes on with it. What a preset means is
in the steps."""


def requested(volumes: Sequence[Volume], settings: TrainSettings) -> dict[str, Any]:
    """Settings and inputs."""
    asked = settings.model_dump(mode="json", exclude=FREE)
    if settings.init is not None:
        asked["init"] = f"{settings.init} {read_card(Path(settings.init)).weights_sha256[:12]}"
    if settings.foreground is not None:
        asked["foreground"] = f"{settings.foreground} {training_mask(volumes, settings).key[:12]}"
    asked["pair"] = pair_request(volumes, settings)
    asked["volumes"] = [volume.address for volume in volumes]
    asked["selected"] = [
        {
            "channels": list(volume.channels),
            "timepoints": list(volume.timepoints),
            "voxel_size": list(volume.voxel_size),
        }
        for volume in volumes
    ]
    asked["identities"] = [volume.identity() for volume in volumes]
    return asked


def training_mask(volumes: Sequence[Volume], settings: TrainSettings) -> Foreground:
    """The foreground that patches are to come from.

    Raises
    ------
    ConfigError
        When there are several volumes.
    InputError
        When there is no such mask, or it does not fit the volume.
    """
    if settings.foreground is None or len(volumes) > 1:
        raise ConfigError("--foreground is for one volume: train on one, or without it")
    (volume,) = volumes
    return open_foreground(settings.foreground, volume, storage_options=volume.storage)


def differences(now: dict[str, Any], before: Any) -> list[str]:
    """``name: before, now other``, for everything that is not the same."""
    if not isinstance(before, dict):
        return ["it holds no record of its own"]
    found = []
    for name in sorted(now.keys() | before.keys()):
        if name in ("volumes", "identities"):
            continue
        a, b = before.get(name, _default(name)), now.get(name)
        if name == "on_nan" and a == "error":
            continue  # nothing was met that is not finite: any answer goes on with that
        if a != b:
            if name == "blind_mask":
                a, b = (mask and mask_name(mask) for mask in (a, b))
            found.append(f"{name}: {_text(a)}, now {_text(b)}")
    if now.get("identities") != before.get("identities"):
        a, b = before.get("volumes"), now.get("volumes")
        found.append(f"volumes: {a}, now {b}" if a != b else f"the content of {b} has changed")
    return found


def _default(name: str) -> Any:
    """Of a setting that there was not yet when the training was begun."""
    field = TrainSettings.model_fields.get(name)
    return None if field is None else field.default


def _text(value: Any) -> str:
    return "chosen from the volume" if value is None else str(value)
