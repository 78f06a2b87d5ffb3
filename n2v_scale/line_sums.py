"""Weighted sums along one axis, from shifted copies.

torch's convolution of one channel takes twelve to twenty times its input on a CPU; these sums take
their result, and are the same to the bit wherever a tile begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def line_sum(x: Tensor, axis: int, weights: Sequence[float]) -> Tensor:
    """``sum_k weights[k] * x[i + k - reach]`` along ``axis``, zero beyond the ends.

    ``weights`` are 2 * reach + 1. While a graph is recorded it is a convolution: a graph knows no
    lengths.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined]
        return _as_convolution(x, axis, weights)
    reach, length = len(weights) // 2, x.shape[axis]
    out = x * weights[reach]
    for k in range(1, min(reach, length - 1) + 1):
        rest = length - k
        out.narrow(axis, 0, rest).add_(x.narrow(axis, k, rest), alpha=weights[reach + k])
        out.narrow(axis, k, rest).add_(x.narrow(axis, 0, rest), alpha=weights[reach - k])
    return out


def _as_convolution(x: Tensor, axis: int, weights: Sequence[float]) -> Tensor:
    """:func:`line_sum` of images (b, 1, z, y, x)."""
    kernel, padding = [1, 1, 1], [0, 0, 0]
    kernel[axis - 2], padding[axis - 2] = len(weights), len(weights) // 2
    line = torch.tensor(weights, dtype=x.dtype, device=x.device).reshape(1, 1, *kernel)
    return F.conv3d(x, line, padding=padding)
