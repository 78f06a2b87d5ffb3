"""Weighted sums along one axis, from shifted copies.

torch's convolution of one channel takes twelve to twenty times its input on a CPU; these sums take
their result, and are the same to the bit wherever a tile begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def line_sum(x: Tensor, axis: int, weights: Sequence[float]) -> Tensor:
    """``sum_k weights[k] * x[i + k - reach]`` along ``axis``, zero beyond the ends.

    ``weights`` are 2 * reach + 1.
    """
    reach, length = len(weights) // 2, x.shape[axis]
    out = x * weights[reach]
    for k in range(1, min(reach, length - 1) + 1):
        rest = length - k
        out.narrow(axis, 0, rest).add_(x.narrow(axis, k, rest), alpha=weights[reach + k])
        out.narrow(axis, k, rest).add_(x.narrow(axis, 0, rest), alpha=weights[reach - k])
    return out
