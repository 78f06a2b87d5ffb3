"""Taking up an output that exists: the same plan, or a sentence that says what differs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import PlanError
from n2v_scale.geometry import as_shape
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume_record import volume_from_dict
from n2v_scale.io.writer import ArraySpec
from n2v_scale.noise import NoiseModel
from n2v_scale.plan import PLAN_FORMAT, Plan, pyramid_levels


def begun_with(settings: PredictSettings, record: dict[str, Any] | None) -> PredictSettings:
    """``settings`` with the sizes of the run on ``record``, but for those that were asked for."""
    if record is None or record["plan"].get("format") != PLAN_FORMAT:
        return settings
    stored = record["plan"]
    spec = _stored_output(stored, "")
    sizes = {
        "chunk": spec.spatial_chunk,
        "shard": spec.spatial_shard,
        "block": as_shape(stored["block"]),
        "tile": as_shape(stored["tile"]),
    }
    chosen: dict[str, Any] = {
        name: size for name, size in sizes.items() if getattr(settings, name) is None
    }
    if settings.posterior is None and settings.camera is None:
        chosen["posterior"] = "noise" in stored  # a sample may say something else by now
    return settings.model_copy(update=chosen)


def resume_plan(stored: dict[str, Any], fresh: Plan, settings: PredictSettings) -> Plan:
    """The plan of an output that exists, when ``fresh`` asks for the same.

    Whether the input still holds the same voxels is not asked here.

    What was not asked for explicitly is taken from what is stored, so a resume on a machine with
    other cores or memory goes on with the same bytes.

    Raises
    ------
    PlanError
        That says what differs.
    """
    now = json.loads(json.dumps(fresh.to_dict()))
    differences = []
    if stored.get("format") != PLAN_FORMAT:
        differences.append(f"the plan's format ({stored.get('format')}, now {PLAN_FORMAT})")
    else:
        differences += _differences(stored, now, settings)
    if differences:
        raise PlanError(
            "the output was begun with other settings: "
            + "; ".join(differences)
            + ". Use the same, or --overwrite to start afresh, or another name"
        )
    output = _stored_output(stored, fresh.output.store)
    normalisation = stored["normalisation"]
    return replace(
        fresh,
        tile=as_shape(stored["tile"]),
        block=as_shape(stored["block"]),
        output=output,
        levels=pyramid_levels(output, fresh.volume.voxel_size),
        normalisation=Normalisation.from_dict(normalisation) if normalisation else None,
        noise=_stored_noise(stored),
        no_posterior=stored.get("no_posterior"),
        plain=bool(stored.get("plain", False)),
        tta=bool(stored.get("tta", False)),
        write=stored.get("write", "mean"),
        device=stored["device"],
        threads=stored["threads"],
        precision=stored["precision"],
        precision_error=stored.get("precision_error"),
        precision_is_open=False,
    )


def recorded_plan(record: dict[str, Any], store: str, storage: StorageOptions) -> Plan:
    """The plan that the output at ``store`` was begun with; neither input nor model is opened.

    A foreground mask is not part of it: to compute blocks, open it and put it in.
    """
    stored = record["plan"]
    volume = volume_from_dict(record["volume"], storage)
    output = _stored_output(stored, store)
    normalisation = stored["normalisation"]
    z, y, x = (tuple(side) for side in stored["halo"])
    return Plan(
        volume=volume,
        identity=stored["input"]["identity"],
        denoiser=stored["denoiser"]["address"],
        denoiser_key=stored["denoiser"]["key"],
        halo=(z, y, x),
        stride=as_shape(stored["stride"]),
        tile=as_shape(stored["tile"]),
        block=as_shape(stored["block"]),
        output=output,
        levels=pyramid_levels(output, volume.voxel_size),
        normalisation=Normalisation.from_dict(normalisation) if normalisation else None,
        noise=_stored_noise(stored),
        no_posterior=stored.get("no_posterior"),
        plain=bool(stored.get("plain", False)),
        tta=bool(stored.get("tta", False)),
        write=stored.get("write", "mean"),
        device=stored["device"],
        threads=stored["threads"],
        precision=stored["precision"],
        precision_error=stored.get("precision_error"),
        on_nan=stored["on_nan"],
        nodata=None if stored["nodata"] is None else float(stored["nodata"]),
        storage=storage,
    )


def _stored_noise(stored: dict[str, Any]) -> tuple[NoiseModel, ...] | None:
    noise = stored.get("noise")
    return None if noise is None else tuple(NoiseModel(**channel) for channel in noise)


def _stored_output(stored: dict[str, Any], store: str) -> ArraySpec:
    spec: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored["output"].items()
    }
    return ArraySpec(**{**spec, "store": store})


def _differences(
    stored: dict[str, Any], now: dict[str, Any], settings: PredictSettings
) -> list[str]:
    def differ(name: str, old: Any, new: Any) -> list[str]:
        return [] if old == new else [f"{name} was {_short(old)}, now {_short(new)}"]

    found = differ("the input's metadata", stored["input"]["metadata"], now["input"]["metadata"])
    for key in ("array", "timepoints", "channels"):
        found += differ(key, stored["input"][key], now["input"][key])
    found += differ("the model", stored["denoiser"]["key"], now["denoiser"]["key"])
    if stored["axes"] != now["axes"]:
        found.append("the voxel size, units or position of the input differ")
    if stored["on_nan"] != "error":  # no block with NaN was finished: nothing to contradict
        found += differ("--on-nan", stored["on_nan"], now["on_nan"])
    for key in ("codec", "codec_level", "ome_version", "dtype"):
        if key in settings.model_fields_set:
            found += differ(f"--{key.replace('_', '-')}", stored["output"][key], now["output"][key])
    for key in ("chunk", "shard"):
        if getattr(settings, key) is not None:
            found += differ(f"--{key}", stored["output"][key], now["output"][key])
    for key in ("tile", "block"):
        if getattr(settings, key) is not None:
            found += differ(f"--{key}", stored[key], now[key])
    if settings.threads is not None:
        found += differ("--threads", stored["threads"], now["threads"])
    if "seed" in settings.model_fields_set and stored["normalisation"] != now["normalisation"]:
        found.append("--seed gives another normalisation")
    if settings.device != "auto":
        found += differ("--device", stored["device"], now["device"])
    if settings.precision != "auto":
        found += differ("--precision", stored["precision"], now["precision"])
    found += differ("the posterior", *("noise" in plan for plan in (stored, now)))
    for key in ("plain", "tta"):
        found += differ(f"--{key}", *(plan.get(key, False) for plan in (stored, now)))
    found += differ("--output", *(plan.get("write", "mean") for plan in (stored, now)))
    if settings.camera is not None:
        found += differ("the camera", stored.get("noise"), now.get("noise"))
    found += differ("--nodata", stored["nodata"], now["nodata"])
    masks = [plan["foreground"] and plan["foreground"]["key"] for plan in (stored, now)]
    found += differ("--mask", *masks)
    return found


def _short(value: Any) -> str:
    text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 24 else text[:12] + "…"
