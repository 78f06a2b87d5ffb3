"""The command that writes the report."""

from __future__ import annotations

import json
from typing import Any

import click

from n2v_scale.options import camera, given, remote, selection
from n2v_scale.shell import matching_volume, show_progress, volume_of


@click.command()
@click.argument("volume")
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="The file; one that is there is replaced.",
)
@click.option("--model", metavar="MODEL", help="That made it. Default: the one on its record.")
@click.option("--noisy", help="The noisy volume. Default: the one on the record.")
@click.option("--reference", help="A clean volume, if there is one.")
@camera
@click.option("--seed", type=click.IntRange(0), help="Of the places that are shown. [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="Print the report's figures as JSON.")
@selection
@remote
def report(
    volume: str,
    output: str,
    model: str | None,
    noisy: str | None,
    reference: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write one HTML file that shows what was done and its quality.

    Slices of the noisy and the denoised volume under a slider, the estimated error with its
    interval, what was taken away, the noise, the training, a map of the blocks, and everything that
    was run. The file holds all that it shows and opens offline in any browser.

    \b
    Example:
      n2v-scale report denoised.zarr -o report.html
      n2v-scale report denoised.zarr --reference clean.zarr
    """
    from n2v_scale.api import report as write_report

    told = given(**{name: options.pop(name) for name in ("gain", "offset", "read_noise", "seed")})
    truth = None if reference is None else matching_volume(reference, options)
    made = write_report(
        volume_of(volume, options),
        output,
        model=model,
        noisy=noisy,
        reference=truth,
        progress=show_progress(),
        **told,
    )
    click.echo(json.dumps(made.to_dict()) if as_json else made.text())
