"""The command that looks at a volume's noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from n2v_scale.options import Picture, given, remote, selection
from n2v_scale.shell import say, volume_of


@click.command()
@click.argument("volume")
@click.option("--seed", type=click.IntRange(0), help="Of the sample. [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--plot", type=Picture(), help="Draw variance over mean, and correlations.")
@selection
@remote
def diagnose(volume: str, as_json: bool, plot: str | None, **options: Any) -> None:
    """Say what noise a volume has, and which method suits it.

    From a sample: gain, offset and read noise; how the noise is correlated along z, y and x;
    saturated, clipped and empty shares; and which method and blind mask to train with, and why.

    \b
    Example:
      n2v-scale diagnose volume.zarr
      n2v-scale diagnose volume.zarr --plot noise.png
    """
    from n2v_scale.api import diagnose as diagnose_volume
    from n2v_scale.diagnosis_text import diagnosis_text

    opened = volume_of(volume, options)
    options.pop("storage_options")
    found = diagnose_volume(opened, **given(**options))
    if plot is not None:
        from n2v_scale.diagnosis_plot import draw_diagnosis

        draw_diagnosis(Path(plot), found)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        say(diagnosis_text(found))
