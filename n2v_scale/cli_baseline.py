"""The command for a classical baseline."""

from __future__ import annotations

from typing import Any

import click

from n2v_scale.options import (
    Indices,
    Picture,
    Values,
    division,
    given,
    on_cluster,
    overwriting,
    remote,
    selection,
    storage,
    submittable,
)
from n2v_scale.shell import say_summary, show_progress, volume_of

FILTERS = ("gaussian", "median", "nlm", "tv", "wavelet")
"""As in :data:`n2v_scale.classical.FILTERS`, without loading SciPy for ``--help``."""


@click.command()
@click.argument("volume")
@click.argument("output")
@click.option(
    "--filter", type=click.Choice(FILTERS), default="gaussian", show_default=True, help="Which."
)
@click.option("--values", type=Values(), help="Of its parameter, that are tried, such as 0.5,1,2.")
@click.option(
    "--calibrated",
    type=click.Path(),
    metavar="FOLDER",
    help="Where the calibrated filter is kept. Default: OUTPUT.filter.",
)
@click.option("--plot", type=Picture(), help="Draw the losses to this file (.png, .svg).")
@click.option("--only", type=Indices(), metavar="BLOCKS", help="Blocks to compute: 12:40 or 3,7.")
@click.option("--pyramid/--no-pyramid", default=True, help="Make the lower resolutions too.")
@click.option(
    "--seed", type=click.IntRange(0), help="Of the sample that it is calibrated on. [default: 0]"
)
@click.option(
    "--events", type=click.Path(), help="Append what happens to this file, as JSON lines."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@division
@selection
@storage
@overwriting
@remote
@submittable
@on_cluster
def baseline(volume: str, output: str, as_json: bool, **options: Any) -> None:
    """Denoise a volume with a classical filter, to compare with.

    The filter's parameter is found on the noisy volume alone: with some voxels hidden, the filtered
    values are compared with what was hidden. Runs block by block, exactly, as predict does, and
    resumes; the calibrated filter is a folder that predict takes as a model.

    \b
    Example:
      n2v-scale baseline volume.zarr gaussian.zarr
      n2v-scale baseline volume.zarr tv.zarr --filter tv --plot tv.png
    """
    from n2v_scale.api import baseline as baseline_volume

    opened = volume_of(volume, options)
    summary = baseline_volume(opened, output, progress=show_progress(), **given(**options))
    say_summary(summary, as_json=as_json)
