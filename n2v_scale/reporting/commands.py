"""The commands that do the same again, written from the records."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from n2v_scale.config import NETWORKS, PRESET_STEPS, PredictSettings, TrainSettings
from n2v_scale.filter_card import FilterCard
from n2v_scale.io.volume import Volume
from n2v_scale.model_card import ModelCard
from n2v_scale.plan import Plan
from n2v_scale.reporting.findings import Findings

RESOLVED = ("init", "foreground", "pair")
"""Of these the request holds a checksum as well."""
NAMES = {"pair_channels": "--pair-channel", "write": "--output"}
"""Options that are not called as their settings are."""
SIZES = ("block", "tile", "chunk", "shard", "threads", "device", "precision", "memory", "seed")
"""What a plan chooses unless it was asked for."""
NOT_OF_FILTERS = {"threads", "device", "precision"}
NO_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
"""What the stored axes are taken for where nothing says it."""

COLUMNS = 84
"""Of a line on the page."""

Options = list[str]


def commands(found: Findings) -> list[str]:
    """One a line, for a shell."""
    card, noisy, output = found.card, found.plan.volume, found.denoised.address
    if isinstance(card, FilterCard):
        told = ["--filter", card.filter, *_calibration(found, card)]
        return [_line("baseline", noisy.address, output, *told, *_of(noisy), *_work(found))]
    lines = []
    if isinstance(card, ModelCard):
        lines.append(_training(card, found.model, noisy))
    return [
        *lines,
        _line("predict", noisy.address, found.model, output, *_of(noisy), *_work(found)),
    ]


def _line(verb: str, *parts: str) -> str:
    return shlex.join(["n2v-scale", verb, *parts])


def wrapped(line: str) -> str:
    """A command over several lines, as a shell takes it."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(line)):
        if lines[-1] and len(lines[-1]) + len(word) > COLUMNS:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return " \\\n".join(lines)


def _of(volume: Volume) -> Options:
    """What of an address was denoised."""
    parts: Options = []
    if volume.kind == "tiff" and volume.array_path:
        parts += ["--series", volume.array_path]
    paths = [level.path for level in volume.levels]
    if volume.array_path in paths[1:]:
        parts += ["--level", volume.array_path.rpartition("/")[2]]
    names = "".join(volume.axis_names)
    if volume.format.startswith("zarr") and names != NO_AXES.get(len(names)):
        parts += ["--axes", names]
    return [*parts, *_selected(volume, volume.channels, volume.timepoints)]


def _selected(volume: Volume, channels: Any, timepoints: Any) -> Options:
    """The channels and time points, where they are not all of ``volume``."""
    parts: Options = []
    for axis, flag, chosen in (("c", "--channel", channels), ("t", "--timepoints", timepoints)):
        if axis in volume.axis_names:
            stored = volume.stored_shape[volume.axis_names.index(axis)]
            if list(chosen) != list(range(stored)):
                parts += [flag, _indices(list(chosen), ranges=axis == "t")]
    return parts


def _indices(chosen: list[int], *, ranges: bool) -> str:
    if ranges and len(chosen) > 2 and chosen == list(range(chosen[0], chosen[-1] + 1)):
        return f"{chosen[0]}:{chosen[-1] + 1}"
    return ",".join(map(str, chosen))


def _training(card: ModelCard, folder: str, noisy: Volume) -> str:
    """As it was asked for; a model of an older version says what it came to."""
    asked: dict[str, Any] = {**card.training, **card.training.get("request", {})}
    asked |= {name: card.training.get(name) for name in RESOLVED}
    volumes = [one.address for one in (card.trained_on, *card.also_trained_on)]
    part: Options = []
    if volumes[0] == noisy.address:
        first = (asked.get("selected") or [{}])[0]
        times = first.get("timepoints", noisy.timepoints)
        part = _selected(noisy, card.trained_on.channels, times)
    elif card.trained_on.channels != tuple(range(len(card.trained_on.channels))):
        part = ["--channel", _indices(list(card.trained_on.channels), ranges=False)]
    default = TrainSettings().model_dump(mode="json")
    default |= {"net": NETWORKS[card.method][0], "steps": PRESET_STEPS["balanced"]}
    default["preset"] = asked.get("preset")  # what it means is in the steps
    differ = {n: asked[n] for n in default if n in asked and asked[n] != default[n]}
    return _line("train", *volumes, "-o", folder, *part, *_options(differ))


def _options(asked: Mapping[str, Any]) -> Options:
    """As the command line names them."""
    parts: Options = []
    for name, value in asked.items():
        flag = NAMES.get(name, f"--{name.replace('_', '-')}")
        if value is True:
            parts.append(flag)
        elif value is False:
            parts.append(flag.replace("--", "--no-", 1))
        elif isinstance(value, list | tuple):
            parts += [flag, ",".join(map(str, value))]
        elif value is not None:
            parts += [flag, f"{value:.12g}" if isinstance(value, float) else str(value)]
    return parts


def _calibration(found: Findings, card: FilterCard) -> Options:
    """What a filter was calibrated with, where it is not the default."""
    from n2v_scale.classical import filter_named

    parts: Options = []
    tried = tuple(card.request.get("values", ()))
    if tried and tried != tuple(sorted(set(filter_named(card.filter).candidates))):
        parts += ["--values", ",".join(f"{value:g}" for value in tried)]
    if found.model != f"{found.denoised.address}.filter":
        parts += ["--calibrated", found.model]
    return [*parts, *_options({"seed": card.request.get("seed") or None})]


def _work(found: Findings) -> Options:
    """How it was applied: what the plan says, and the sizes that were asked for."""
    first: dict[str, Any] = found.blocks.runs[0].get("asked", {}) if found.blocks.runs else {}
    of_filter = isinstance(found.card, FilterCard)
    left_out = NOT_OF_FILTERS | {"seed"} if of_filter else set()
    sizes = {n: first[n] for n in SIZES if first.get(n) is not None and n not in left_out}
    applied = {} if of_filter else _applied(found, first)
    return _options({**applied, **_stored(found.plan), **_left(found), **sizes})


def _applied(found: Findings, first: Mapping[str, Any]) -> dict[str, Any]:
    """Of a network."""
    plan = found.plan
    told: dict[str, Any] = {}
    for name in ("plain", "tta"):
        if getattr(plan, name):
            told[name] = True
    if plan.parts > 1:
        told["write"] = plan.write
    camera = {name: first[name] for name in ("gain", "offset", "read_noise") if name in first}
    if plan.noise is None:
        blind = isinstance(found.card, ModelCard) and found.card.blind
        return {**told, **({"posterior": False} if blind else {})}
    forced = {"posterior": True} if first.get("posterior") else {}
    return {**told, **forced, **camera}


def _stored(plan: Plan) -> dict[str, Any]:
    """Of the output, what is not the default."""
    default = PredictSettings()
    spec = plan.output
    names = ("codec", "codec_level", "ome_version")
    told = {n: getattr(spec, n) for n in names if getattr(spec, n) != getattr(default, n)}
    if spec.dtype != plan.volume.dtype and plan.parts == 1:
        told["dtype"] = spec.dtype
    return told


def _left(found: Findings) -> dict[str, Any]:
    """What was not computed, or filled in."""
    plan = found.plan
    told: dict[str, Any] = {} if plan.on_nan == "error" else {"on_nan": plan.on_nan}
    if plan.nodata is not None:
        told["nodata"] = plan.nodata
    mask = found.record["plan"].get("foreground")
    return {**told, **({"mask": mask["address"]} if mask else {})}
