"""A model's card for people: a name and a text a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from n2v_scale.config import NETWORKS, TrainSettings
from n2v_scale.filter_card import FilterCard, read_filter_card
from n2v_scale.method_facts import FACTS
from n2v_scale.model_card import ModelCard, TrainedOn, read_card, read_kind
from n2v_scale.network_config import UNetConfig, config_from_dict, unet_of
from n2v_scale.progress import clock

Rows = list[tuple[str, str]]
NAME_WIDTH = 19
NOT_SETTINGS = ("volumes", "identities", "method", "mask_identity", "init_key")
"""Of what was asked for, what is told in another row, or follows from the rest."""


def model_rows(folder: Path) -> Rows:
    """The card of the denoiser at ``folder``, of whatever kind ``train`` or ``baseline`` made.

    Raises
    ------
    ModelError
        When there is none, or it is broken or too new.
    """
    if read_kind(folder) == "filter":
        return [("model", str(folder)), *_filter_rows(read_filter_card(folder))]
    card = read_card(folder)
    return [
        ("model", str(folder)),
        *method_rows(card),
        *trained_rows(card),
        *training_rows(card),
        ("version", f"n2v-scale {card.package_version}, format {card.format}"),
        ("checksum", f"sha256 {card.weights_sha256}"),
        ("apply it", f"n2v-scale predict VOLUME {folder} OUTPUT.zarr"),
        ("", f"n2v-scale export {folder} --bioimageio MODEL.zip"),
    ]


def rows_text(rows: Rows) -> str:
    """Rows as lines."""
    return "\n".join(f"{name:<{NAME_WIDTH}}{text}".rstrip() for name, text in rows)


def method_rows(card: ModelCard) -> Rows:
    """Method and network."""
    facts = FACTS.get(card.method)
    rows = [("method", card.method if facts is None else f"{card.method} ({facts.title})")]
    if facts is not None:
        rows += [("assumes", facts.assumes), ("source", f"{facts.source.text}, doi:{_doi(card)}")]
    rows += [
        ("network", _network(card)),
        ("parameters", f"{card.parameters:,}"),
        ("sees (z, y, x)", ", ".join(_sides(sides) for sides in card.receptive_field)),
    ]
    if card.passes > 1:
        rows.append(("applied in", f"{card.passes} passes, one for each subset of the voxels"))
    if card.blind:
        rows.append(
            ("blind", "yes: predict puts each voxel's own value back where the noise is known")
        )
    return rows


def _doi(card: ModelCard) -> str:
    return FACTS[card.method].source.doi


def _sides(sides: tuple[int, int]) -> str:
    low, high = sides
    return f"{low} voxels" if low == high else f"{low} and {high} voxels"


def _network(card: ModelCard) -> str:
    config = config_from_dict(card.network, card.network_config)
    unet = unet_of(config)
    window = "" if isinstance(config, UNetConfig) else f", window {_times(config.window)}"
    if unet is None:
        return f"{card.network}{window}"
    batch_norm = ", batch normalisation" if unet.batch_norm else ""
    return (
        f"{card.network}{window}, depth {unet.depth}, {unet.filters} filters, "
        f"kernel {_times(unet.kernel)}{batch_norm}; extents are multiples of {_times(card.stride)}"
    )


def _times(numbers: tuple[int, ...]) -> str:
    return " × ".join(map(str, numbers))


def trained_rows(card: ModelCard) -> Rows:
    """The volumes, their normalisation, and the noise that a sample showed."""
    rows: Rows = []
    for trained in (card.trained_on, *card.also_trained_on):
        rows += _volume_rows(trained, "trained on" if not rows else "and on")
    return rows


def _volume_rows(trained: TrainedOn, name: str) -> Rows:
    t, c, z, y, x = trained.shape
    more = [f"{n} {what}" for n, what in ((t, "time points"), (c, "channels")) if n > 1]
    unit = trained.unit or "unit unknown"
    sizes = " × ".join(f"{size:g}" for size in trained.voxel_size)
    rows = [
        (name, trained.address),
        ("  shape (z, y, x)", ", ".join([_times((z, y, x)), *more])),
        ("  voxel (z, y, x)", f"{sizes} {unit}"),
        ("  voxel type", trained.dtype),
    ]
    for place, channel in enumerate(trained.channels):
        offset, scale = trained.offset[place], trained.scale[place]
        rows.append((f"  channel {channel}", f"normalised as (value - {offset:.6g}) / {scale:.6g}"))
        if trained.survey is not None:
            rows.append(("    noise", _noise(trained.survey[place].get("noise"))))
    return rows


def _noise(noise: dict[str, Any] | None) -> str:
    if noise is None:
        return "not seen"
    trusted = "" if noise.get("misfit", 0.0) < 0.2 else ", not trusted: off the camera's line"
    return (
        f"gain {noise['gain']:.3g}, offset {noise['offset']:.5g}, "
        f"read noise {noise['read_noise']:.3g} (units of the volume){trusted}"
    )


def training_rows(card: ModelCard) -> Rows:
    """What was asked for beyond the defaults, how long it took, and what came of it."""
    training, rows = card.training, []
    asked = asked_for(card)
    rows.append(("settings", ", ".join(f"{k} {v}" for k, v in asked.items()) or "the defaults"))
    if "steps_done" in training:
        early = ", stopped early" if training.get("stopped_early") else ""
        fitted = card.method == "linear"
        steps = "none: fitted in closed form" if fitted else f"{training['steps_done']:,}{early}"
        rows.append(("steps", steps))
    if card.history:
        rows.append(("time", f"{clock(card.history[-1]['seconds'])} on {training.get('device')}"))
    best = best_loss(card)
    lowest = "none" if best is None else f"{best:.5g} at best, on regions it was not trained on"
    return [*rows, ("held-out loss", lowest)]


def best_loss(card: ModelCard) -> float | None:
    """The lowest on the held-out regions; None where nothing was held out."""
    losses = [row["held_out"] for row in card.history if "held_out" in row]
    return min(losses) if losses else None


def asked_for(card: ModelCard) -> dict[str, Any]:
    """Of what was asked for, by option, what differs from the defaults."""
    request = card.training.get("request") or {}
    usual = TrainSettings().resolved().model_dump(mode="json")
    usual["net"] = NETWORKS.get(card.method, (None,))[0]
    found = {}
    for name, value in request.items():
        usual_value = usual.get(name)
        known = name in usual and name not in NOT_SETTINGS
        if known and value is not None and value != usual_value:
            found[name.replace("_", "-")] = _written(value)
    return found


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _filter_rows(card: FilterCard) -> Rows:
    values = ", ".join(
        f"{value:g} for channel {c}" for c, value in zip(card.channels, card.values, strict=True)
    )
    constants = [
        (f"  channel {c}", f"mean {mean:.6g}, noise {noise:.6g}")
        for c, mean, noise in zip(card.channels, card.offset, card.scale, strict=True)
    ]
    return [
        ("filter", f"{card.filter} (classical, calibrated without a reference; not trained)"),
        ("assumes", "the noise is independent from voxel to voxel"),
        ("parameter", f"{values}, in units of the noise where it has a unit"),
        ("calibrated on", str(card.request.get("input", "an unknown volume"))),
        *constants,
        ("version", f"n2v-scale {card.package_version}, format {card.format}"),
    ]


def model_document(folder: Path) -> dict[str, Any]:
    """The card at ``folder`` as it is stored, with the settings that differ from the defaults."""
    if read_kind(folder) == "filter":
        return read_filter_card(folder).model_dump(mode="json")
    card = read_card(folder)
    facts = FACTS.get(card.method)
    more = {
        "assumes": None if facts is None else facts.assumes,
        "settings": asked_for(card),
        "best_held_out_loss": best_loss(card),
    }
    return {**card.model_dump(mode="json"), **more}
