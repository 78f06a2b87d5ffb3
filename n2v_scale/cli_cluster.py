"""The commands that look at a cluster before it is used."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from n2v_scale.command_group import Commands
from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.options import on_cluster
from n2v_scale.shell import show_progress
from n2v_scale.terminal import paint


@click.group(cls=Commands)
def cluster() -> None:
    """Look at a cluster before it is used: a job, and one worker.

    \b
    Example:
      n2v-scale cluster script --cluster slurm --cluster-config gpu.toml
      n2v-scale cluster check --cluster slurm --volume volume.zarr
    """


@cluster.command()
@on_cluster
def script(cluster: Any) -> None:
    """Print the script of one worker's job, and submit nothing.

    \b
    Example:
      n2v-scale cluster script --cluster slurm --cluster-config gpu.toml
    """
    from n2v_scale.cluster import job_script

    if cluster is None or not cluster.batch:
        raise ConfigError("a script is for a batch system: --cluster slurm, for example")
    click.echo(job_script(cluster))


@cluster.command()
@click.option("--volume", metavar="ADDRESS", help="See whether a worker can read it.")
@click.option("--model", metavar="FOLDER", help="See whether a worker can open it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@on_cluster
def check(volume: str | None, model: str | None, as_json: bool, cluster: Any) -> None:
    """Start one worker, see that it has package, data, model and GPU, report, and stop it.

    \b
    Example:
      n2v-scale cluster check --cluster slurm --volume volume.zarr
    """
    from n2v_scale.cluster_check import check_cluster
    from n2v_scale.cluster_settings import ClusterSettings

    found = check_cluster(
        cluster or ClusterSettings(), volume=volume, model=model, say=show_progress().say
    )
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found]))
    else:
        good, bad = paint("ok ", "green", sys.stdout), paint("BAD", "red", sys.stdout)
        for finding in found:
            word = good if finding.good else bad
            click.echo(f"{word}  {finding.what:8}  {finding.seen}", color=True)
    lacking = [finding.what for finding in found if not finding.good]
    if lacking:
        raise ClusterError(f"a worker there lacks: {', '.join(lacking)}")
