"""The command that says how good a denoised volume is."""

from __future__ import annotations

import json
from typing import Any

import click

from n2v_scale.options import camera, given, remote, selection
from n2v_scale.shell import matching_volume, say, show_progress

OWN = ("axes", "level", "series")
"""Options that say what of the first volume is meant, and not of the others."""
CAMERA = ("gain", "offset", "read_noise")


@click.command()
@click.argument("volume")
@click.option("--reference", metavar="VOLUME", help="The clean volume.")
@click.option("--noisy", metavar="VOLUME", help="What it was made from: needs no clean volume.")
@click.option(
    "--pair",
    metavar="VOLUME",
    help="Another capture, noisy or denoised as this is.",
)
@click.option("--model", metavar="MODEL", help="That made it. Default: the one on its record.")
@camera
@click.option("--range", "data_range", type=float, help="Peak of the PSNR. Default: reference's.")
@click.option("--seed", type=click.IntRange(0), help="Of the sample. [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@selection
@remote
def evaluate(
    volume: str,
    reference: str | None,
    noisy: str | None,
    pair: str | None,
    data_range: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say how good a denoised volume is, also without a clean one.

    With --reference, PSNR and SSIM; the PSNR's peak is the reference's 99.9th percentile minus its
    minimum. With --noisy, the error is estimated, with an interval: the noise's variance must be
    known for that, best as the camera's --gain, --offset and --read-noise in units. With --pair,
    the resolution: where the Fourier shell correlation of two captures falls below 1/7. Channels
    and time points are selected in all of them; where one has a single one, it stays.

    \b
    Example:
      n2v-scale evaluate denoised.zarr --reference clean.zarr
      n2v-scale evaluate denoised.zarr --noisy volume.zarr
      n2v-scale evaluate first.zarr --pair second.zarr
    """
    from n2v_scale.api import estimate_error, evaluate_pair
    from n2v_scale.api import evaluate as evaluate_volume
    from n2v_scale.evaluation_text import evaluation_text, pair_text, self_evaluation_text

    if reference is None and noisy is None and pair is None:
        raise click.UsageError("give --reference, --noisy or --pair, or several of them")
    seed = given(seed=options.pop("seed"))
    told = {name: options.pop(name) for name in (*CAMERA, "model")}
    if noisy is None and any(value is not None for value in told.values()):
        raise click.UsageError("--model and the camera's options belong to --noisy")
    if noisy is None and pair is None and seed:
        raise click.UsageError("--seed belongs to --noisy and --pair")
    opened = matching_volume(volume, options, **{name: options[name] for name in OWN})
    shown: dict[str, Any] = {}
    lines = []
    if reference is not None:
        truth = matching_volume(reference, options)
        found = evaluate_volume(opened, truth, data_range=data_range, progress=show_progress())
        data_range = found.data_range
        shown |= found.to_dict()
        lines.append(evaluation_text(found))
    if noisy is not None:
        estimate = estimate_error(
            opened,
            matching_volume(noisy, options),
            data_range=data_range,
            progress=show_progress(),
            **seed,
            **given(**told),
        )
        shown["estimate"] = estimate.to_dict()
        lines.append(self_evaluation_text(estimate))
    if pair is not None:
        other = matching_volume(pair, options)
        captures = evaluate_pair(opened, other, progress=show_progress(), **seed)
        shown["pair"] = captures.to_dict()
        lines.append(pair_text(captures))
    if as_json:
        click.echo(json.dumps(shown))
    else:
        say("\n".join(lines))
