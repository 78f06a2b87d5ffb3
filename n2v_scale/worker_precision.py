"""Half precision, tried where it will be used: on a worker, before anything is recorded."""

from __future__ import annotations

import socket
from dataclasses import replace

from n2v_scale.crew import Crew
from n2v_scale.denoiser import OpenOptions
from n2v_scale.errors import ClusterError, ConfigError, InputError, N2VScaleError
from n2v_scale.plan import Plan
from n2v_scale.precision import FULL, Trial, choose_precision
from n2v_scale.progress import Progress
from n2v_scale.window import reason, run_window


def with_precision(plan: Plan, crew: Crew, progress: Progress) -> Plan:
    """``plan`` with the precision that one worker of ``crew`` is fastest in; nothing is written.

    Sizes stay as they are: they were chosen for float32, which takes more memory. Where the middle
    of the volume cannot be read, it stays at float32 too.

    Raises
    ------
    ClusterError
        When the worker has no such device, is lost each time, or fails otherwise.
    """
    progress.say("trying half precision on a worker")
    (outcome,) = run_window(crew.client, try_precisions, [plan], crew=crew)
    found: Trial = outcome.result
    if isinstance(outcome.error, InputError):
        progress.say(f"it cannot be tried, as {outcome.error}")
        found = Trial(FULL, 0.0, None)
    elif isinstance(outcome.error, N2VScaleError):
        raise outcome.error
    elif outcome.error is not None:
        raise ClusterError(f"half precision cannot be tried: {reason(outcome.error)}")
    progress.say(_told(found))
    return replace(
        plan,
        precision=found.precision,
        precision_error=found.error,
        precision_is_open=False,
    )


def try_precisions(plan: Plan) -> Trial:
    """The Dask task: the fastest precision here that is exact enough."""
    from n2v_scale.devices import choose_device

    try:
        choose_device(plan.device)
    except ConfigError as error:
        raise ClusterError(
            f"on the worker {socket.gethostname()}, {error}: ask for workers that have it, or "
            "say --device"
        ) from None
    options = OpenOptions(plan.normalisation, plan.device, plan.threads)
    return choose_precision(plan.denoiser, options, plan.volume)


def _told(found: Trial) -> str:
    if found.precision == FULL:
        return f"workers compute in {FULL}"
    return (
        f"workers compute in {found.precision}, which is faster there and changes the result by "
        f"{found.error:.1e} of its standard deviation"
    )
