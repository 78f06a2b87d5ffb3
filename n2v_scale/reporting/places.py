"""Where a report looks: places chosen by what is there, and places drawn at random.

Both are said to the reader: a picture that somebody picked shows what they wanted to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape
from n2v_scale.io.volume import Volume
from n2v_scale.statistics import SampledBox, sample_boxes

BY_CONTENT, AT_RANDOM = 3, 2
"""Places of a volume with one channel; of several, each has fewer."""
MOST = 8
LOOKED_AT = 64
"""Boxes of a channel among which places are chosen."""
BY_CONTRAST, BY_CHANCE = "most contrast of what was sampled", "drawn at random"
DEPTH, EDGE = 128, 256
"""Voxels of a place along z, and along y and x."""


@dataclass(frozen=True)
class Place:
    """A part of a volume that the report shows, as three planes through ``centre``."""

    t: int
    c: int
    centre: Shape
    """Voxel (z, y, x) that the three planes share."""
    box: Box
    """What is shown of the planes."""
    why: str


def choose_places(volume: Volume, *, seed: int = 0) -> list[Place]:
    """At most eight places of a denoised volume, the same for the same ``seed``.

    Of each channel first those with most contrast among sampled boxes, no two in one box, then some
    at random.
    """
    channels = volume.shape[1]
    content = max(1, min(BY_CONTENT, (MOST - channels) // channels))
    chance = max(1, min(AT_RANDOM, MOST // channels - content))
    rng = np.random.default_rng(seed)
    found: list[Place] = []
    for c in range(channels):
        boxes = [
            place for place in sample_boxes(volume, count=LOOKED_AT, seed=seed) if place.c == c
        ]
        found += _by_content(volume, boxes, content)
        found += [_at_random(volume, c, rng) for _ in range(chance)]
    return found[:MOST]


def _by_content(volume: Volume, boxes: Sequence[SampledBox], count: int) -> list[Place]:
    """Where the values spread most; a box that cannot be read is not looked at."""
    looked = []
    for place in boxes:
        try:
            values = volume.read(place.t, place.c, place.box).astype(np.float32)
        except InputError:
            continue
        values = np.nan_to_num(values, posinf=0, neginf=0)
        looked.append((float(values.std()), place, _fullest(values, place.box)))
    looked.sort(key=lambda one: -one[0])
    return [
        Place(place.t, place.c, centre, _around(volume, centre), BY_CONTRAST)
        for _, place, centre in looked[:count]
    ]


def _fullest(values: npt.NDArray[np.float32], box: Box) -> Shape:
    """The voxel where the planes with the largest spread along each axis meet."""
    best = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        best.append(int(values.std(axis=others).argmax()) + box.start[axis])
    return as_shape(best)


def _at_random(volume: Volume, channel: int, rng: np.random.Generator) -> Place:
    centre = as_shape([int(rng.integers(n)) for n in volume.spatial_shape])
    t = int(rng.integers(volume.shape[0]))
    return Place(t, channel, centre, _around(volume, centre), BY_CHANCE)


def _around(volume: Volume, centre: Shape) -> Box:
    """As much as is shown, with ``centre`` as near to its middle as the volume allows."""
    start, stop = [], []
    for at, extent, most in zip(centre, volume.spatial_shape, (DEPTH, EDGE, EDGE), strict=True):
        size = min(extent, most)
        low = min(max(0, at - size // 2), extent - size)
        start.append(low)
        stop.append(low + size)
    return Box(as_shape(start), as_shape(stop))


def planes_of(volume: Volume, place: Place) -> dict[str, npt.NDArray[np.float32]]:
    """The planes ``xy`` (y, x), ``xz`` (z, x) and ``yz`` (z, y); 0 for what is not finite."""
    found = {}
    for name, axis in (("xy", 0), ("xz", 1), ("yz", 2)):
        start, stop = list(place.box.start), list(place.box.stop)
        start[axis], stop[axis] = place.centre[axis], place.centre[axis] + 1
        values = volume.read(place.t, place.c, Box(as_shape(start), as_shape(stop)))
        plane = values.astype(np.float32).squeeze(axis)
        found[name] = np.nan_to_num(plane, posinf=0, neginf=0)
    return found
