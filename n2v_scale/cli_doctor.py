"""The command that checks an installation."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from n2v_scale.completion import Address
from n2v_scale.terminal import columns_of


@click.command()
@click.option(
    "--folder",
    type=Address(),
    metavar="FOLDER",
    default=".",
    help="Where outputs are to be written. Default: here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(context: click.Context, folder: str, as_json: bool) -> None:
    """Check the installation and this machine.

    Versions, torch and GPU, compression, optional extras, cluster programs and presets, memory,
    cores and limits, the folder for outputs; and what to do about what is found. Needs no network.
    Exits with 1 when something would stop a run.

    \b
    Example:
      n2v-scale doctor
      n2v-scale doctor --folder /scratch/me
    """
    from n2v_scale.doctor import examination_text, examine, stops_a_run

    found = examine(folder)
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found], indent=2))
    else:
        click.echo(examination_text(found, sys.stdout, columns_of(sys.stdout)), color=True)
    context.exit(1 if stops_a_run(found) else 0)
