"""The training loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from n2v_scale.batches import Batches, batches_of
from n2v_scale.budget import Pace, Timer, schedule
from n2v_scale.checkpoint import Checkpoint
from n2v_scale.config import TrainSettings
from n2v_scale.devices import channels_last, compute_exactly
from n2v_scale.errors import TrainingError
from n2v_scale.learned_noise import as_trained, in_training
from n2v_scale.methods.base import Method
from n2v_scale.nets import FITTED, Network, build_network
from n2v_scale.run import Run
from n2v_scale.signals import requests
from n2v_scale.sources import sampled_voxels
from n2v_scale.step import is_of_memory, take_step
from n2v_scale.validation import Row, is_stale, note, validate
from n2v_scale.weights import Weights

INITIAL_PATCHES = 64
"""Patches that a network's closed-form start is fitted to."""
LOOK_EVERY = 20
"""Steps between looks at the loss on a GPU, which has to be waited for."""


@dataclass(frozen=True)
class Trained:
    """What the loop delivers."""

    network: nn.Module
    """The average, on the CPU."""
    weights: dict[str, Tensor]
    """Those with the lowest held-out loss; the last where nothing is held out."""
    history: list[Row]
    steps: int
    stopped_early: bool
    method: Method
    """As it is applied: with the noise, if that was learned."""


def train_network(run: Run) -> Trained:
    """Train until the budget is spent or the held-out loss stops falling.

    Computes on torch's current threads. With steps as its budget, the same seed, processor type and
    number of threads give the same weights, interrupted or not (on a GPU, nearly).

    Raises
    ------
    KeyboardInterrupt
        At SIGTERM and Ctrl-C, once the state is kept.
    TrainingError
        When the loss stops being finite.
    DeviceMemoryError
        When a step does not fit the device.
    """
    settings, budget, ranks = run.settings, run.budget, run.ranks
    compute_exactly()
    weights = Weights(in_training(_network(run), run.method), settings.learning_rate)
    ranks.from_first(list(weights.network.state_dict().values()))
    held_out = [_as_batch(patch).to(run.device) for patch in run.sampler.validation()]
    history, recent = _restored(run, weights)
    if not history:
        first = validate(run, weights.average, held_out)
        history = [{"step": 0.0, "seconds": round(budget.seconds(), 3), **first}]
    log = run.metrics
    if log:
        log.begin(history, known=len(history) if run.begun else 0)
    if run.method.closed_form:
        return _trained(run, weights, history, early=False)
    best = min(range(len(history)), key=lambda k: history[k].get("held_out", -k))
    forward = ranks.wrap(_compiled(weights.network, settings), run.device)
    timer, pace = Timer(settings.checkpoint_every), Pace(budget.step)

    with (
        requests() as asked,
        batches_of(run.sampler, run.device) as batches,
        run.progress.step("training", budget.total, budget.unit) as bar,
    ):
        bar.advance(budget.already(), note(history[-1]))
        (share,), early = ranks.largest(budget.share()), False
        while share < 1 and not early:
            rate = settings.learning_rate * schedule(budget.step, share)
            for group in weights.optimizer.param_groups:
                group["lr"] = rate
            recent.append(take_step(run, weights, forward, batches))
            weights.follow(budget.step)
            done = budget.advance()
            if run.device.type == "cpu" or budget.step % LOOK_EVERY == 0:
                recent = _finite(run, recent)
            due = ranks.leads and (asked.save or timer.due())
            share, stop, save = ranks.largest(budget.share(), asked.stop, due)
            if budget.step % settings.validate_every == 0 or share >= 1:
                recent = _finite(run, recent)
                row = {
                    "step": float(budget.step),
                    "seconds": round(budget.seconds(), 3),
                    "training": ranks.mean(float(np.mean(recent))),
                    **validate(run, weights.average, held_out),
                    "learning_rate": rate,
                    **pace.row(budget.step, run.sampler.batch, batches.waited_s),
                }
                history.append(row)
                recent = []
                if log:
                    log.add(row)
                if row.get("held_out", -math.inf) < history[best].get("held_out", math.inf):
                    best = len(history) - 1
                    weights.keep_best()
                early = is_stale(history, best, settings.patience)
            bar.advance(done, note(history[-1]))
            if share < 1 and not early and (stop or save):
                recent = _finite(run, recent)
                _keep(run, weights, batches, history, recent)
                asked.save = False
                timer.reset()
            if share < 1 and not early and stop:
                raise KeyboardInterrupt
    return _trained(run, weights, history, early=early)


def _trained(run: Run, weights: Weights, history: list[Row], *, early: bool) -> Trained:
    network, best, method = as_trained(weights.average.cpu(), weights.best, run.method)
    steps = 0 if method.closed_form else run.budget.step
    return Trained(network, best, history, steps, early, method)


def _network(run: Run) -> Network:
    """With its first weights, on the device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.settings.seed)
        network = _built(run)
    if run.initial is not None:
        network.load_state_dict(run.initial)
    elif run.begun is None and isinstance(network, FITTED):
        run.progress.say("fitting the linear filter")
        patches = run.sampler.initial(INITIAL_PATCHES)
        network.initialise(_as_batch(patch)[:, :1] for patch in patches)
    network.to(run.device)
    channels_last(network)
    return network


def _built(run: Run) -> Network:
    """With random weights, on the CPU."""
    design = run.design
    try:
        return build_network(design.network, design.network_config)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_of_memory(str(error)):
            raise
        raise TrainingError(
            f"the network {design.network} does not fit the memory of this machine: choose fewer "
            "--filters or a smaller --depth"
        ) from error


def _as_batch(patch: npt.NDArray[np.float32]) -> Tensor:
    """A patch (z, y, x) as (1, 1, z, y, x), a pair of them as (1, 2, z, y, x)."""
    tensor = torch.from_numpy(patch)
    return tensor.reshape(1, -1, *tensor.shape[-3:])


def _compiled(network: nn.Module, settings: TrainSettings) -> Any:
    return torch.compile(network, dynamic=False) if settings.compile else network


def _restored(run: Run, weights: Weights) -> tuple[list[Row], list[Any]]:
    """The rows so far and the losses since the last one; the state goes on from there."""
    if run.begun is None:
        return [], []
    state = run.begun.state
    weights.restore(run.begun.tensors)
    run.sampler.restore(state["sampler"])
    return list(state["history"]), list(state["recent"])


def _finite(run: Run, losses: list[Any]) -> list[float]:
    """The losses as numbers."""
    values = [float(loss) for loss in losses]
    if all(map(math.isfinite, values)):
        return values
    kept = run.checkpoints.files() if run.checkpoints else []
    last = f"; the last good state is kept in {kept[-1]}" if kept else ""
    raise TrainingError(
        f"the loss is not finite at step {run.budget.step}: try a lower --learning-rate than "
        f"{run.settings.learning_rate:g}, with --overwrite{last}"
    )


def _keep(
    run: Run, weights: Weights, batches: Batches, history: list[Row], recent: list[float]
) -> None:
    """Write a checkpoint, together."""
    lanes: dict[str, Any] = {}
    for part in run.ranks.gathered(batches.state["lanes"]):
        lanes.update(part)
    if run.checkpoints is None or not run.ranks.leads:
        return
    run.check()
    state = {
        "request": run.request,
        "sampled": sampled_voxels(run.sampler.sources),
        "step": run.budget.step,
        "seconds": run.budget.seconds(),
        "sampler": {"step": batches.state["step"], "lanes": lanes},
        "history": history,
        "recent": recent,
    }
    run.checkpoints.write(run.budget.step, Checkpoint(weights.tensors(), state))
