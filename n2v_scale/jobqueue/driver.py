"""The driver as a job: the command itself runs on a node, and comes back until it is done."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.jobqueue.keeper import PROGRAM_S, of_program
from n2v_scale.jobqueue.scripts import Jobs

ONCE = """
cd {folder}
{command}
"""
UNTIL_DONE = """
cd {folder}
again() {{ # the time is nearly over: stop, which keeps the state, and queue up again
  kill -TERM "$child" 2>/dev/null
  wait "$child"
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60
}}
trap again USR1
{command} &
child=$!
wait "$child"
code=$?
if [ $code = 3 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt 2 ]; then # blocks failed: try them again
  scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit $code
"""
"""Of SLURM, which puts a job back into its queue, and tells it when its time is nearly over."""
WARNING_S = 120
"""Before its end; on SLURM, a third of a walltime that is shorter than six minutes."""


def submit_driver(settings: ClusterSettings, arguments: Sequence[str], logs: Path) -> str:
    """Submit ``n2v-scale ARGUMENTS`` as a job, and return the job's number.

    On SLURM it comes back after a walltime, a preemption or a lost node until it is done.

    Raises
    ------
    ConfigError
        When the batch system has no shell scripts as jobs.
    ClusterError
        When it takes no job, with its words.
    """
    job = driver_job(settings, arguments, logs)
    try:
        asyncio.run(asyncio.wait_for(job.start(), PROGRAM_S))
    except (RuntimeError, OSError, ValueError, TimeoutError) as error:
        raise ClusterError(f"the batch system takes no job: {of_program(error)}") from error
    return str(job.job_id)


def driver_job(settings: ClusterSettings, arguments: Sequence[str], logs: Path) -> Any:
    """The job of :func:`submit_driver`."""
    if settings.system == "htcondor":
        raise ConfigError("--submit-only: HTCondor has no shell scripts as jobs: leave it out")
    own = settings.of_driver()
    if own.system == "slurm":
        warning = min(WARNING_S, round(own.walltime / 3))
        more = ("--requeue", "--open-mode=append", f"--signal=B:USR1@{warning}")
        own = own.model_copy(update={"directives": (*own.directives, *more)})
    job: Any = Jobs(own, "nowhere", 1, logs).job("driver")
    command = shlex.join([settings.python or sys.executable, "-m", "n2v_scale", *arguments])
    script = UNTIL_DONE if settings.system == "slurm" else ONCE
    job._command_template = script.format(folder=shlex.quote(str(Path.cwd())), command=command)
    return job
