"""What a report says in words and tables; numbers with their units."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from n2v_scale.config import TrainSettings
from n2v_scale.filter_card import FilterCard
from n2v_scale.model_card import ModelCard
from n2v_scale.progress import amount_text, clock
from n2v_scale.reporting.findings import Findings
from n2v_scale.residuals import ALIKE
from n2v_scale.self_evaluation import SelfEvaluation

Rows = list[tuple[str, str]]

OF_THE_MACHINE = {"device", "threads"}
"""Settings that the model's card has as they turned out to be."""


@dataclass(frozen=True)
class Figure:
    """A number that stands out at the top."""

    name: str
    value: str
    note: str


def headline(found: Findings) -> str:
    """The whole report in two sentences."""
    return " ".join(sentence for sentence in (_quality(found), _residual(found)) if sentence)


def _quality(found: Findings) -> str:
    if found.evaluations:
        before, after = found.evaluations["noisy"].psnr, found.evaluations["denoised"].psnr
        return f"Against the reference, the PSNR rose from {before:.1f} to {after:.1f} dB."
    estimate = found.estimate
    if estimate is None:
        return "The error could not be estimated; the reason stands below."
    before = noisy_psnr(estimate)
    if not math.isfinite(estimate.psnr):
        return "The error is too small beside the noise to be told from it."
    span = interval_text(estimate)
    return (
        f"The PSNR is estimated to have risen from {before:.1f} to {estimate.psnr:.1f} dB ({span})."
    )


def _residual(found: Findings) -> str:
    return "" if found.estimate is None else residual_sentence(found.estimate)


def residual_sentence(estimate: SelfEvaluation) -> str:
    """Whether it looks like noise."""
    alike = max((max(lags[:2], default=0) for lags in estimate.residual.values()), default=0)
    if alike > ALIKE:
        return (
            "What was taken away is alike from voxel to voxel: structure is lost, or the noise is "
            "correlated. Look at the residual below."
        )
    return "What was taken away looks like noise: it is not alike from voxel to voxel."


def noisy_psnr(estimate: SelfEvaluation) -> float:
    """Of the noisy volume, in dB, from the variance of its noise."""
    return 10 * math.log10(estimate.data_range**2 / max(estimate.noise, 1e-30))


def interval_text(estimate: SelfEvaluation) -> str:
    """At 95%."""
    low, high = estimate.psnr_low, estimate.psnr_high
    if not math.isfinite(high):
        return f"above {low:.1f} dB at 95%"
    return f"{low:.1f} to {high:.1f} dB at 95%"


def figures(found: Findings) -> list[Figure]:
    """What stands out."""
    shown = []
    if found.evaluations:
        after, before = found.evaluations["denoised"], found.evaluations["noisy"]
        note = f"noisy: {before.psnr:.1f} dB, against the reference"
        shown.append(Figure("PSNR", f"{after.psnr:.1f} dB", note))
    if found.estimate is not None and math.isfinite(found.estimate.psnr):
        note = f"{interval_text(found.estimate)}; noisy: {noisy_psnr(found.estimate):.1f} dB"
        shown.append(Figure("estimated PSNR", f"{found.estimate.psnr:.1f} dB", note))
    ratio = found.stored["denoised"].ratio / found.stored["noisy"].ratio
    if found.denoised.dtype == found.noisy.dtype:
        shown.append(
            Figure("smaller on the disk", f"{ratio:.2f} times", "compressed by the same codec")
        )
    blocks = found.blocks
    note = f"{blocks.missing} missing" if blocks.missing else "all written"
    shown.append(Figure("blocks", f"{blocks.blocks - blocks.missing} of {blocks.blocks}", note))
    runs = blocks.runs
    if runs:
        seconds = sum(run["seconds"] for run in runs)
        workers = max(run["workers"] for run in runs)
        note = f"on {amount_text(workers, 'worker')} at most"
        shown.append(Figure("computed in", clock(seconds), note))
    return shown


def volume_rows(found: Findings) -> Rows:
    """What the volume is."""
    noisy = found.noisy
    t, c, z, y, x = noisy.shape
    size = " × ".join(f"{v:g}" for v in noisy.voxel_size)
    rows = [
        ("noisy volume", noisy.location),
        ("denoised volume", found.denoised.location),
        *([] if found.reference is None else [("reference", found.reference.location)]),
        ("voxels (z × y × x)", f"{z} × {y} × {x}"),
    ]
    if t > 1 or c > 1:
        rows.append(("time points, channels", f"{t}, {c}"))
    rows += [
        ("voxel size (z × y × x)", f"{size} {unit_of(noisy)}"),
        ("voxel type", f"{noisy.dtype}, written as {found.denoised.dtype}"),
        ("format", f"{noisy.format}, written as {found.denoised.format}"),
        ("identity of the input", str(found.record["plan"]["input"]["identity"])),
    ]
    return rows


def unit_of(volume: Any) -> str:
    """Of the voxel size, for people."""
    units = {axis.unit for axis in volume.axes if axis.name in "zyx" and axis.unit}
    unit = units.pop() if len(units) == 1 else ""
    return {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm"}.get(unit, unit or "voxel")


def estimate_rows(found: Findings) -> Rows:
    """The error, and how it is known."""
    rows: Rows = []
    if found.evaluations:
        before, after = found.evaluations["noisy"], found.evaluations["denoised"]
        rows.append(("PSNR against the reference", f"{before.psnr:.2f} → {after.psnr:.2f} dB"))
        rows.append(("after the best linear map", f"{before.si_psnr:.2f} → {after.si_psnr:.2f} dB"))
        if before.ssim is not None and after.ssim is not None:
            rows.append(("SSIM", f"{before.ssim:.3f} → {after.ssim:.3f}"))
        rows.append(("peak of the PSNR", f"{after.data_range:.5g}"))
    estimate = found.estimate
    if estimate is None:
        return rows
    best = f"{estimate.psnr:.2f} dB" if math.isfinite(estimate.psnr) else "too high to tell"
    known = "told" if estimate.noise_known else "seen in a sample of the volume"
    rows += [
        ("estimated PSNR", f"{best}, {interval_text(estimate)}, of {estimate.of}"),
        ("the noisy volume's", f"{noisy_psnr(estimate):.2f} dB"),
        ("estimated mean squared error", f"{estimate.mse:.4g} ± {estimate.mse_error:.2g}"),
        ("variance of the noise", f"{estimate.noise:.4g}; the camera was {known}"),
        ("if that is 1% off", f"the PSNR is off by {estimate.db_per_percent:.2g} dB"),
        ("peak of the PSNR", f"{estimate.data_range:.5g}"),
    ]
    if estimate.masked_psnr is not None:
        masked = f"{estimate.masked_psnr:.2f} dB, at voxels hidden from the network"
        rows.append(("masked prediction", masked))
    return rows


def residual_rows(estimate: SelfEvaluation) -> Rows:
    """What was taken away."""
    rows = [
        (f"along {axis}, lags 1 to {len(lags)}", "  ".join(f"{v:+.3f}" for v in lags))
        for axis, lags in estimate.residual.items()
        if lags
    ]
    return [*rows, ("with the signal", f"{estimate.residual_with_signal:+.3f}")]


def storage_sentence(found: Findings) -> str:
    """What denoising does to compression, with one codec for both."""
    noisy, denoised = found.stored["noisy"], found.stored["denoised"]
    same = found.noisy.dtype == found.denoised.dtype
    gain = denoised.ratio / noisy.ratio
    if not same:
        return (
            f"The output is {found.denoised.dtype} and the input {found.noisy.dtype}: their sizes "
            "do not compare."
        )
    return (
        f"Noise does not compress. With one codec for both, the denoised volume takes "
        f"{1 / gain:.0%} of the noisy one's space ({gain:.2f} times less)."
    )


def storage_rows(found: Findings) -> list[tuple[str, str, str, str]]:
    """Volume, on the disk, in memory, compression with one codec."""
    rows = []
    for name, stored in found.stored.items():
        disk = "not counted"
        if stored.bytes_stored is not None:
            times = stored.bytes_in_memory / max(1, stored.bytes_stored)
            disk = f"{amount_text(stored.bytes_stored, 'B')} ({stored.codec}, {times:.2f} times)"
        memory = amount_text(stored.bytes_in_memory, "B")
        rows.append((name, memory, disk, f"{stored.ratio:.2f} times"))
    return rows


def model_rows(found: Findings) -> Rows:
    """How the volume was denoised."""
    card = found.card
    if isinstance(card, ModelCard):
        trained = card.trained_on
        (za, zb), (ya, yb), (xa, xb) = card.receptive_field
        steps = card.training.get("steps_done", 0)
        seconds = card.history[-1]["seconds"] if card.history else None
        took = "" if seconds is None else f" in {clock(float(seconds))}"
        return [
            ("model", found.model),
            ("method", card.method),
            ("network", f"{card.network}, {card.parameters:,} parameters"),
            ("sees (z, y, x)", f"−{za} to +{zb}, −{ya} to +{yb}, −{xa} to +{xb} voxels"),
            ("trained on", f"{trained.address}, {' × '.join(map(str, trained.shape[2:]))} voxels"),
            ("training", f"{steps} steps{took}" if steps else f"fitted in closed form{took}"),
            ("weights (SHA-256)", card.weights_sha256),
        ]
    if isinstance(card, FilterCard):
        values = ", ".join(f"{v:.3g}" for v in card.values)
        return [
            ("filter", f"{card.filter}, calibrated without a reference"),
            ("parameter, by channel", values),
        ]
    return [("model", f"{found.model} (not there any more)")]


def plan_rows(found: Findings) -> Rows:
    """Every decision of the run."""
    plan, record = found.plan, found.record
    halo = ", ".join(f"{a}|{b}" for a, b in plan.halo)
    error = (
        "" if plan.precision_error is None else f" (error {plan.precision_error:.1e} of the std)"
    )
    rows = [
        ("blocks", f"{plan.blocks} of {_times(plan.block)} voxels"),
        ("tiles", f"{_times(plan.tile)} voxels, with a halo of {halo} along z, y, x"),
        ("chunks, shards", f"{_times(plan.sizes.chunk)}, {_times(plan.sizes.shard)}"),
        ("arithmetic", f"{plan.precision}{error} on {plan.device}"),
        ("processors", ", ".join(record.get("processors", [])) or "not recorded"),
        ("each voxel's own value", _own_value(found)),
        ("key of the plan", str(record.get("key", ""))),
    ]
    if plan.tta:
        rows.append(("mean over mirror images", "yes"))
    return rows


def _own_value(found: Findings) -> str:
    if found.plan.no_posterior:
        return f"not put back: {found.plan.no_posterior}"
    if found.plan.noise:
        return "put back by the noise model (posterior mean)"
    return "not put back"


def run_rows(found: Findings) -> list[tuple[str, str, str, str]]:
    """End, time, workers and blocks of each run."""
    return [
        (
            datetime.fromtimestamp(run["ended"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
            clock(run["seconds"]),
            str(run["workers"]),
            str(run["computed"]),
        )
        for run in found.blocks.runs
    ]


def version_rows(found: Findings) -> list[tuple[str, str, str]]:
    """Package, when it was trained, when it was predicted."""
    predicted = found.record.get("versions") or {"n2v-scale": found.record.get("package_version")}
    trained: dict[str, str] = {}
    if isinstance(found.card, ModelCard):
        trained = found.card.training.get("versions") or {"n2v-scale": found.card.package_version}
    names = list(dict.fromkeys([*predicted, *trained]))
    return [(name, trained.get(name, ""), predicted.get(name, "")) for name in names]


def commands(found: Findings) -> list[str]:
    """What does the same again, written from the records."""
    noisy, output = found.noisy.address, found.denoised.address
    part = _selection(found)
    if isinstance(found.card, FilterCard):
        return [_line("baseline", noisy, output, "--filter", found.card.filter, *part)]
    lines = []
    if isinstance(found.card, ModelCard):
        asked = found.card.training
        several = [one.address for one in (found.card.trained_on, *found.card.also_trained_on)]
        lines.append(_line("train", *several, "-o", found.model, *_train_options(asked)))
    lines.append(_line("predict", noisy, found.model, output, *part, *_predict_options(found)))
    return lines


def _selection(found: Findings) -> list[str]:
    volume, parts = found.plan.volume, []
    for name, flag in (("c", "--channel"), ("t", "--timepoints")):
        axis = volume.axis(name)
        chosen = volume.channels if name == "c" else volume.timepoints
        if axis is not None and len(chosen) < volume.stored_shape[volume.axes.index(axis)]:
            parts += [flag, ",".join(map(str, chosen))]
    return parts


def _train_options(asked: dict[str, Any]) -> list[str]:
    """Those that differ from the defaults, as the command line names them."""
    default = TrainSettings().model_dump(mode="json")
    parts: list[str] = []
    for name, value in asked.items():
        if name not in default or value == default[name] or value is None or name in OF_THE_MACHINE:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            parts += [flag if value else f"--no-{name.replace('_', '-')}"]
        elif isinstance(value, list):
            parts += [flag, ",".join(map(str, value))]
        else:
            parts += [flag, str(value)]
    return parts


def _predict_options(found: Findings) -> list[str]:
    plan = found.plan
    parts = []
    if plan.parts > 1:
        parts += ["--output", plan.write]
    if plan.tta:
        parts.append("--tta")
    if plan.on_nan != "error":
        parts += ["--on-nan", plan.on_nan]
    if plan.nodata is not None:
        parts += ["--nodata", f"{plan.nodata:g}"]
    mask = found.record["plan"].get("foreground")
    if mask:
        parts += ["--mask", mask["address"]]
    return parts


def _line(verb: str, *parts: str) -> str:
    return shlex.join(["n2v-scale", verb, *parts])


def _times(shape: Any) -> str:
    return " × ".join(map(str, shape))
