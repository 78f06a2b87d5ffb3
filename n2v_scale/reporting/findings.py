"""Everything that a report says, found out before a word of it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.diagnosis import Diagnosis, diagnose_volume
from n2v_scale.errors import InputError, ModelError, N2VScaleError
from n2v_scale.evaluation import Evaluation, evaluate_volumes
from n2v_scale.filter_card import Calibration, FilterCard, read_calibration, read_filter_card
from n2v_scale.geometry import Box, as_shape
from n2v_scale.io.open import open_volume
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.model_card import NETWORK, ModelCard, read_card, read_kind
from n2v_scale.own_record import means_of, record_of
from n2v_scale.plan import Plan
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.reporting.block_map import BlockMap, block_map
from n2v_scale.reporting.places import Place, choose_places, planes_of
from n2v_scale.reporting.slices import Planes
from n2v_scale.reporting.spectra import Spectrum, plane_power
from n2v_scale.reporting.storage import Stored, storage_of
from n2v_scale.resume import recorded_plan
from n2v_scale.self_evaluation import SelfEvaluation, evaluate_itself

LARGEST_OVERVIEW = 2**24
"""Voxels of the coarsest level that are read for the picture of the whole."""


@dataclass(frozen=True)
class Findings:
    """Of one denoised volume."""

    denoised: Volume
    noisy: Volume
    reference: Volume | None
    plan: Plan
    record: dict[str, Any]
    model: str
    """Its folder."""
    card: ModelCard | FilterCard | None
    """None where the model is gone."""
    calibration: Calibration | None
    """Of a classical filter."""
    diagnosis: Diagnosis | None
    estimate: SelfEvaluation | None
    evaluations: dict[str, Evaluation]
    """``noisy`` and ``denoised`` against the reference, if there is one."""
    places: Sequence[Place]
    planes: Sequence[Mapping[str, Planes]]
    spectra: dict[str, Spectrum]
    blocks: BlockMap
    stored: dict[str, Stored]
    overview: npt.NDArray[np.float32] | None
    """A coarse maximum along z of the first time point and channel, (y, x)."""
    missing: dict[str, str] = field(default_factory=dict)
    """What could not be found out, and why."""


def find_out(
    denoised: Volume,
    *,
    noisy: Volume | str | None = None,
    reference: Volume | None = None,
    model: str | None = None,
    camera: tuple[float, float, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Findings:
    """See :func:`n2v_scale.report`.

    Raises
    ------
    InputError
        When this package did not write ``denoised``, the noisy volume is not where it was, or the
        reference has another shape.
    """
    progress = progress or NoProgress()
    denoised = means_of(denoised)
    record = record_of(denoised)
    if record is None:
        raise InputError(
            f"{denoised.address} holds no record of a run of n2v-scale: a report needs an output "
            "of `n2v-scale predict` or `n2v-scale baseline`"
        )
    plan = recorded_plan(record, normalise(denoised.address), denoised.storage)
    before = _noisy(noisy, plan, denoised)
    after = replace(denoised, name=denoised.name or before.name)
    if reference is not None and reference.shape != denoised.shape:
        raise InputError(
            f"{reference.address} is {reference.shape} (t, c, z, y, x) and {denoised.address} is "
            f"{denoised.shape}: select the same part with --channel and --timepoints"
        )
    missing: dict[str, str] = {}
    folder = model or plan.denoiser
    card, calibration = _card(folder, missing)
    progress.say("looking at the noise")
    diagnosis = _or_why(missing, "diagnosis", lambda: diagnose_volume(before, seed=seed))
    estimate = _or_why(
        missing,
        "estimate",
        lambda: evaluate_itself(
            after,
            before,
            model=None if model is None else normalise(model),
            camera=camera,
            seed=seed,
            diagnosis=diagnosis,
            progress=progress,
        ),
    )
    evaluations = _evaluations(before, after, reference, progress)
    progress.say("choosing places, reading slices")
    volumes = {"noisy": before, "denoised": after}
    if reference is not None:
        volumes["reference"] = reference
    places = choose_places(after, seed=seed)
    planes = [{name: planes_of(v, place) for name, v in volumes.items()} for place in places]
    return Findings(
        denoised=after,
        noisy=before,
        reference=reference,
        plan=plan,
        record=record,
        model=folder,
        card=card,
        calibration=calibration,
        diagnosis=diagnosis,
        estimate=estimate,
        evaluations=evaluations,
        places=places,
        planes=planes,
        spectra=_spectra(planes),
        blocks=block_map(plan, estimate.places if estimate else ()),
        stored={"noisy": storage_of(before), "denoised": storage_of(after)},
        overview=_overview(after),
        missing=missing,
    )


def _noisy(given: Volume | str | None, plan: Plan, denoised: Volume) -> Volume:
    """The noisy volume, the part of it that was denoised."""
    if given is None:
        volume = plan.volume
        try:
            volume.read(0, 0, Box((0, 0, 0), (1, 1, 1)))
        except InputError as error:
            raise InputError(
                f"the noisy volume is not where it was ({error}): say with --noisy where it is"
            ) from None
    elif isinstance(given, Volume):
        volume = given
    else:
        channels = plan.volume.channels if plan.volume.axis("c") else None
        times = plan.volume.timepoints if plan.volume.axis("t") else None
        volume = open_volume(
            given, channels=channels, timepoints=times, storage_options=plan.storage
        )
    if volume.shape[2:] != denoised.shape[2:]:
        raise InputError(
            f"{volume.address} is {volume.shape} (t, c, z, y, x) and {denoised.address} is "
            f"{denoised.shape}: it was not made from that"
        )
    return replace(
        volume,
        timepoints=_same_part(volume.timepoints, denoised.timepoints),
        channels=_same_part(volume.channels, denoised.channels),
    )


def _same_part(stored: tuple[int, ...], picked: tuple[int, ...]) -> tuple[int, ...]:
    """Of the input, what was selected of the output: its indices count what was denoised."""
    if len(stored) == len(picked):
        return stored
    return tuple(stored[i] for i in picked)


def _or_why(missing: dict[str, str], name: str, find: Any) -> Any:
    """What is found, or None, with the reason on the list."""
    try:
        return find()
    except N2VScaleError as error:
        missing[name] = str(error)
        return None


def _card(
    folder: str, missing: dict[str, str]
) -> tuple[ModelCard | FilterCard | None, Calibration | None]:
    try:
        if read_kind(Path(folder)) == NETWORK:
            return read_card(Path(folder)), None
        return read_filter_card(Path(folder)), read_calibration(Path(folder))
    except ModelError as error:
        missing["model"] = str(error)
        return None, None


def _evaluations(
    noisy: Volume, denoised: Volume, reference: Volume | None, progress: Progress
) -> dict[str, Evaluation]:
    if reference is None:
        return {}
    after = evaluate_volumes(denoised, reference, progress=progress)
    before = evaluate_volumes(noisy, reference, data_range=after.data_range, progress=progress)
    return {"noisy": before, "denoised": after}


def _spectra(planes: Sequence[Mapping[str, Planes]]) -> dict[str, Spectrum]:
    """Of all XY planes, and of what was taken away from them."""
    found = {}
    for name in planes[0] if planes else ():
        found[name] = plane_power([place[name]["xy"] for place in planes])
    found["residual"] = plane_power([p["noisy"]["xy"] - p["denoised"]["xy"] for p in planes])
    return {name: spectrum for name, spectrum in found.items() if spectrum is not None}


def _overview(volume: Volume) -> npt.NDArray[np.float32] | None:
    """From the coarsest level, if there is one that is small."""
    coarse = open_volume(
        volume.address, level=volume.levels[-1].path or None, storage_options=volume.storage
    )
    if int(np.prod(coarse.spatial_shape)) > LARGEST_OVERVIEW:
        return None
    values = coarse.read(0, volume.channels[0], Box((0, 0, 0), as_shape(coarse.spatial_shape)))
    finite = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    top: npt.NDArray[np.float32] = finite.max(axis=0)
    return top
