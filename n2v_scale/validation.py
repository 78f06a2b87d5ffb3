"""The held-out loss: the same patches with the same voxels hidden, every time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from n2v_scale.run import Run
from n2v_scale.step import explained
from n2v_scale.streams import Streams

Row = dict[str, float]
"""What is known of a step, by name."""


@torch.no_grad()
def validate(run: Run, network: nn.Module, held_out: list[Tensor]) -> Row:
    """The mean loss on the held-out patches, with the same sites every time; {} without any."""
    ranks = run.ranks
    losses = {}
    for k in range(ranks.rank, len(held_out), ranks.size):
        example = run.method.prepare(held_out[k], Streams([(k,)], held_out[k].device))
        with explained(run):
            losses[k] = float(run.method.loss(network(example.input), example))
    if not held_out:
        return {}
    every: dict[int, float] = {}
    for part in ranks.gathered(losses):
        every.update(part)
    return {"held_out": float(np.mean([every[k] for k in sorted(every)]))}


def is_stale(history: list[Row], best: int, patience: int) -> bool:
    """Whether the loss has not fallen for so many looks."""
    return "held_out" in history[-1] and len(history) - 1 - best >= patience


def note(row: Row) -> str:
    """For the progress bar."""
    named = {"loss": row.get("training"), "held out": row.get("held_out")}
    return ", ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None)
