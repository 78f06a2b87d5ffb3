"""Where a report looks: places chosen by what is there, and places drawn at random.

Both are said to the reader: a picture that somebody picked shows what they wanted to see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from n2v_scale.geometry import Box, Shape, as_shape
from n2v_scale.reporting.sight import Sight, Values
from n2v_scale.statistics import SampledBox, sample_boxes

BY_CONTENT, AT_RANDOM = 3, 2
"""Places of a volume with one channel; of several, each has fewer."""
MOST = 8
LOOKED_AT = 64
"""Boxes of a channel among which places are chosen."""
BY_CONTRAST, BY_CHANCE = "most contrast of what was sampled", "drawn at random"
DEPTH, EDGE = 128, 256
"""Voxels of a place along z, and along y and x, at most."""
THINNEST = 16
"""Voxels along z that are shown however coarse they are."""


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

    @property
    def seen(self) -> tuple[object, ...]:
        """What two places must differ in to show something else."""
        flat = [n == 1 for n in self.box.shape]
        cuts = [None if any(flat[:a] + flat[a + 1 :]) else self.centre[a] for a in range(3)]
        return self.t, self.c, self.box, *cuts


def choose_places(sight: Sight, *, seed: int = 0) -> list[Place]:
    """At most eight places of a denoised volume, the same for the same ``seed``.

    Of each channel first those with most contrast among sampled boxes, no two in one box, then some
    at random. Of more than four channels, four are looked at, evenly spread. No two places show the
    same.
    """
    channels = _channels(sight.volume.shape[1])
    each = MOST // len(channels)
    content = max(1, min(BY_CONTENT, each - 1))
    chance = min(AT_RANDOM, each - content)
    rng = np.random.default_rng(seed)
    boxes = sample_boxes(sight.volume, count=LOOKED_AT, seed=seed)
    found: dict[tuple[object, ...], Place] = {}
    for c in channels:
        chosen = _by_content(sight, [place for place in boxes if place.c == c], content)
        chosen += [_at_random(sight, c, rng) for _ in range(chance)]
        for place in chosen:
            found.setdefault(place.seen, place)
    return list(found.values())


def _channels(count: int) -> list[int]:
    most = MOST // 2
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _by_content(sight: Sight, boxes: Sequence[SampledBox], count: int) -> list[Place]:
    """Where the values spread most."""
    looked = []
    for place in boxes:
        values = sight.read(place.t, place.c, place.box)
        if np.isfinite(values).any():
            looked.append((float(np.nanstd(values)), place, _fullest(values, place.box)))
    looked.sort(key=lambda one: -one[0])
    return [
        Place(place.t, place.c, centre, _around(sight, centre), BY_CONTRAST)
        for _, place, centre in looked[:count]
    ]


def _fullest(values: Values, box: Box) -> Shape:
    """The voxel where the planes with the largest spread along each axis meet."""
    known = np.where(np.isfinite(values), values, np.nanmean(values))
    best = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        best.append(int(known.std(axis=others).argmax()) + box.start[axis])
    return as_shape(best)


def _at_random(sight: Sight, channel: int, rng: np.random.Generator) -> Place:
    volume = sight.volume
    centre = as_shape([int(rng.integers(n)) for n in volume.spatial_shape])
    t = int(rng.integers(volume.shape[0]))
    return Place(t, channel, centre, _around(sight, centre), BY_CHANCE)


def _around(sight: Sight, centre: Shape) -> Box:
    """As much as is shown, with ``centre`` as near to its middle as the volume allows."""
    start, stop = [], []
    for at, size, extent in zip(centre, _shown(sight), sight.volume.spatial_shape, strict=True):
        low = min(max(0, at - size // 2), extent - size)
        start.append(low)
        stop.append(low + size)
    return Box(as_shape(start), as_shape(stop))


def _shown(sight: Sight) -> Shape:
    """Voxels of a place: no deeper than it is wide, or its planes would not fit side by side."""
    z, y, x = (
        min(n, most)
        for n, most in zip(sight.volume.spatial_shape, (DEPTH, EDGE, EDGE), strict=True)
    )
    dz, dy, dx = sight.volume.voxel_size
    return min(z, max(THINNEST, round(max(y * dy, x * dx) / dz))), y, x


def planes_of(sight: Sight, place: Place) -> dict[str, npt.NDArray[np.float32]]:
    """The planes ``xy`` (y, x), ``xz`` (z, x) and ``yz`` (z, y); NaN where nothing is known."""
    return {
        name: sight.read(place.t, place.c, box).squeeze(axis) for name, axis, box in _cuts(place)
    }


def _cuts(place: Place) -> Iterator[tuple[str, int, Box]]:
    for name, axis in (("xy", 0), ("xz", 1), ("yz", 2)):
        start, stop = list(place.box.start), list(place.box.stop)
        start[axis], stop[axis] = place.centre[axis], place.centre[axis] + 1
        yield name, axis, Box(as_shape(start), as_shape(stop))
