"""The weights in training: those that are trained, their running average, and the best so far."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim import Adam

from n2v_scale.checkpoint import prefixed, under

AVERAGE_DECAY = 0.995
"""Of the exponential moving average, which is what is delivered."""


class Weights:
    """A network, the average of its weights, the best average, and the optimizer's moments."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        self.network = network
        self.average = copy.deepcopy(network).eval()
        self.best = copy.deepcopy(self.average.state_dict())
        self.optimizer = Adam(network.parameters(), lr=learning_rate)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """The average moves towards the weights after ``step``."""
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        for mean, value in zip(
            self.average.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def keep_best(self) -> None:
        """The average is the best so far."""
        self.best = copy.deepcopy(self.average.state_dict())

    def tensors(self) -> dict[str, Tensor]:
        """All of it, for a checkpoint."""
        moments = {
            f"{k}.{name}": tensor
            for k, state in self.optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        return {
            **prefixed("network", self.network.state_dict()),
            **prefixed("average", self.average.state_dict()),
            **prefixed("best", self.best),
            **prefixed("adam", moments),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """As they were when :meth:`tensors` was called, in the same memory layout."""
        self.network.load_state_dict(under("network", tensors))
        self.average.load_state_dict(under("average", tensors))
        known = self.best
        self.best = {
            name: torch.empty_like(known[name]).copy_(tensor)
            for name, tensor in under("best", tensors).items()
        }
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("adam", tensors).items():
            number, what = name.split(".")
            like = parameters[int(number)]
            laid = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            state.setdefault(int(number), {})[what] = laid
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def parameters_of(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in network.parameters())
