"""One step of training: a batch, what is hidden in it, the loss, and the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from n2v_scale.batches import Batches
from n2v_scale.errors import DeviceMemoryError
from n2v_scale.run import Run
from n2v_scale.streams import Streams
from n2v_scale.weights import Weights


def take_step(
    run: Run, weights: Weights, forward: Callable[[Tensor], Tensor], batches: Batches
) -> Tensor:
    """One step of the optimizer; returns the loss."""
    seed, step = run.settings.seed, run.budget.step
    with explained(run):
        batch = batches.take()  # (b, 1, z, y, x)
        streams = Streams([(seed, 7, step, lane) for lane in run.sampler.lanes], run.device)
        example = run.method.prepare(augment(batch, streams, run.design.turns), streams)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=_half(run)):
            output = forward(_last(example.input))
        loss = run.method.loss(output.float(), example)
        weights.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        weights.optimizer.step()
    return loss.detach()


def augment(batch: Tensor, streams: Streams, turns: bool) -> Tensor:
    """Flips along each axis and quarter turns in the plane, by patch; never Z into Y."""
    draws = streams.rand(len(batch), 4).tolist()
    turned = []
    for patch, draw in zip(batch, draws, strict=True):  # (1, z, y, x)
        flipped = patch.flip([axis + 1 for axis in range(3) if draw[axis] < 0.5])
        turned.append(torch.rot90(flipped, int(draw[3] * 4), (2, 3)) if turns else flipped)
    return torch.stack(turned)


def _half(run: Run) -> bool:
    """bfloat16 where it is fast: weights, loss and average stay float32."""
    return run.device.type == "cuda" and torch.cuda.is_bf16_supported()


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d) if x.is_cuda else x


def is_of_memory(text: str) -> bool:
    """Whether torch says in these words that memory is short."""
    return any(words in text for words in ("not enough memory", "out of memory", "allocate memory"))


@contextmanager
def explained(run: Run) -> Iterator[None]:
    """Says of a device whose memory is too small what did not fit."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not is_of_memory(text):
            raise
        raise DeviceMemoryError(
            f"a step of {run.design.batch} patches of {run.design.patch} does not fit the memory "
            f"of {run.device}: {text.splitlines()[0]}; pass a smaller --batch or --patch"
        ) from error
