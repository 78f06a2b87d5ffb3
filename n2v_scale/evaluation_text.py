"""An evaluation in words, one figure a line."""

from __future__ import annotations

import math

from n2v_scale.evaluation import Evaluation
from n2v_scale.pair_evaluation import PairEvaluation
from n2v_scale.self_evaluation import SelfEvaluation
from n2v_scale.shells import ShellCurve


def evaluation_text(found: Evaluation) -> str:
    """Against a clean reference."""
    ssim = "planes too small" if found.ssim is None else f"{found.ssim:.4f}"
    return (
        f"PSNR                  {found.psnr:.2f} dB (range {found.data_range:g})\n"
        f"PSNR, scale-invariant {found.si_psnr:.2f} dB\n"
        f"SSIM                  {ssim}"
    )


def self_evaluation_text(found: SelfEvaluation) -> str:
    """From the noisy volume alone."""
    known = "the camera's" if found.noise_known else "seen in a sample"
    off = ""
    if math.isfinite(found.db_per_percent):  # not where all of the error is lost in the noise
        off = f"; if it is 1% off, the PSNR is off by {found.db_per_percent:.2g} dB"
    rows = [
        ("PSNR, estimated", f"{_interval(found)} (range {found.data_range:g}), of {found.of}"),
        ("mean squared error", f"{found.mse:.4g} ± {found.mse_error:.2g}"),
        ("variance of the noise", f"{found.noise:.4g}, {known}{off}"),
    ]
    if found.masked_psnr is not None:
        rows.append(
            ("masked prediction", f"{found.masked_psnr:.2f} dB, at voxels hidden from the network")
        )
    for axis, lags in found.residual.items():
        if lags:
            rows.append((f"residual along {axis}", " ".join(f"{value:.2f}" for value in lags)))
    rows.append(("residual and signal", f"{found.residual_with_signal:.3f} (correlation)"))
    lines = [f"{name:<22}{text}" for name, text in rows]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _interval(found: SelfEvaluation) -> str:
    low, high = found.psnr_low, found.psnr_high
    best = f"{found.psnr:.2f} dB" if math.isfinite(found.psnr) else "too high to tell"
    if not math.isfinite(low):
        return best
    if not math.isfinite(high):
        return f"{best}, above {low:.2f} dB at 95%"
    return f"{best}, {low:.2f} to {high:.2f} dB at 95%"


def pair_text(found: PairEvaluation) -> str:
    """From two captures: a line a channel and direction."""
    lines = []
    for channel, curves in zip(found.channels, found.curves, strict=True):
        of = f"channel {channel}, " if len(found.channels) > 1 else ""
        for direction, curve in curves.items():
            along = "" if direction == "all" else f" along {direction.upper()}"
            lines.append(f"{f'{of}resolution{along}':<21} {_resolution(curve, found.unit)}")
    if found.left_out:
        lines.append(f"note: {found.left_out} boxes with NaN, or unreadable, were left out")
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _resolution(curve: ShellCurve, unit: str) -> str:
    if curve.outcome == "unknown":
        return "unknown: too few voxels to tell"
    if curve.outcome == "nothing":
        return "none: the two have nothing in common, at any scale"
    length = f"{curve.resolution:.3g} {unit}{'s' if unit == 'voxel' else ''}"
    if curve.outcome == "beyond":
        return f"{length} or better: the correlation does not fall below 1/7 within the voxels"
    return f"{length}: the correlation falls below 1/7 at {curve.crossing:.3g} cycles/{unit}"
