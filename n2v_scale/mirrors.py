"""Test-time augmentation: the mean over a tile's mirror images, which stitches as exactly.

Mirrors along each axis are what training has shown the network, whatever the voxel size; turns
would take rows for columns, and Z for Y. A mean of several estimates errs less than one of them.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from n2v_scale.geometry import Box, Halo, as_shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from n2v_scale.methods.base import Method, TensorEstimate

MIRRORS = tuple(axes for count in range(4) for axes in combinations(range(3), count))
"""The axes that are mirrored."""


def mean_over_mirrors(
    method: Method, network: nn.Module, x: Tensor, crop: Halo, inside: Box, tile: Box
) -> TensorEstimate:
    """The mean of the estimates (b, 1, z, y, x) of a tile's core over all of :data:`MIRRORS`.

    ``crop`` and ``inside`` as in :meth:`Method.infer`; ``tile`` is where the tile lies in the
    volume. Of standard deviations, the root of the mean variance is taken.
    """
    from n2v_scale.methods.base import TensorEstimate

    mean = variance = None
    for axes in MIRRORS:
        dims = [axis + 2 for axis in axes]
        origin = [-(b - 1) if k in axes else a for k, (a, b) in enumerate(_ends(tile))]
        mirrored = method.infer(
            network,
            x.flip(dims),
            _mirrored_halo(crop, axes),
            _mirrored_box(inside, axes, tile),
            as_shape(origin),  # what is periodic in the volume stays where it is
        )
        found = mirrored.mean.flip(dims) / len(MIRRORS)
        mean = found if mean is None else mean + found
        if mirrored.std is not None:
            part = mirrored.std.square().flip(dims) / len(MIRRORS)
            variance = part if variance is None else variance + part
    assert mean is not None
    return TensorEstimate(mean, None if variance is None else variance.sqrt())


def _ends(box: Box) -> list[tuple[int, int]]:
    return list(zip(box.start, box.stop, strict=True))


def _mirrored_halo(halo: Halo, axes: tuple[int, ...]) -> Halo:
    z, y, x = (
        (high, low) if axis in axes else (low, high) for axis, (low, high) in enumerate(halo)
    )
    return z, y, x


def _mirrored_box(box: Box, axes: tuple[int, ...], tile: Box) -> Box:
    """A part of a tile, in the tile's own coordinates, where its mirror image has it."""
    ends = [
        (n - b, n - a) if axis in axes else (a, b)
        for axis, ((a, b), n) in enumerate(zip(_ends(box), tile.shape, strict=True))
    ]
    return Box(as_shape([a for a, _ in ends]), as_shape([b for _, b in ends]))
