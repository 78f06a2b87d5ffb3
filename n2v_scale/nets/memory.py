"""What a forward pass over a tile takes, counted without taking it.

The same code that computes tiles runs on torch's ``meta`` device, where tensors have shapes and no
values, and the bytes of all that live at a time are counted: what
:mod:`n2v_scale.forward_memory` is held against. The first count imports a good part of torch.
"""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from n2v_scale.geometry import Box, Halo, Shape
from n2v_scale.nets import NetworkConfig, build_network
from n2v_scale.nets.inference import assembled


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that were made since and still live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func._schema.is_mutable:  # writes into what is there, and takes nothing
            return _written(func, args, kwargs or {})
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._watch(leaf.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._known:
            return
        self._known.add(id(storage))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, id(storage), storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _written(func: Any, args: Any, kwargs: Any) -> Any:
    """The argument that an operation in place, or with ``out``, writes and returns."""
    for number, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return args[number] if number < len(args) else kwargs[argument.name]
    raise NotImplementedError(f"{func} writes nothing that is known")


@lru_cache(maxsize=1024)
@torch.no_grad()
def counted_bytes(
    name: str,
    config: NetworkConfig,
    padded: Shape,
    crop: Halo,
    *,
    device: str = "cpu",
    precision: str = "float32",
) -> int:
    """The peak of the bytes of all tensors while a tile of shape ``padded`` is computed.

    Its input and its output are counted, the weights are not.
    """
    with torch.device("meta"):
        network = build_network(name, config).eval()
        made = assembled(network, device=device, precision=precision)
    live = LiveBytes()
    with live:
        x = torch.empty(1, 1, *padded, device="meta")
        made(x, crop, Box.whole(padded))
    return live.peak
