"""Everything that a report says, found out before a word of it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.denoiser import IDENTITY
from n2v_scale.diagnosis import Diagnosis, diagnose_volume
from n2v_scale.errors import InputError, ModelError, N2VScaleError
from n2v_scale.evaluation import Evaluation, evaluate_volumes, reference_range
from n2v_scale.filter_card import Calibration, FilterCard, read_calibration, read_filter_card
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.stores import is_url, normalise
from n2v_scale.io.volume import Volume
from n2v_scale.model_card import NETWORK, ModelCard, read_card, read_kind
from n2v_scale.noise import NoiseModel
from n2v_scale.own_record import means_of, record_of
from n2v_scale.plan import Plan
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.reporting.block_map import BlockMap, block_map
from n2v_scale.reporting.places import Place, choose_places, planes_of
from n2v_scale.reporting.sight import Sight
from n2v_scale.reporting.slices import Planes
from n2v_scale.reporting.spectra import Spectrum, noise_power, plane_power
from n2v_scale.reporting.storage import Stored, storage_of
from n2v_scale.resume import recorded_plan
from n2v_scale.self_evaluation import SelfEvaluation, evaluate_itself

LARGEST_OVERVIEW = 2**22
"""Voxels that are read for the picture of the whole: of the finest level with no more."""


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
    shown_noise: float | None
    """Power of the noise in the spectra, as the noise model has it."""
    blocks: BlockMap
    stored: dict[str, Stored]
    overview: npt.NDArray[np.float32] | None
    """A coarse maximum along z of the first time point and channel that are looked at, (y, x)."""
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
    record = _record(denoised)
    plan = recorded_plan(record, normalise(denoised.address), denoised.storage)
    before = _noisy(noisy, plan, denoised)
    if reference is not None:
        reference = _reference(reference, denoised)
    missing: dict[str, str] = {}
    folder = model or plan.denoiser
    card, calibration = _card(folder, missing)
    progress.say("looking at the noise")
    diagnosis = _or_why(missing, "diagnosis", lambda: diagnose_volume(before, seed=seed))
    peak = None  # of both PSNRs, so that the estimate can be held against the truth
    if reference is not None:
        peak = _or_why(missing, "evaluation", partial(reference_range, reference))
    estimated = partial(
        evaluate_itself,
        denoised,
        before,
        model=None if model is None else normalise(model),
        camera=camera,
        data_range=peak,
        seed=seed,
        diagnosis=diagnosis,
        progress=progress,
    )
    estimate = _or_why(missing, "estimate", estimated)
    blocks = block_map(plan, estimate.places if estimate else ())
    volumes = {"noisy": before, "denoised": denoised}
    evaluations = _evaluations(volumes, reference, peak, blocks, missing, progress)
    progress.say("choosing places, reading slices")
    sights = _sights(before, denoised, reference)
    places = choose_places(sights["denoised"], seed=seed)
    planes = [{name: planes_of(s, place) for name, s in sights.items()} for place in places]
    return Findings(
        denoised=denoised,
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
        shown_noise=_shown_noise(camera, diagnosis, places, planes),
        blocks=blocks,
        stored={name: storage_of(sights[name]) for name in ("noisy", "denoised")},
        overview=_overview(denoised),
        missing=missing,
    )


def _record(denoised: Volume) -> dict[str, Any]:
    record = record_of(denoised)
    if record is None:
        raise InputError(
            f"{denoised.address} holds no record of a run of n2v-scale: a report needs an output "
            "of `n2v-scale predict` or `n2v-scale baseline`"
        )
    if record["plan"]["denoiser"]["address"] == IDENTITY:
        raise InputError(
            f"{denoised.address} is a copy that `n2v-scale import` made, and was not denoised: a "
            "report needs an output of `n2v-scale predict` or `n2v-scale baseline`"
        )
    return record


def _sights(before: Volume, after: Volume, reference: Volume | None) -> dict[str, Sight]:
    """What is looked at, by the names that the page has for it."""
    sights = {"noisy": Sight(before), "denoised": Sight.of_output(after)}
    return sights if reference is None else sights | {"reference": Sight(reference)}


def _reference(reference: Volume, denoised: Volume) -> Volume:
    reference = means_of(reference)
    if reference.shape != denoised.shape:
        raise InputError(
            f"{reference.address} is {reference.shape} (t, c, z, y, x) and {denoised.address} is "
            f"{denoised.shape}: select the same part with --channel and --timepoints"
        )
    return reference


def _noisy(given: Volume | str | None, plan: Plan, denoised: Volume) -> Volume:
    """The noisy volume, the part of it that was denoised."""
    volume = plan.volume
    if isinstance(given, Volume):
        volume = given
    elif given is not None:
        volume = _moved(given, plan)
    elif not _is_there(volume):
        raise InputError(
            f"the noisy volume {volume.location} is not where it was: say with --noisy where it is"
        )
    if volume.shape[2:] != denoised.shape[2:]:
        raise InputError(
            f"{volume.address} is {volume.shape} (t, c, z, y, x) and {denoised.address} is "
            f"{denoised.shape}: it was not made from that"
        )
    if isinstance(given, Volume) and volume.shape == denoised.shape:
        return volume
    try:
        return replace(
            volume,
            timepoints=tuple(volume.timepoints[i] for i in denoised.timepoints),
            channels=tuple(volume.channels[i] for i in denoised.channels),
        )
    except IndexError:
        raise InputError(
            f"{volume.address} is {volume.shape} (t, c, z, y, x), and {denoised.address} was not "
            "made from that: it has more time points or channels"
        ) from None


def _moved(address: str, plan: Plan) -> Volume:
    """The noisy volume at another place, opened as it was."""
    was = plan.volume
    return open_volume(
        address,
        channels=was.channels if was.axis("c") else None,
        timepoints=was.timepoints if was.axis("t") else None,
        series=int(was.array_path) if was.kind == "tiff" and was.array_path else None,
        axes="".join(was.axis_names) if was.format.startswith("zarr") else None,
        storage_options=plan.storage,
    )


def _is_there(volume: Volume) -> bool:
    """Whether it can be opened still; a chunk that cannot be read is another matter."""
    if not is_url(volume.address):
        return Path(volume.address).exists()
    try:
        volume.identity()
    except (InputError, OSError):
        return False
    return True


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
    volumes: Mapping[str, Volume],
    reference: Volume | None,
    peak: float | None,
    blocks: BlockMap,
    missing: dict[str, str],
    progress: Progress,
) -> dict[str, Evaluation]:
    if reference is None or peak is None:
        return {}
    if blocks.missing:
        missing["evaluation"] = (
            f"{blocks.missing} of {blocks.blocks} blocks are not written, so that nothing is "
            "compared with the reference: the same command, run again, computes them"
        )
        return {}

    def compare() -> dict[str, Evaluation]:
        return {
            name: evaluate_volumes(volume, reference, data_range=peak, progress=progress)
            for name, volume in volumes.items()
        }

    return _or_why(missing, "evaluation", compare) or {}


def _shown_noise(
    camera: tuple[float, float, float] | None,
    diagnosis: Diagnosis | None,
    places: Sequence[Place],
    planes: Sequence[Mapping[str, Planes]],
) -> float | None:
    """By the noise model, at the values of the denoised planes."""
    variances = []
    for place, found in zip(places, planes, strict=True):
        model = None if camera is None else NoiseModel(*camera)
        if model is None and diagnosis is not None:
            model = diagnosis.channels[place.c].noise
        if model is None:
            return None
        variances.append(model.variance(found["denoised"]["xy"]))
    return noise_power(variances)


def _spectra(planes: Sequence[Mapping[str, Planes]]) -> dict[str, Spectrum]:
    """Of all XY planes, and of what was taken away from them."""
    found = {}
    for name in planes[0] if planes else ():
        found[name] = plane_power([place[name]["xy"] for place in planes])
    found["residual"] = plane_power([p["noisy"]["xy"] - p["denoised"]["xy"] for p in planes])
    return {name: spectrum for name, spectrum in found.items() if spectrum is not None}


def _overview(volume: Volume) -> npt.NDArray[np.float32] | None:
    """From the finest level that is small; None where none is, as before the pyramid is made."""
    spatial = [index for index, name in enumerate(volume.axis_names) if name in "zyx"]
    small = [
        level
        for level in volume.levels
        if prod(level.shape[index] for index in spatial) <= LARGEST_OVERVIEW
    ]
    if not small:
        return None
    coarse = replace(
        volume, array_path=small[0].path, stored_shape=small[0].shape, levels=(), digest=""
    )
    full = coarse.array_path == volume.array_path
    sight = Sight.of_output(volume) if full else Sight(coarse)
    values = sight.read(0, 0, Box.whole(coarse.spatial_shape))
    low = np.nanmin(values) if np.isfinite(values).any() else 0.0
    top: npt.NDArray[np.float32] = np.where(np.isfinite(values), values, low).max(axis=0)
    return top
