"""The folder of a calibrated filter: what it is, and how its parameters were found.

``model.json`` is what a worker opens; ``calibration.json`` holds the losses, for people and plots.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from n2v_scale.errors import ModelError, OutputError
from n2v_scale.folders import fresh_folder
from n2v_scale.model_card import CARD_NAME, FORMAT, read_document, validated

CALIBRATION_NAME = "calibration.json"


class Curve(BaseModel):
    """Of one channel: the losses by value of the parameter, in the volume's units squared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: int
    noise: float
    """Standard deviation; the unit of the parameter, where that has one."""
    values: tuple[float, ...]
    donut: tuple[float, ...]
    """Mean square at hidden voxels: the error to the truth and the noise, added."""
    residual: tuple[float, ...]
    """The same where nothing is hidden: least where the filter does nothing."""
    voxels: int
    """That were hidden."""

    @property
    def best(self) -> float:
        """The value with the least donut loss; of equals, the smallest."""
        return self.values[self.donut.index(min(self.donut))]

    @property
    def at_end(self) -> bool:
        """Whether the least loss is that of the first or the last of several values."""
        return len(self.values) > 1 and self.best in (self.values[0], self.values[-1])


class Calibration(BaseModel):
    """``calibration.json``: a curve for each channel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filter: str
    parameter: str
    curves: tuple[Curve, ...]


class FilterCard(BaseModel):
    """``model.json``: everything that the result depends on, and what it was calibrated for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    kind: Literal["filter"] = "filter"
    package_version: str
    filter: str
    values: tuple[float, ...]
    """Of the parameter, by channel."""
    ratio: tuple[float, float, float]
    """See :func:`n2v_scale.classical.axis_ratio`."""
    channels: tuple[int, ...]
    """Of the volume that it was calibrated on."""
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    """Mean and noise by channel: a filter sees ``(value - offset) / scale``."""
    request: dict[str, Any]
    """What was asked for, and the identity of the volume: the same gives the same card."""


def read_filter_card(folder: Path) -> FilterCard:
    """The card of the filter at ``folder``.

    Raises
    ------
    ModelError
        When there is none, it is of a newer format, or broken.
    """
    return validated(FilterCard, read_document(folder), folder)


def read_calibration(folder: Path) -> Calibration:
    """How the filter at ``folder`` was calibrated.

    Raises
    ------
    ModelError
        When there is no such record, or it is broken.
    """
    path = folder / CALIBRATION_NAME
    try:
        return Calibration.model_validate_json(path.read_text())
    except (OSError, ValidationError, ValueError) as error:
        raise ModelError(f"{path} is not a record of a calibration: {error}") from None


def write_filter(folder: Path, card: FilterCard, calibration: Calibration) -> None:
    """Write a calibrated filter, as a whole or not at all; a filter that is there is replaced."""
    check_is_filter(folder)
    with fresh_folder(folder) as fresh:
        for name, content in ((CARD_NAME, card), (CALIBRATION_NAME, calibration)):
            text = json.dumps(content.model_dump(mode="json"), indent=2, allow_nan=False)
            (fresh / name).write_text(text + "\n")


def check_is_filter(folder: Path) -> None:
    """Refuse a place that holds anything but a calibrated filter.

    Raises
    ------
    OutputError
        That names what else it holds.
    """
    if not folder.exists():
        return
    names = {p.name for p in folder.iterdir()} if folder.is_dir() else {folder.name}
    others = sorted(names - {CARD_NAME, CALIBRATION_NAME})
    if others:
        raise OutputError(
            f"{folder} is not only a calibrated filter (it holds {', '.join(others[:3])}): it is "
            "not overwritten; choose another name"
        )
