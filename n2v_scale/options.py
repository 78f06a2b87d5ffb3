"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from math import inf
from typing import Any, TypeVar, cast

import click

from n2v_scale.completion import Address, ClusterWord
from n2v_scale.durations import parse_duration

PICTURES = (".png", ".svg", ".pdf")
Command = TypeVar("Command", bound=Callable[..., Any])


class IntTriple(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """``64`` (along every axis) or ``32,64,64`` (z, y, x)."""

    name = "Z,Y,X"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, int]:
        """Three whole numbers above 0."""
        numbers = self.numbers(value, int, param, ctx)
        return numbers[0], numbers[1], numbers[2]

    def numbers(
        self,
        value: Any,
        kind: Callable[[str], Any],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[Any, ...]:
        """One number for all axes, or three."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [kind(part) for part in str(value).replace("x", ",").split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1:
            numbers *= 3
        if len(numbers) != 3 or min(numbers) <= 0:
            self.fail(
                f"{value!r} is not one or three numbers above 0, such as 32,64,64", param, ctx
            )
        return tuple(numbers)


class FloatTriple(IntTriple):
    """``0.4`` or ``2,0.4,0.4`` (z, y, x)."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Three numbers above 0."""
        return self.numbers(value, float, param, ctx)


class Indices(click.ParamType):  # type: ignore[type-arg]
    """``0``, ``0,2`` or ``0:10`` or ``0:10:2``, as in Python."""

    name = "INDICES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> slice | list[int]:
        """A slice, or a list of indices."""
        if isinstance(value, slice | list):
            return value
        try:
            if ":" in value:
                return _slice(value)
            return [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not an index, a list such as 0,2 or a range 0:10", param, ctx)


def _slice(value: str) -> slice:
    parts = [int(part) if part else None for part in value.split(":")]
    if len(parts) > 3 or parts[2:] == [0]:
        raise ValueError(value)
    return slice(*parts)


class ChannelIndices(Indices):
    """``0`` or ``0,2``."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """A list of indices."""
        found = super().convert(value, param, ctx)
        if isinstance(found, slice):
            self.fail(f"{value!r}: list the channels, such as 0,2", param, ctx)
        return found


class Values(click.ParamType):  # type: ignore[type-arg]
    """``0.5,1,2``."""

    name = "VALUES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float]:
        """Numbers above 0."""
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            numbers = []
        if not numbers or not all(0 < number < inf for number in numbers):
            self.fail(f"{value!r} is not a list of numbers above 0, such as 0.5,1,2", param, ctx)
        return numbers


class ByteSize(click.ParamType):  # type: ignore[type-arg]
    """``16GB``, ``512MiB``."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        from dask.utils import parse_bytes

        try:
            size = int(parse_bytes(value))
        except (ValueError, OverflowError):
            size = 0
        if size <= 0:
            self.fail(f"{value!r} is no amount of memory, such as 16GB", param, ctx)
        return size


class Picture(Address):
    """A file to draw to."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Its name, whose end says what kind of picture it is."""
        if not str(value).lower().endswith(PICTURES):
            self.fail(f"{value!r} has to end in {', '.join(PICTURES)}", param, ctx)
        return str(value)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """``5min``, ``90s``."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        try:
            seconds = parse_duration(str(value))
        except ValueError:
            seconds = 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no duration, such as 5min or 90s", param, ctx)
        return seconds


def selection(command: Command) -> Command:
    """What of an address is meant: :func:`n2v_scale.open_volume`'s keywords."""
    for option in (
        click.option("--series", type=int, metavar="N", help="Image of a file with several."),
        click.option(
            "--timepoints", type=Indices(), help="Time points: 0, 0,2 or 0:10. Default: all."
        ),
        click.option(
            "--channel", "channels", type=ChannelIndices(), help="Channels: 0 or 0,2. Default: all."
        ),
        click.option("--level", metavar="NAME", help="Resolution level. Default: the finest."),
        click.option(
            "--axes", metavar="AXES", help="Stored axes, such as tczyx, where metadata lacks them."
        ),
    ):
        command = option(command)
    return command


def storage(command: Command) -> Command:
    """How an output is stored: :class:`n2v_scale.config.OutputSettings`."""
    for option in (
        click.option(
            "--dtype",
            type=click.Choice(["input", "float32"]),
            help="Voxel type; input rounds and clips to the input's. [default: input]",
        ),
        click.option(
            "--ome-version",
            type=click.Choice(["0.4", "0.5"]),
            help="0.5 is sharded (zarr v3), 0.4 is not (zarr v2). [default: 0.5]",
        ),
        click.option(
            "--codec-level",
            type=click.IntRange(0, 22),
            help="Effort of the compression. [default: 3]",
        ),
        click.option(
            "--codec",
            type=click.Choice(["blosc-zstd", "zstd", "gzip", "none"]),
            help="Compression. [default: blosc-zstd]",
        ),
        click.option("--shard", type=IntTriple(), help="What is one file. Default: up to 256."),
        click.option("--chunk", type=IntTriple(), help="What is read at once. Default: 64."),
    ):
        command = option(command)
    return command


def camera(command: Command) -> Command:
    """The noise, where it is known: :class:`n2v_scale.config.CameraSettings`."""
    for option in (
        click.option("--read-noise", type=click.FloatRange(0), help="Of the camera, in units."),
        click.option("--offset", type=float, help="Of the camera: units without light."),
        click.option(
            "--gain",
            type=click.FloatRange(0),
            help="Of the camera: units an electron. Default: seen in a sample.",
        ),
    ):
        command = option(command)
    return command


def division(command: Command) -> Command:
    """How the work is divided, and what of it is left out: fields of PredictSettings."""
    for option in (
        click.option("--config", type=click.Path(), help="TOML file with these options."),
        click.option(
            "--on-nan",
            type=click.Choice(["error", "fill"]),
            help="NaN and infinity: stop, or take the mean instead. [default: error]",
        ),
        click.option(
            "--nodata",
            type=float,
            metavar="VALUE",
            help="Means that there is no data: chunks of nothing else stay as they are.",
        ),
        click.option(
            "--mask",
            metavar="ADDRESS",
            help="Foreground, at this or any coarser resolution; the rest stays as it is.",
        ),
        click.option(
            "--workers", type=click.IntRange(1), help="Processes. Default: from the cores."
        ),
        click.option(
            "--memory",
            type=ByteSize(),
            help="That one worker may take, such as 16GB. Default: the machine's, shared out.",
        ),
        click.option("--tile", type=IntTriple(), help="Voxels that are computed at once."),
        click.option("--block", type=IntTriple(), help="Voxels that are written as one task."),
    ):
        command = option(command)
    return command


def on_cluster(command: Command) -> Command:
    """Where to compute: the keyword ``cluster`` of the public verbs, None for this machine."""

    @wraps(command)
    def with_cluster(*args: Any, **options: Any) -> Any:
        from n2v_scale.cluster_settings import ClusterSettings, read_cluster

        names = ("jobs", "tls_ca", "tls_cert", "tls_key", "insecure")
        told = {name: options.pop(name) for name in names}
        word, file = options.pop("cluster"), options.pop("cluster_config")
        chosen = read_cluster(word, file, **told)
        if options.pop("submit_only", False):
            return _submit(chosen, secrets=bool(options.get("storage_options")))
        return command(*args, **options, cluster=None if chosen == ClusterSettings() else chosen)

    made: Any = with_cluster
    for option in (
        click.option("--insecure", is_flag=True, default=None, help="Talk to workers without TLS."),
        click.option("--tls-key", type=click.Path(), help="PEM file, for tls://HOST:PORT."),
        click.option("--tls-cert", type=click.Path(), help="PEM file, for tls://HOST:PORT."),
        click.option("--tls-ca", type=click.Path(), help="PEM file, for tls://HOST:PORT."),
        click.option(
            "--cluster-config", type=click.Path(), help="TOML file: partition, memory, walltime, …"
        ),
        click.option(
            "--jobs",
            type=click.IntRange(1),
            help="Most jobs at a time, a worker each. [default: 4]",
        ),
        click.option(
            "--cluster",
            type=ClusterWord(),
            metavar="WORD",
            help="slurm, pbs, lsf, sge, htcondor, oar, moab; tls://HOST:PORT or scheduler.json of "
            "a Dask scheduler; or a preset. Default: this machine.",
        ),
    ):
        made = option(made)
    return cast("Command", made)


def submittable(command: Command) -> Command:
    """Whether the command itself may become a job; goes above :func:`on_cluster`."""
    return click.option(
        "--submit-only", is_flag=True, help="Submit this command itself as a job, and return."
    )(command)


def _submit(cluster: Any, *, secrets: bool) -> None:
    from n2v_scale.cluster import shared_folder
    from n2v_scale.jobqueue.driver import submit_driver

    if not cluster.batch:
        raise click.UsageError("--submit-only needs a batch system: --cluster slurm, for example")
    if secrets:
        raise click.UsageError(
            "--submit-only would write --storage-option into the job's script, which is kept: put "
            "it into fsspec's own files (~/.config/fsspec/) or the store's (~/.aws/), or leave out "
            "--submit-only"
        )
    logs = shared_folder(cluster) / "logs"
    arguments = [argument for argument in sys.argv[1:] if argument != "--submit-only"]
    number = submit_driver(cluster, arguments, logs)
    click.echo(f"job {number}; what it says is in {logs}")


def overwriting(command: Command) -> Command:
    """Whether an output that exists may go."""
    return click.option(
        "--overwrite", is_flag=True, help="Delete an output that exists, start anew."
    )(command)


class StorageOption(click.ParamType):  # type: ignore[type-arg]
    """``key=value``."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        """Name and value; the value, which may be a secret, is in no message."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail("a storage option is written KEY=VALUE", param, ctx)
        return key, text


def remote(command: Command) -> Command:
    """How to reach a URL: fsspec's keywords."""
    return click.option(
        "--storage-option",
        "storage_options",
        type=StorageOption(),
        multiple=True,
        callback=lambda _ctx, _param, pairs: dict(pairs),
        help="For URLs: key=…, secret=…, endpoint_url=…; written nowhere. May be repeated.",
    )(command)


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}
