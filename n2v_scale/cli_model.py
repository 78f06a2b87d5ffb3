"""The commands about a model itself: what it is, and as files for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from n2v_scale.command_group import Commands
from n2v_scale.options import camera, given


@click.group(cls=Commands)
def model() -> None:
    """Look at a trained model.

    \b
    Example:
      n2v-scale model show model.n2v
    """


@model.command()
@click.argument("model", metavar="MODEL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(model: str, as_json: bool) -> None:
    """Print a model's card: method, network, training data, settings, loss, how to apply it.

    \b
    Example:
      n2v-scale model show model.n2v
    """
    from n2v_scale.io.stores import normalise
    from n2v_scale.model_text import model_document, model_rows, rows_text

    folder = Path(normalise(model))
    if as_json:
        click.echo(json.dumps(model_document(folder), indent=2))
    else:
        click.echo(rows_text(model_rows(folder)))


@click.command()
@click.argument("model")
@click.option("--bioimageio", type=click.Path(), help="Write a package for bioimage.io: a zip.")
@click.option("--onnx", type=click.Path(), help="Write an ONNX graph.")
@click.option("--torchscript", type=click.Path(), help="Write a TorchScript module.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option(
    "--output",
    "write",
    type=click.Choice(["mean", "mean,std"]),
    help="mean,std adds the standard deviation as a second output. [default: mean]",
)
@click.option(
    "--posterior/--no-posterior",
    default=None,
    help="Put each voxel's own value back in the graph. Default: as predict does, if noise shows.",
)
@camera
@click.option("--name", help="Of the package. Default: the method's.")
@click.option("--license", help="Of the weights: an SPDX identifier. [default: CC-BY-4.0]")
@click.option("--author", "authors", multiple=True, help="Of the package. May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def export(model: str, as_json: bool, **options: Any) -> None:
    """Write a trained model as files that other programs run.

    Each file is opened again and compared with the model before it is there. ONNX and bioimage.io
    need pip install 'n2v-scale[export]'.

    \b
    Example:
      n2v-scale export model.n2v --bioimageio model.zip --author "Ada Lovelace"
      n2v-scale export model.n2v --onnx model.onnx --torchscript model.pt
    """
    from n2v_scale.api import export_model

    summary = export_model(model, **given(**options))
    click.echo(json.dumps(summary.to_dict()) if as_json else summary.text())
