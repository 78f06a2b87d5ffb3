"""The command line: a thin shell over :mod:`n2v_scale.api`.

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 a user's mistake,
2 usage, 3 incomplete (run again), 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import click

from n2v_scale.cli_baseline import baseline
from n2v_scale.cli_cluster import cluster
from n2v_scale.cli_completion import completion
from n2v_scale.cli_diagnose import diagnose
from n2v_scale.cli_doctor import doctor
from n2v_scale.cli_evaluate import evaluate
from n2v_scale.cli_model import export, model
from n2v_scale.cli_predict import plan, predict, pyramid, verify
from n2v_scale.cli_report import report
from n2v_scale.cli_train import train
from n2v_scale.cli_view import view
from n2v_scale.command_group import Commands
from n2v_scale.completion import complete_addresses
from n2v_scale.errors import IncompleteError, N2VScaleError, system_error_text
from n2v_scale.options import (
    FloatTriple,
    IntTriple,
    given,
    on_cluster,
    overwriting,
    remote,
    selection,
    storage,
)
from n2v_scale.shell import say, say_summary, show_progress, volume_of
from n2v_scale.terminal import columns_of, paint, prepare_streams, wrapped
from n2v_scale.versions import versions_text

INTERRUPTED = 130
EXIT_CODES = {
    0: "done; --json prints one JSON object on stdout, and nothing else",
    1: "a mistake in what was asked; a place that cannot be read or written",
    2: "wrong usage of the command line",
    3: "incomplete: the same command computes what is missing",
    INTERRUPTED: "interrupted (Ctrl-C, SIGTERM): the same command goes on",
}
EPILOG = "\n".join(
    ["\b", "Exit codes:", *(f"  {code:<3}  {what}" for code, what in EXIT_CODES.items())]
)


def _say_versions(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(versions_text())
        context.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_versions,
    help="Show the versions and exit.",
)
@click.option("-v", "--verbose", count=True, help="Show logs; twice for more.")
def cli(verbose: int) -> None:
    """Denoise light-sheet volumes that are too large for memory, with no clean data.

    \b
    Example:
      n2v-scale train volume.zarr -o model.n2v
      n2v-scale predict volume.zarr model.n2v denoised.zarr
    """
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    _show_logs(level)
    warnings.showwarning = _show_warning if verbose < 2 else warnings.showwarning


@cli.command("import")
@click.argument("source")
@click.argument("output")
@click.option("--voxel-size", type=FloatTriple(), help="Micrometers along z,y,x, if not stored.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@selection
@storage
@overwriting
@remote
@on_cluster
def import_command(
    source: str, output: str, voxel_size: Any, as_json: bool, **options: Any
) -> None:
    """Copy any readable volume into a sharded, pyramidal OME-Zarr.

    SOURCE is a TIFF file, a folder of TIFF planes, a zarr array or an OME-Zarr. Voxels stay as
    they are; nothing is ever in memory as a whole.

    \b
    Example:
      n2v-scale import stack.tif volume.zarr --voxel-size 2,0.4,0.4
    """
    from n2v_scale.api import import_volume

    volume = volume_of(source, options, voxel_size=voxel_size)
    summary = import_volume(volume, output, progress=show_progress(), **given(**options))
    say_summary(summary, as_json=as_json)


@cli.command()
@click.argument("volume")
@selection
@remote
@click.option("--sample", is_flag=True, help="Read a sample: normalisation, noise, emptiness.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(volume: str, sample: bool, as_json: bool, **options: Any) -> None:
    """Show what a volume is: axes, shape, voxels, levels, storage.

    Says how it would be trained on, and why. With --sample, a stratified sample is read: mean and
    spread with 95% confidence, percentiles, saturation, empty space, and the camera's noise.

    \b
    Example:
      n2v-scale info volume.zarr
      n2v-scale info volume.zarr --sample
    """
    from n2v_scale.information import information_text, survey_of, survey_text, training_reasons

    opened = volume_of(volume, options, any_dtype=True)
    survey = survey_of(opened) if sample else None
    reasons = training_reasons(opened)
    if as_json:
        found = opened.describe() | {"training": reasons}
        if survey is not None:
            found["sample"] = [channel.to_dict() for channel in survey.channels]
        click.echo(json.dumps(found, indent=2))
        return
    say(information_text(opened))
    say("\n".join(["training", *(f"  {reason}" for reason in reasons)]))
    if survey is not None:
        say(survey_text(survey))


@cli.command()
@click.argument("noisy")
@click.option("--clean", metavar="VOLUME", help="Write the truth here, as float32.")
@click.option("--shape", type=IntTriple(), default="64,256,256", show_default=True, help="Voxels.")
@click.option(
    "--voxel-size", type=FloatTriple(), default="2,0.4,0.4", show_default=True, help="Micrometers."
)
@click.option("--photons", type=float, default=40.0, show_default=True, help="In bright places.")
@click.option("--read-noise", type=float, default=1.6, show_default=True, help="Electrons.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random."
)
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
def simulate(noisy: str, clean: str | None, overwrite: bool, **parameters: Any) -> None:
    """Simulate a light-sheet volume of tissue, and its truth.

    \b
    Example:
      n2v-scale simulate noisy.zarr --clean clean.zarr
    """
    from n2v_scale.demo import simulate_volumes

    simulate_volumes(noisy, clean, overwrite=overwrite, progress=show_progress(), **parameters)
    click.echo("\n".join(name for name in (noisy, clean) if name))


@cli.command()
@click.argument("folder", default="demo")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Of training.",
)
@click.option("--shape", type=IntTriple(), default="64,256,256", show_default=True, help="Voxels.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(
    folder: str, minutes: float, shape: tuple[int, int, int], seed: int, as_json: bool
) -> None:
    """Simulate, train, predict, evaluate, report, at one go.

    \b
    Example:
      n2v-scale demo demo
    """
    from n2v_scale.demo import run_demo

    result = run_demo(
        Path(folder), minutes=minutes, shape=shape, seed=seed, progress=show_progress()
    )
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        say(result.text())


for command in (
    diagnose,
    evaluate,
    train,
    plan,
    predict,
    baseline,
    verify,
    pyramid,
    report,
    view,
    model,
    export,
    cluster,
    doctor,
    completion,
):
    cli.add_command(command)
complete_addresses(cli)


def main() -> None:
    """Run the command line; a user's mistake never shows a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    prepare_streams()
    try:
        code = cli.main(standalone_mode=False, prog_name="n2v-scale")
    except click.exceptions.Abort:
        code = _interrupted()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except IncompleteError as error:
        code = _fail("incomplete", str(error), error.exit_code)
    except N2VScaleError as error:
        code = _fail("error", str(error), error.exit_code)
    except KeyboardInterrupt:
        code = _interrupted()
    except OSError as error:  # a place that cannot be written, a disk that is full
        code = _fail("error", system_error_text(error), 1)
    except MemoryError as error:
        code = _fail("error", f"memory is short{f' ({error})' if str(error) else ''}: {SHORT}", 1)
    sys.exit(code if isinstance(code, int) else 0)


SHORT = "use fewer --workers, a smaller --tile or --block, or more memory"


def _terminate(signum: int, frame: FrameType | None) -> None:
    del signum, frame
    raise KeyboardInterrupt


def _interrupted() -> int:
    click.echo("interrupted: what is finished is kept, and the same command goes on", err=True)
    return INTERRUPTED


def _fail(kind: str, message: str, code: int) -> int:
    _complain(kind, message)
    return code


def _complain(kind: str, message: str) -> None:
    """On stderr, wrapped on a terminal; in a file an error is one line."""
    stream = sys.stderr
    text = wrapped(f"{kind}: {message}", columns_of(stream), hang=2)
    word = paint(f"{kind}:", "red" if kind == "error" else "yellow", stream)
    click.echo(word + text.removeprefix(f"{kind}:"), err=True, color=True)


def _show_logs(level: int) -> None:
    """Dask's own logs tell of every connection that closes: they are for ``-vv``."""
    if level > logging.DEBUG:
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # read when it is imported
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from n2v_scale.io.messages import InputWarning

    if issubclass(category, InputWarning):
        _complain("warning", str(message))


if __name__ == "__main__":
    main()
