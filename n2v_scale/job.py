"""What a training is to do, decided once: afresh, from a checkpoint, or nothing any more."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from n2v_scale.architecture import (
    Design,
    checked_patch,
    common_shape,
    design_for,
    turnable,
    usual_radius,
)
from n2v_scale.blind_masks import parse_blind_mask
from n2v_scale.checkpoint import CheckpointFolder, read_checkpoint
from n2v_scale.config import TrainSettings
from n2v_scale.devices import choose_device, device_memory
from n2v_scale.errors import ConfigError, N2VScaleError, OutputError
from n2v_scale.geometry import Shape, as_shape
from n2v_scale.io.stores import inside
from n2v_scale.io.volume import Volume
from n2v_scale.model import check_is_model
from n2v_scale.model_card import read_card
from n2v_scale.network_config import NetworkConfig, UNetConfig, config_from_dict, unet_of
from n2v_scale.parallel import Ranks
from n2v_scale.requested import differences, requested

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What is to be done, as it travels to every process that takes part."""

    volumes: tuple[Volume, ...]
    folder: Path
    settings: TrainSettings
    design: Design
    request: dict[str, Any]
    begun: Path | None
    """The checkpoint to go on from."""
    started: float
    """On the monotonic clock of the machine that decided."""


def decide(
    volumes: Sequence[Volume],
    folder: Path,
    settings: TrainSettings,
    overwrite: bool,
    started: float,
    processes: int,
) -> Job | None:
    """What is to be done by so many processes; None when the model is finished."""
    request = requested(volumes, settings)
    checkpoints = CheckpointFolder.beside(folder)
    if overwrite:
        checkpoints.clear()
    begun = checkpoints.latest()
    state = None if begun is None else read_checkpoint(begun).state
    # A training that replaces a model and was interrupted comes before that model.
    resumes = state is not None and not differences(request, state.get("request"))
    if folder.exists() and not overwrite and not resumes:
        check_same(request, read_card(folder).training.get("request"), folder)
        return None
    design = _initial_design(volumes, settings) or _design(volumes, settings)
    if state is not None:
        check_same(request, state.get("request"), folder)
        design = replace(design, batch=_share(len(state["sampler"]["lanes"]), processes))
    return Job(tuple(volumes), folder, settings, design, request, begun, started)


def _share(lanes: int, processes: int) -> int:
    """The batch of a process, of one that was begun by as many or by others."""
    if lanes % processes:
        raise ConfigError(
            f"{lanes} patches a step were begun with, which {processes} processes cannot share: "
            "go on with a number that divides it, or --overwrite to train afresh"
        )
    return lanes // processes


def agreed(ranks: Ranks, decide: Callable[[], T]) -> T:
    """What the first process decides, in all of them; its error too."""
    found: Any = None
    if ranks.leads:
        try:
            found = decide()
        except N2VScaleError as error:
            found = error
    found = ranks.gathered(found)[0]
    if isinstance(found, N2VScaleError):
        raise found
    decided: T = found
    return decided


def _design(volumes: Sequence[Volume], settings: TrainSettings) -> Design:
    shape, voxel_size = common_shape(volumes)
    memory = device_memory() if choose_device(settings.device) == "cuda" else None
    return design_for(settings, shape, voxel_size, memory)


def _initial_design(volumes: Sequence[Volume], settings: TrainSettings) -> Design | None:
    """That of the model whose weights are begun with: its network, and its patch if none is given.

    Raises
    ------
    ConfigError
        When another network is asked for.
    """
    if settings.init is None:
        return None
    card = read_card(Path(settings.init))
    config = config_from_dict(card.network, card.network_config)
    unet = unet_of(config)
    if unet is None:
        raise ConfigError(f"--init {settings.init} is a {card.network}, which nothing begins with")
    there = {"net": card.network, "depth": unet.depth, "filters": unet.filters}
    there["kernel"] = unet.kernel
    asked = {name: getattr(settings, name) for name in there if name in settings.model_fields_set}
    others = [f"--{n} {v}" for n, v in asked.items() if v is not None and v != there[n]]
    if others:
        raise ConfigError(
            f"--init {settings.init} is a {card.network} of depth {unet.depth} with {unet.filters} "
            f"filters and kernel {unet.kernel}: leave out {', '.join(others)}"
        )
    _check_network_of_method(settings, config, unet)
    shape, voxel_size = common_shape(volumes)
    patch = checked_patch(settings.patch or as_shape(card.training["patch"]), shape, config.stride)
    return Design(
        card.network,
        config,
        patch,
        settings.batch or int(card.training["batch"]),
        settings.radius or usual_radius(shape),
        turns=turnable(voxel_size, patch, _hidden(settings)),
        reasons=(f"network, patch and batch of {settings.init}",),
    )


def _check_network_of_method(
    settings: TrainSettings, config: NetworkConfig, unet: UNetConfig
) -> None:
    """Refuse to begin with a network that the method would not have made."""
    hidden = getattr(config, "hidden", _hidden(settings))
    if set(hidden) != set(_hidden(settings)) or unet.plain != (settings.method != "n2v2"):
        raise ConfigError(
            f"--init {settings.init} was trained by another method, whose network --method "
            f"{settings.method} cannot use: leave out --init, or begin with a model of the same "
            "method and blind mask"
        )


def _hidden(settings: TrainSettings) -> tuple[Shape, ...]:
    return parse_blind_mask(settings.blind_mask) if settings.blind_mask else ()


def check_same(now: dict[str, Any], before: Any, folder: Path) -> None:
    """Refuse to go on with, or to be content with, a training of other settings.

    Raises
    ------
    OutputError
        That names what differs.
    """
    found = differences(now, before)
    if found:
        raise OutputError(
            f"{folder} was begun with other settings ({'; '.join(found)}): use those, choose "
            "another name, or --overwrite to train afresh"
        )


def check_folder(folder: Path, volumes: Sequence[Volume], *others: str | None) -> None:
    """Refuse a place for a model that cannot be written, or would damage something."""
    for volume in volumes:
        if inside(folder, volume.address):
            raise OutputError(
                f"the model {folder} would lie inside its own input: choose another name"
            )
    for other in others:
        if other is not None and inside(folder, other):
            raise OutputError(f"the model {folder} would lie inside {other}: choose another name")
    if folder.exists():
        check_is_model(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}."):
            pass
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from None
