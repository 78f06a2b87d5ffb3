"""The commands around a prediction: plan, predict, verify, pyramid."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from n2v_scale.errors import IncompleteError
from n2v_scale.options import (
    Indices,
    camera,
    division,
    given,
    on_cluster,
    overwriting,
    remote,
    selection,
    storage,
    submittable,
)
from n2v_scale.shell import say, say_summary, show_progress, volume_of

Command = TypeVar("Command", bound=Callable[..., Any])


def geometry(command: Command) -> Command:
    """What decides a plan, beside the storage: fields of PredictSettings."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="Of the network, in each worker. Default: the cores, shared out.",
        ),
        click.option(
            "--plain",
            is_flag=True,
            default=None,
            help="After n2s: one forward pass, which sees every voxel, instead of one a subset.",
        ),
        click.option(
            "--tta",
            is_flag=True,
            default=None,
            help="Mean over the mirror images of each tile: eight times the work, less error.",
        ),
        click.option(
            "--output",
            "write",
            type=click.Choice(["mean", "mean,std"]),
            help="mean,std adds the standard deviations as channels, in float32. [default: mean]",
        ),
        click.option(
            "--posterior/--no-posterior",
            default=None,
            help="Put each voxel's own value back. Default: after a blind method, if noise shows.",
        ),
        camera,
        click.option(
            "--precision",
            type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
            help="Of the network's arithmetic. [default: auto]",
        ),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda", "mps"]),
            help="Where to compute. [default: auto]",
        ),
        division,
    ):
        command = option(command)
    return command


@click.command()
@click.argument("volume")
@click.argument("model")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    help="Megavoxels a second and worker. Default: measured here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@geometry
@selection
@storage
@remote
@on_cluster
def plan(volume: str, model: str, speed: float | None, as_json: bool, **options: Any) -> None:
    """Show what a prediction would do and take; nothing runs.

    \b
    Example:
      n2v-scale plan volume.zarr model.n2v --memory 16GB --workers 8
    """
    from n2v_scale.api import forecast, plan_prediction
    from n2v_scale.outlook import outlook_text

    opened = volume_of(volume, options)
    chosen = given(**options)
    planned = plan_prediction(opened, model, f"{opened.address}{NO_OUTPUT}", **chosen)
    chosen.pop("storage_options")
    outlook = forecast(planned, speed=speed and speed * 1e6, **chosen)
    if as_json:
        click.echo(json.dumps(outlook.to_dict(), indent=2))
    else:
        say(outlook_text(outlook))


NO_OUTPUT = ".n2v-scale-plan"
"""A plan needs a name for its output; this one, beside the input, is never written."""


@click.command()
@click.argument("volume")
@click.argument("model")
@click.argument("output")
@click.option("--only", type=Indices(), metavar="BLOCKS", help="Blocks to compute: 12:40 or 3,7.")
@click.option("--pyramid/--no-pyramid", default=True, help="Make the lower resolutions too.")
@click.option(
    "--events", type=click.Path(), help="Append what happens to this file, as JSON lines."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@geometry
@selection
@storage
@overwriting
@remote
@submittable
@on_cluster
def predict(volume: str, model: str, output: str, as_json: bool, **options: Any) -> None:
    """Denoise a volume with a trained model into a new OME-Zarr.

    The output has a pyramid. Runs block by block on a local Dask cluster, or, with --cluster, as
    jobs of a batch system. The same command, run again, goes on with what is missing. The halo
    comes on top of --block and --tile.

    \b
    Example:
      n2v-scale predict volume.zarr model.n2v denoised.zarr
      n2v-scale predict volume.zarr model.n2v denoised.zarr --memory 16GB
      n2v-scale predict volume.zarr model.n2v denoised.zarr --cluster slurm
    """
    from n2v_scale.api import predict as predict_volume

    opened = volume_of(volume, options)
    summary = predict_volume(opened, model, output, progress=show_progress(), **given(**options))
    say_summary(summary, as_json=as_json)


@click.command()
@click.argument("output")
@click.option("--repair", "mend", is_flag=True, help="Compute what is missing or damaged again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@remote
@on_cluster
def verify(
    output: str, mend: bool, as_json: bool, storage_options: dict[str, str], cluster: Any
) -> None:
    """Read an output back, and tell whether all of it is there.

    What is stored is compared with the checksums of what was written. Exits with 3 when it is not
    whole. --repair computes those blocks again, and only those.

    \b
    Example:
      n2v-scale verify denoised.zarr
      n2v-scale verify denoised.zarr --repair
    """
    from n2v_scale.api import repair
    from n2v_scale.api import verify as verify_written

    where = {"storage_options": storage_options, "cluster": cluster}
    if mend:
        summary = repair(output, progress=show_progress(), **where)
        say_summary(summary, as_json=as_json)
        return
    found = verify_written(output, progress=show_progress(), **where)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        say(found.text())
    if not found.whole:
        raise IncompleteError(f"{output} is not whole; {found.cure}")


@click.command()
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@remote
@on_cluster
def pyramid(output: str, as_json: bool, storage_options: dict[str, str], cluster: Any) -> None:
    """Make the lower resolutions of an output, or go on with them.

    \b
    Example:
      n2v-scale predict volume.zarr model.n2v denoised.zarr --no-pyramid
      n2v-scale pyramid denoised.zarr
    """
    from n2v_scale.api import make_pyramid

    summary = make_pyramid(
        output, storage_options=storage_options, cluster=cluster, progress=show_progress()
    )
    say_summary(summary, as_json=as_json)
