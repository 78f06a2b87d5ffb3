"""The JSON half of a model folder: what it is, without its weights and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from n2v_scale.errors import ModelError
from n2v_scale.geometry import Halo, Shape

VOLUME_NAMES = ("zarr.json", ".zarray", ".zgroup")
"""What a zarr has, which stands here where the two were swapped."""
CARD_NAME = "model.json"
WEIGHTS_NAME = "weights.safetensors"
METRICS_NAME = "metrics.csv"
FORMAT = 1
NETWORK = "network"
"""The kind of a trained model."""
LEARNED_NOISE = "learned_noise"
"""Among what is known of the training: gain, offset and read noise, where they were learned."""

Card = TypeVar("Card", bound=BaseModel)


class TrainedOn(BaseModel):
    """The volume that a model comes from, and its normalisation by stored channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    identity: str
    dtype: str
    shape: tuple[int, int, int, int, int]
    voxel_size: tuple[float, float, float]
    unit: str | None
    channels: tuple[int, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    survey: list[dict[str, Any]] | None = None
    """What a sample said, by channel; see :class:`n2v_scale.survey.ChannelSurvey`."""


class ModelCard(BaseModel):
    """``model.json``: everything that planning needs, and how the model came to be."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: int = FORMAT
    kind: str = NETWORK
    package_version: str
    method: str
    method_config: dict[str, Any]
    blind: bool = False
    """Whether it predicts a voxel without having seen it: then a posterior puts its value back."""
    network: str
    network_config: dict[str, Any]
    receptive_field: Halo
    """Voxels per axis (z, y, x) and side: the network's, measured, and what the method adds."""
    passes: int = 1
    """Of the network over a tile."""
    stride: Shape
    parameters: int
    weights_sha256: str
    trained_on: TrainedOn
    also_trained_on: tuple[TrainedOn, ...] = ()
    """Where there were several volumes, those after the first."""
    training: dict[str, Any]
    """The resolved settings, seed, device, steps and time."""
    history: list[dict[str, float]]
    """Step, seconds, training loss, held-out loss."""

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


def read_card(folder: Path) -> ModelCard:
    """The card of the model at ``folder``.

    Raises
    ------
    ModelError
        When there is no trained model, it is of a newer format, or its card is broken.
    """
    data = read_document(folder)
    kind = data.get("kind", NETWORK)
    if kind != NETWORK:
        raise ModelError(
            f"{folder} holds a denoiser of kind {kind!r}, and a trained network is needed here: "
            "`n2v-scale train` makes one"
        )
    return validated(ModelCard, data, folder)


def read_kind(folder: Path) -> str:
    """What kind of denoiser ``folder`` holds; raises as :func:`read_card` does."""
    return str(read_document(folder).get("kind", NETWORK))


def read_document(folder: Path) -> dict[str, Any]:
    """The card at ``folder``, of whatever kind, as JSON."""
    path = folder / CARD_NAME
    if not path.is_file():
        if any((folder / name).is_file() for name in VOLUME_NAMES):
            raise ModelError(
                f"no model at {folder}: it is a volume; the volume comes first, then the model"
            )
        what = "is not a folder" if not folder.is_dir() else f"holds no {CARD_NAME}"
        raise ModelError(
            f"no model at {folder}: it {what}; `n2v-scale train VOLUME -o {folder}` makes one"
        )
    try:
        data = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} is not a valid model card: {error}") from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} is not a valid model card: it holds a {type(data).__name__}")
    found = data.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise ModelError(
            f"{folder} is a model of format {found} and this version reads up to {FORMAT}: "
            "use a newer n2v-scale"
        )
    return data


def validated(card: type[Card], data: dict[str, Any], folder: Path) -> Card:
    """``data`` as a card of that class."""
    try:
        return card.model_validate(data)
    except ValidationError as error:
        raise ModelError(f"{folder / CARD_NAME} is not a valid model card: {error}") from None
