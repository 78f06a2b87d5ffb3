"""Convolutions for inference: channels-last, without the work that a tile's crop throws away."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2v_scale.errors import ModelError
from n2v_scale.geometry import NO_HALO, Halo


class Convolution(nn.Module):
    """A convolution with fixed weights that says itself where its input ends."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", stored(weight.detach()))
        self.register_buffer("bias", None if bias is None else bias.detach())

    @property
    def outputs(self) -> int:
        """Channels that come out."""
        return self.weight.shape[0]

    def forward(self, x: Tensor, shrink: Halo = NO_HALO) -> Tensor:
        """The response to ``x`` (b, c, z, y, x), smaller than it by ``shrink``.

        ``shrink`` is, per axis and side, between 0 and the kernel's reach. What the kernel sees
        beyond ``x`` is zero. Axes with an even kernel shrink by it, whatever is asked.
        """
        sizes = self.weight.shape[2:]
        padding = [
            k // 2 if k % 2 and sides != (k // 2, k // 2) else 0
            for k, sides in zip(sizes, shrink, strict=True)
        ]
        out = convolve(stored(x), self.weight, self.bias, padding)
        for axis, (pad, (low, high)) in enumerate(zip(padding, shrink, strict=True)):
            if pad and low + high:
                out = out.narrow(axis + 2, low, out.shape[axis + 2] - low - high)
        return out


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int]) -> Tensor:
    """``F.conv3d``, always by the fast kernels.

    In float32 on a CPU, ``F.conv3d`` falls to a kernel ten times slower, which also copies every
    window of its input, when batch x channels x Z x Y is up to 20,480: thin tiles, first layers.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        ones = [1, 1, 1]
        return torch.mkldnn_convolution(x, weight, bias, padding, ones, ones, 1)
    return F.conv3d(x, weight, bias, padding=padding)


def layout(x: Tensor) -> torch.memory_format:
    """How tensors like ``x`` are stored.

    Channels-last saves oneDNN a reordering before and after every layer (a quarter of the time
    with 16 channels), and is what tensor cores take; planes are what cuDNN takes in float32.
    """
    if x.device.type in ("cpu", "meta") or x.dtype in (torch.float16, torch.bfloat16):
        return torch.channels_last_3d
    return torch.contiguous_format


def stored(x: Tensor) -> Tensor:
    """``x`` as :func:`layout` says; a copy only where it is not stored so."""
    return x.contiguous(memory_format=layout(x))


def empty_like(x: Tensor, channels: int, shape: tuple[int, ...]) -> Tensor:
    """(b, channels, z, y, x) of the batch, dtype, device and layout of ``x``; not filled."""
    return torch.empty(
        (x.shape[0], channels, *shape), dtype=x.dtype, device=x.device, memory_format=layout(x)
    )


def convolutions(block: nn.Module) -> list[Convolution]:
    """The convolutions among a trained module's children, each with the batch normalisation that
    follows it folded in. ReLUs are left out.

    Raises
    ------
    ModelError
        When a batch normalisation has no statistics of its own: it would look at the tile's.
    """
    layers = list(block.children())
    return [
        _folded(layer, after) if isinstance(after, nn.BatchNorm3d) else Convolution(*_of(layer))
        for layer, after in zip(layers, [*layers, None][1:], strict=True)
        if isinstance(layer, nn.Conv3d)
    ]


def _of(layer: nn.Conv3d) -> tuple[Tensor, Tensor | None]:
    return layer.weight, layer.bias


def _folded(layer: nn.Conv3d, norm: nn.BatchNorm3d) -> Convolution:
    """In float64, so that it costs no digits."""
    if norm.running_mean is None or norm.running_var is None:
        raise ModelError(
            "a batch normalisation keeps no statistics: such a network cannot be tiled"
        )
    mean, variance, weight = (
        t.detach().double() for t in (norm.running_mean, norm.running_var, layer.weight)
    )
    scale = norm.weight.detach().double() / (variance + norm.eps).sqrt()
    bias = -mean if layer.bias is None else layer.bias.detach().double() - mean
    return Convolution(
        (weight * scale[:, None, None, None, None]).to(layer.weight.dtype),
        (bias * scale + norm.bias.detach().double()).to(layer.weight.dtype),
    )


def max_pool(x: Tensor, factors: tuple[int, ...]) -> Tensor:
    """The maximum over cells of ``factors``, each 1 or 2; without the indices that torch's own
    pooling writes, eight bytes a cell.
    """
    for axis, factor in enumerate(factors):
        if factor == 2:
            pairs = x.unflatten(axis + 2, (-1, 2))
            x = torch.maximum(pairs.select(axis + 3, 0), pairs.select(axis + 3, 1))
    return x
