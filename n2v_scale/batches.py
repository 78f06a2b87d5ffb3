"""Batches on their way to the device: cut and copied while the one before is computed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Stream(Protocol):
    """Where batches come from: a :class:`n2v_scale.patches.PatchSampler`."""

    def next_batch(self) -> npt.NDArray[np.float32]:
        """Patches (b, z, y, x), or pairs of them (b, 2, z, y, x)."""

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON."""


class Batches:
    """The sampler's batches on a device, the next one always being made."""

    def __init__(self, sampler: Stream, device: torch.device, pool: ThreadPoolExecutor) -> None:
        self.sampler, self.device, self.pool = sampler, device, pool
        self.state = sampler.state()
        """Of the sampler after the last batch that was taken."""
        self.waited_s = 0.0
        self._next: Future[tuple[Tensor, dict[str, Any]]] = pool.submit(self._make)

    def take(self) -> Tensor:
        """The next batch, (b, 1, z, y, x); (b, 2, z, y, x) of pairs."""
        started = perf_counter()
        batch, self.state = self._next.result()
        self.waited_s += perf_counter() - started
        self._next = self.pool.submit(self._make)
        return batch.to(self.device, non_blocking=True)

    def _make(self) -> tuple[Tensor, dict[str, Any]]:
        batch = torch.from_numpy(self.sampler.next_batch())
        batch = batch if batch.ndim == 5 else batch[:, None]
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return batch, self.sampler.state()


@contextmanager
def batches_of(sampler: Stream, device: torch.device) -> Iterator[Batches]:
    """Batches as long as they are needed."""
    with ThreadPoolExecutor(1, thread_name_prefix="n2v_scale_batches") as pool:
        yield Batches(sampler, device, pool)
