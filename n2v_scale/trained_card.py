"""The card of a model that was just trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import prod
from typing import Any

import torch

from n2v_scale._version import __version__
from n2v_scale.config import TrainSettings
from n2v_scale.geometry import Halo, Shape
from n2v_scale.learned_noise import camera_of
from n2v_scale.loop import Trained
from n2v_scale.methods import method_to_dict
from n2v_scale.methods.base import Method
from n2v_scale.methods.ssdn import BlindSpot
from n2v_scale.model_card import LEARNED_NOISE, ModelCard, TrainedOn
from n2v_scale.nets import config_to_dict
from n2v_scale.nets.receptive_field import measure_receptive_field
from n2v_scale.noise import NoiseModel
from n2v_scale.run import Run
from n2v_scale.sources import Source
from n2v_scale.versions import versions


def card_of(run: Run, trained: Trained, sources: Sequence[Source]) -> ModelCard:
    """Everything that planning needs, and how the model came to be."""
    design, settings = run.design, run.settings
    config = design.network_config
    method = trained.method
    volumes = [_trained_on(source, settings) for source in sources]
    return ModelCard(
        package_version=__version__,
        method=method.name,
        method_config=method_to_dict(method),
        blind=method.blind,
        network=design.network,
        network_config=config_to_dict(config),
        receptive_field=_widened(
            measure_receptive_field(trained.network, config.stride), method.reach
        ),
        passes=method.passes,
        stride=config.stride,
        parameters=sum(p.numel() for p in trained.network.parameters()),
        weights_sha256="",
        trained_on=volumes[0],
        also_trained_on=tuple(volumes[1:]),
        training={
            **settings.model_dump(mode="json"),
            "request": run.request,
            "patch": list(design.patch),
            "batch": design.batch,
            "processes": run.ranks.size,
            "patch_voxels": prod(design.patch) * design.batch * run.ranks.size,
            "steps_done": trained.steps,
            "stopped_early": trained.stopped_early,
            "device": run.device.type,
            "threads": torch.get_num_threads(),
            "reasons": list(design.reasons),
            "versions": versions(),
            **_learned(run, method, sources),
        },
        history=trained.history,
    )


def _learned(run: Run, method: Method, sources: Sequence[Source]) -> dict[str, Any]:
    """The noise in the volumes' units, where it was learned."""
    if not isinstance(method, BlindSpot) or run.settings.noise != "learned":
        return {}
    camera = camera_of(method.noise, sources)
    return {} if camera is None else {LEARNED_NOISE: asdict(camera)}


def _widened(halo: Halo, reach: Shape) -> Halo:
    z, y, x = ((low + r, high + r) for (low, high), r in zip(halo, reach, strict=True))
    return z, y, x


def _trained_on(source: Source, settings: TrainSettings) -> TrainedOn:
    volume = source.volume
    camera = settings.camera
    told = {} if camera is None else {"noise": asdict(NoiseModel(*camera))}
    units = {axis.unit for axis in volume.axes if axis.name in "zyx" and axis.unit}
    return TrainedOn(
        address=volume.address,
        identity=volume.identity(),
        dtype=volume.dtype,
        shape=volume.shape,
        voxel_size=volume.voxel_size,
        unit=units.pop() if len(units) == 1 else None,
        channels=volume.channels,
        offset=source.normalisation.offset,
        scale=source.normalisation.scale,
        survey=None
        if source.survey is None
        else [{**channel.to_dict(), **told} for channel in source.survey.channels],
    )
