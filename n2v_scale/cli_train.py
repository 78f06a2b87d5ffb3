"""The command that trains."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from n2v_scale.options import (
    ByteSize,
    ChannelIndices,
    Duration,
    IntTriple,
    camera,
    given,
    on_cluster,
    remote,
    selection,
    submittable,
)
from n2v_scale.shell import SELECTION, say, show_progress, volume_of

HELP = {
    "preset": "How long to train: 500, 2,000 or 10,000 steps. [default: balanced]",
    "steps": "Optimisation steps instead of a preset.",
    "minutes": "Train for so long instead of a number of steps.",
    "method": "auto: what `n2v-scale diagnose` recommends for the volume. [default: n2v]",
    "loss": "Of n2n and supervised: l2 learns the mean, l1 the median. [default: l2]",
    "blind_mask": "Hidden beside each voxel: x:5 for noise in lines along X, box:0,2,2, a file, or "
    "auto: as far as the noise is seen to be correlated.",
    "noise": "Of ssdn: the camera's, as told or seen in a sample; or learned with the network. "
    "[default: known]",
    "net": "filter-unet: a fitted linear filter that a small U-Net corrects; unet: the field's; "
    "of ssdn blind-unet: one U-Net on lattices; branch-unet: one a direction.",
    "init": "Begin with the network and the weights of another model.",
    "sampling": "content: what shows more than noise is drawn more often. [default: content]",
    "foreground": "OME-Zarr mask of any coarser resolution: patches come from where it is not 0.",
    "devices": "Processes on this machine, each with its own GPU if there are any. [default: 1]",
    "patience": "Looks at held-out regions without gain, after which it stops. [default: 20]",
    "checkpoint": "Time between checkpoints, such as 5min or 90s. [default: 5min]",
    "pool": "Memory for the regions that patches are cut from. [default: 512 MiB]",
    "compile": "Compile the network first (torch.compile): slow to start, faster on a GPU.",
}

METHODS = ["auto", "n2v", "n2v2", "structn2v", "n2s", "n2n", "supervised", "ssdn", "linear"]
NETS = ["filter-unet", "unet", "blind-unet", "branch-unet", "filter"]


@click.command()
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@click.option("-o", "--output", required=True, metavar="MODEL", help="Folder to write.")
@click.option("--preset", type=click.Choice(["fast", "balanced", "best"]), help=HELP["preset"])
@click.option("--steps", type=click.IntRange(1), help=HELP["steps"])
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help=HELP["minutes"])
@click.option("--init", metavar="MODEL", help=HELP["init"])
@click.option("--method", type=click.Choice(METHODS), help=HELP["method"])
@click.option("--net", type=click.Choice(NETS), help=HELP["net"])
@click.option("--patch", type=IntTriple(), help="Voxels of a training sample.")
@click.option("--batch", type=click.IntRange(1), help="Patches a step and process.")
@click.option("--depth", type=click.IntRange(0, 6), help="Poolings of the U-Net. [default: 2]")
@click.option("--filters", type=click.IntRange(1), help="Channels at full resolution.")
@click.option("--kernel", type=IntTriple(), help="Convolution sizes; odd. Default: 3.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="At the start. [default: 0.001]",
)
@click.option("--voxels-per-site", type=click.IntRange(2), help="One voxel in so many is hidden.")
@click.option("--blind-mask", metavar="MASK", help=HELP["blind_mask"])
@click.option("--partition", type=IntTriple(), help="Of n2s: a cell; each voxel is a subset.")
@click.option("--pair", metavar="VOLUME", help="Of n2n: a second capture of the same.")
@click.option("--target", metavar="VOLUME", help="Of supervised: a clean volume.")
@click.option("--pair-channel", "pair_channels", type=ChannelIndices(), help="Of either: channels.")
@click.option("--pair-timepoints", metavar="INDICES", help="Of either: 1:46, or 0,2.")
@click.option("--loss", type=click.Choice(["l2", "l1"]), help=HELP["loss"])
@click.option("--noise", type=click.Choice(["known", "learned"]), help=HELP["noise"])
@click.option("--sampling", type=click.Choice(["content", "uniform"]), help=HELP["sampling"])
@click.option("--foreground", metavar="MASK", help=HELP["foreground"])
@click.option("--pool-memory", type=ByteSize(), help=HELP["pool"])
@click.option("--patience", type=click.IntRange(1), help=HELP["patience"])
@click.option("--checkpoint-every", type=Duration(), help=HELP["checkpoint"])
@click.option("--tensorboard", type=click.Path(), help="Folder for TensorBoard's events.")
@click.option("--devices", type=click.IntRange(1), help=HELP["devices"])
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="Where to compute. [default: auto]",
)
@click.option("--compile", is_flag=True, default=None, help=HELP["compile"])
@click.option("--seed", type=click.IntRange(0), help="Of everything random. [default: 0]")
@click.option(
    "--on-nan",
    type=click.Choice(["error", "fill"]),
    help="NaN and infinity: stop, or leave out. [default: error]",
)
@click.option("--threads", type=click.IntRange(1), help="Torch threads. Default: from the cores.")
@click.option("--config", type=click.Path(), help="TOML file with these options.")
@click.option("--overwrite", is_flag=True, help="Begin afresh, whatever is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@camera
@selection
@remote
@submittable
@on_cluster
def train(volumes: tuple[str, ...], output: str, as_json: bool, **options: Any) -> None:
    """Train a 3D Noise2Void model on noisy volumes.

    No option is needed: network, patches and schedule follow from the volume. Interrupted, the
    same command goes on where it stopped; its state lies in MODEL.training until it is finished.

    \b
    Example:
      n2v-scale train volume.zarr -o model.n2v
      n2v-scale train monday.zarr tuesday.zarr -o model.n2v --minutes 20
    """
    from n2v_scale.api import train as train_volumes
    from n2v_scale.train_summary import summary_of, version

    selected = {name: options.pop(name) for name in (*SELECTION, "storage_options")}
    opened = [volume_of(volume, dict(selected)) for volume in volumes]
    before = version(output)
    model = train_volumes(opened, output, progress=show_progress(), **given(**options))
    if os.environ.get("RANK", "0") != "0":  # of several processes, one speaks
        return
    summary = summary_of(output, model.card, already_finished=version(output) == before)
    if as_json:
        click.echo(json.dumps(summary.to_dict()))
    else:
        say(summary.text())
