"""What a report says in words and tables; numbers with their units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from n2v_scale.blind_masks import mask_name
from n2v_scale.filter_card import FilterCard
from n2v_scale.model_card import ModelCard
from n2v_scale.progress import amount_text, clock
from n2v_scale.reporting.findings import Findings
from n2v_scale.reporting.storage import Stored
from n2v_scale.residuals import ALIKE, LAGS
from n2v_scale.self_evaluation import SelfEvaluation

Rows = list[tuple[str, str]]

UNITS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "angstrom": "Å"}
TAUGHT = ("n2n", "supervised")
"""Methods that learn from more than the noisy volume."""


@dataclass(frozen=True)
class Figure:
    """A number that stands out at the top."""

    name: str
    value: str
    note: str


def sentence(note: str) -> str:
    """With a capital and a full stop."""
    ended = note if note.endswith((".", "!", "?")) else f"{note}."
    return ended[:1].upper() + ended[1:]


def headline(found: Findings) -> str:
    """The whole report in two sentences."""
    said = (_quality(found), _doubt(found), _residual(found))
    return " ".join(part for part in said if part)


def _doubt(found: Findings) -> str:
    """An estimate without a reference takes the noise for independent."""
    if found.evaluations or found.estimate is None or found.diagnosis is None:
        return ""
    if any(axis.strong for c in found.diagnosis.channels for axis in c.correlation):
        return "That holds for independent noise; here it is correlated, and the error is larger."
    return ""


def _quality(found: Findings) -> str:
    if found.evaluations:
        before, after = found.evaluations["noisy"].psnr, found.evaluations["denoised"].psnr
        return f"Against the reference, the PSNR {_went(before, after)}."
    estimate = found.estimate
    if estimate is None:
        return "The error could not be estimated; the reason stands below."
    before = noisy_psnr(estimate)
    if told_from_noise(estimate):
        went = _went(before, estimate.psnr)
        return f"By an estimate without a reference, the PSNR {went} ({interval_text(estimate)})."
    if math.isfinite(estimate.psnr_low) and estimate.psnr_low > before:
        return (
            f"By an estimate without a reference, the PSNR rose from {before:.1f} dB to more than "
            f"{estimate.psnr_low:.1f} dB (at 95%); how much more cannot be told."
        )
    return "The error is too small beside the noise to be told from it without a reference."


def _went(before: float, after: float) -> str:
    if f"{before:.1f}" == f"{after:.1f}":
        return f"stayed at {after:.1f} dB"
    return f"{'rose' if after > before else 'fell'} from {before:.1f} to {after:.1f} dB"


def told_from_noise(estimate: SelfEvaluation) -> bool:
    """Whether the interval has two ends, so that a single number means something."""
    return all(map(math.isfinite, (estimate.psnr, estimate.psnr_low, estimate.psnr_high)))


def _residual(found: Findings) -> str:
    return "" if found.estimate is None else residual_sentence(found.estimate)


def residual_sentence(estimate: SelfEvaluation) -> str:
    """Whether it looks like noise."""
    if not any(estimate.residual.values()):
        return "There is too little to see whether what was taken away looks like noise."
    alike = max((max(lags[:LAGS], default=0) for lags in estimate.residual.values()), default=0)
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
    if not math.isfinite(low):
        return "unknown at 95%"
    if not math.isfinite(high):
        return f"above {low:.1f} dB at 95%"
    return f"{low:.1f} to {high:.1f} dB at 95%"


def figures(found: Findings) -> list[Figure]:
    """What stands out."""
    shown = [Figure("method", *_applied(found))]
    if found.evaluations:
        after, before = found.evaluations["denoised"], found.evaluations["noisy"]
        note = f"noisy: {before.psnr:.1f} dB, against the reference"
        shown.append(Figure("PSNR", f"{after.psnr:.1f} dB", note))
    if found.estimate is not None and math.isfinite(found.estimate.psnr_low):
        shown.append(_estimated(found.estimate))
    gain = smaller(found)
    if gain is not None:
        shown.append(
            Figure("space on the disk", f"{1 / gain:.0%}", "of the noisy volume's, by one codec")
        )
    blocks = found.blocks
    note = f"{blocks.missing} missing" if blocks.missing else "all written"
    shown.append(Figure("blocks", f"{blocks.blocks - blocks.missing} of {blocks.blocks}", note))
    runs = blocks.runs
    if runs:
        seconds = sum(run["seconds"] for run in runs)
        workers = max(run["workers"] for run in runs)
        note = f"with {amount_text(workers, 'worker')}" if workers else "by several runs"
        shown.append(Figure("computed in", clock(seconds), note))
    return shown


def _applied(found: Findings) -> tuple[str, str]:
    card = found.card
    if isinstance(card, FilterCard):
        return card.filter, "a classical filter"
    if card is None:
        return "unknown", "the model cannot be read"
    return card.method, f"{card.network}, {card.parameters:,} parameters"


def _estimated(estimate: SelfEvaluation) -> Figure:
    before = f"noisy: {noisy_psnr(estimate):.1f} dB"
    if told_from_noise(estimate):
        note = f"{interval_text(estimate)}; {before}"
        return Figure("estimated PSNR", f"{estimate.psnr:.1f} dB", note)
    return Figure("estimated PSNR", f"> {estimate.psnr_low:.1f} dB", f"at 95%; {before}")


def smaller(found: Findings) -> float | None:
    """How many times better the denoised volume compresses; None where they do not compare."""
    noisy, denoised = found.stored["noisy"].ratio, found.stored["denoised"].ratio
    if not noisy or not denoised or found.denoised.dtype != found.noisy.dtype:
        return None
    return denoised / noisy


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
        ("voxel size (z × y × x)", f"{size} {unit_of(noisy) or '(no unit is known)'}"),
        ("voxel type", f"{noisy.dtype}, written as {found.denoised.dtype}"),
        ("format", f"{noisy.format}, written as {found.denoised.format}"),
        ("identity of the input", str(found.record["plan"]["input"]["identity"])),
    ]
    return rows


def unit_of(volume: Any) -> str:
    """Of the voxel size, for people; empty where it is not known."""
    units = {axis.unit for axis in volume.axes if axis.name in "zyx" and axis.unit}
    unit = units.pop() if len(units) == 1 else ""
    return UNITS.get(unit, unit)


def estimate_rows(found: Findings) -> Rows:
    """The error, and how it is known."""
    rows: Rows = []
    if found.evaluations:
        before, after = found.evaluations["noisy"], found.evaluations["denoised"]
        rows.append(("PSNR against the reference", f"{before.psnr:.2f} → {after.psnr:.2f} dB"))
        rows.append(("the same, scale-invariant", f"{before.si_psnr:.2f} → {after.si_psnr:.2f} dB"))
        if before.ssim is not None and after.ssim is not None:
            rows.append(("SSIM", f"{before.ssim:.3f} → {after.ssim:.3f}"))
    estimate = found.estimate
    if estimate is None:
        return rows + _peak(found)
    best = f"{estimate.psnr:.2f} dB"
    told, interval = told_from_noise(estimate), interval_text(estimate)
    known = "told" if estimate.noise_known else "seen in a sample of the volume"
    rows += [
        ("estimated PSNR", interval if not told else f"{best}, {interval}"),
        ("estimated for", estimate.of),
        ("PSNR of the noisy volume", f"{noisy_psnr(estimate):.2f} dB"),
        ("estimated mean squared error", f"{estimate.mse:.4g} ± {estimate.mse_error:.2g}"),
        ("variance of the noise", f"{estimate.noise:.4g}; the camera's noise was {known}"),
    ]
    if math.isfinite(estimate.db_per_percent):  # not where all of the error is lost in the noise
        off = f"the PSNR is off by {estimate.db_per_percent:.2g} dB"
        rows.append(("if this variance is 1% off", off))
    if estimate.masked_psnr is not None:
        masked = f"{estimate.masked_psnr:.2f} dB, at voxels hidden from the network"
        rows.append(("masked prediction", masked))
    return rows + _peak(found)


def _peak(found: Findings) -> Rows:
    """What all PSNRs of the page are relative to."""
    judged = found.evaluations.get("denoised") or found.estimate
    return [] if judged is None else [("range (the PSNR's peak)", f"{judged.data_range:.5g}")]


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
    if found.noisy.dtype != found.denoised.dtype:
        return (
            f"The output is {found.denoised.dtype} and the input {found.noisy.dtype}: their sizes "
            "do not compare."
        )
    gain = smaller(found)
    if gain is None:
        return "Too little is written to say how well it compresses."
    return (
        "Noise does not compress. With one codec for both, the denoised volume takes "
        f"{1 / gain:.0%} of the space of the noisy one."
    )


def storage_rows(found: Findings) -> list[tuple[str, str, str, str]]:
    """Volume, in memory, on the disk, compression with one codec."""
    return [(_called(found, name), *_sizes(stored)) for name, stored in found.stored.items()]


def _called(found: Findings, name: str) -> str:
    """With what it holds beside what was denoised."""
    if name == "denoised" and found.plan.parts > 1:
        return "denoised, and its standard deviations"
    volume = {"noisy": found.noisy, "denoised": found.denoised}[name]
    if np.prod(volume.shape) < np.prod(volume.stored_shape):
        return f"{name}, all channels and time points"
    return name


def _sizes(stored: Stored) -> tuple[str, str, str]:
    disk = "not counted"
    if stored.bytes_stored is not None:
        times = stored.bytes_in_memory / max(1, stored.bytes_stored)
        codec = "not compressed" if stored.codec == "none" else f"{stored.codec}, {times:.2f} to 1"
        disk = f"{amount_text(stored.bytes_stored, 'B')} ({codec})"
    ratio = "unknown" if stored.ratio is None else f"{stored.ratio:.2f} to 1"
    return amount_text(stored.bytes_in_memory, "B"), disk, ratio


def noise_words(found: Findings) -> list[str]:
    """What the noise is like and what suits it; kindly, where something else was done."""
    if found.diagnosis is None:
        return []
    advice = found.diagnosis.recommendation
    mask = f" with the blind mask {advice.mask}" if advice.mask else ""
    words = [f"The method that suits this noise is {advice.method}{mask}: {advice.reason}."]
    card = found.card
    if isinstance(card, FilterCard):
        words.append(
            f"This volume was denoised with a {card.filter} filter, for a comparison: a trained "
            f"{advice.method} should leave less error."
        )
    elif isinstance(card, ModelCard) and card.method not in (advice.method, *TAUGHT):
        words.append(
            f"This volume was denoised with {card.method}. That is no mistake: {advice.method} may "
            "be worth a try beside it."
        )
    return words


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
            ("method", _method(card)),
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
    return [("model", f"{found.model} (it cannot be read now)")]


def _method(card: ModelCard) -> str:
    mask = card.training.get("blind_mask")
    return f"{card.method}, blind mask {mask_name(mask)}" if mask else card.method


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
    if isinstance(found.card, FilterCard) or (found.card and not found.card.blind):
        return "seen by the prediction"
    return "not put back"


def run_rows(found: Findings) -> list[tuple[str, str, str, str]]:
    """End, time, workers and blocks of each run."""
    return [
        (
            datetime.fromtimestamp(run["ended"], UTC).strftime("%Y-%m-%d %H:%M UTC"),
            clock(run["seconds"]),
            f"{run['workers']:,}",
            f"{run['computed']:,}",
        )
        for run in found.blocks.runs
    ]


def version_rows(found: Findings) -> list[tuple[str, str, str]]:
    """Package, when it was trained, when it was predicted."""
    predicted = found.record.get("versions") or {"n2v-scale": found.record["package_version"]}
    trained: dict[str, str] = {}
    if isinstance(found.card, ModelCard):
        trained = found.card.training.get("versions") or {"n2v-scale": found.card.package_version}
    names = list(dict.fromkeys([*predicted, *trained]))
    return [(name, trained.get(name, ""), predicted.get(name, "")) for name in names]


def _times(shape: Any) -> str:
    return " × ".join(map(str, shape))
