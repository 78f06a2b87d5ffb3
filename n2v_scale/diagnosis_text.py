"""A diagnosis in words, one finding a line."""

from __future__ import annotations

from n2v_scale.correlation import AxisCorrelation
from n2v_scale.diagnosis import ChannelDiagnosis, Diagnosis
from n2v_scale.progress import amount_text


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The findings by channel, then what is recommended and what to watch."""
    lines = []
    for c, channel in enumerate(diagnosis.channels):
        rows = channel_rows(channel)
        lines += [f"channel {c}", *(f"  {name:<15}{text}" for name, text in rows)]
    advice = diagnosis.recommendation
    lines += ["recommended", f"  {advice.sentence}", *(f"  note: {note}" for note in advice.notes)]
    return "\n".join(lines)


def channel_rows(channel: ChannelDiagnosis) -> list[tuple[str, str]]:
    """What was found of one channel, by name."""
    survey = channel.survey
    rows = [
        ("sampled", amount_text(survey.moments.voxels, "voxel")),
        *_noise(channel),
        *((f"noise along {found.axis}", _along(found)) for found in channel.correlation),
        ("saturated", f"{channel.saturated:.3%}"),
        ("clipped", f"{channel.clipped:.3%} at the lowest value"),
        ("empty", f"{survey.empty:.0%}"),
    ]
    if survey.moments.not_finite:
        rows.append(("not finite", amount_text(survey.moments.not_finite, "voxel")))
    return rows


def _noise(channel: ChannelDiagnosis) -> list[tuple[str, str]]:
    noise = channel.noise
    if noise is None:
        return [("noise", "too few voxels to see it")]
    read = noise.read_noise_electrons
    electrons = "" if read is None else f" ({read:.2g} electrons)"
    rows = [
        ("gain", f"{noise.gain:.3g} units an electron" if noise.gain else "none seen"),
        ("offset", f"{noise.offset:.5g}"),
        ("read noise", f"{noise.read_noise:.3g}{electrons}"),
    ]
    if not noise.trusted:
        rows.append(("", "not trusted: the variance does not lie on a camera's line"))
    return rows


def _along(found: AxisCorrelation) -> str:
    if not found.lags:
        return "too few voxels to see it"
    numbers = " ".join(f"{value:.2f}" for value in found.lags)
    return f"{numbers}  (lags 1 to {len(found.lags)}, ± {max(found.errors):.2f})"
