"""The resolution of two captures of the same: see :mod:`n2v_scale.shells`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import prod
from operator import add
from typing import Any

import numpy as np
from dask.base import compute
from dask.delayed import delayed

from n2v_scale.denoiser import IDENTITY
from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape
from n2v_scale.io.volume import Volume, check_dtype
from n2v_scale.own_record import means_of, record_of
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.shells import THRESHOLD, ShellCurve, ShellSums, Spacing, shell_curves
from n2v_scale.statistics import SampledBox, sample_boxes

log = logging.getLogger(__name__)

EDGE = 64
"""Voxels along each side of a box, at least, where the volume has so many."""
SAMPLED_VOXELS, FEWEST_BOXES = 2**25, 32
"""Of a channel."""
AT_ONCE = 16
"""Boxes that are handed to Dask together: progress is told in between."""
SAME_SIZE = 1e-3
ONE_MODEL = (
    "one model has denoised both: what it makes of the noise by habit is alike in both, and "
    "counts as resolved"
)
TOO_FINE = (
    "channel {c} is alike in both down to single voxels: either the voxels are larger than what is "
    "resolved, or noise is in both (the camera's pattern, or one and the same capture)"
)
RISES = (
    "channel {c}, {direction}: beyond the resolution the two are alike again, at "
    "{frequency:.3g} cycles/{unit}: a pattern of the camera, or noise that is in both"
)


@dataclass(frozen=True)
class PairEvaluation:
    """What two captures have in common."""

    channels: tuple[int, ...]
    """Stored indices, of the first."""
    curves: tuple[dict[str, ShellCurve], ...]
    """By channel and direction: ``all``, and where there is depth ``xy`` and ``z``."""
    unit: str
    """Of length: the axes' unit, or ``voxel`` where their size is not known."""
    voxel_size: Spacing
    """(z, y, x), in units."""
    box: Shape
    boxes: int
    """That were compared."""
    left_out: int
    """Boxes that could not be read, or hold NaN or infinity."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "threshold": THRESHOLD,
            "unit": self.unit,
            "voxel_size_zyx": list(self.voxel_size),
            "box_zyx": list(self.box),
            "boxes": self.boxes,
            "left_out": self.left_out,
            "channels": [
                {"channel": channel, **{name: curve.to_dict() for name, curve in found.items()}}
                for channel, found in zip(self.channels, self.curves, strict=True)
            ],
            "notes": list(self.notes),
        }


def evaluate_captures(
    first: Volume, second: Volume, *, seed: int = 0, progress: Progress | None = None
) -> PairEvaluation:
    """See :func:`n2v_scale.evaluate_pair`.

    Runs as Dask tasks on the current client, on threads without one, and depends on the volumes and
    ``seed`` alone.

    Raises
    ------
    InputError
        When the volumes differ in shape or in the size of their voxels, or none of the boxes can
        be compared.
    """
    first, second = means_of(first), means_of(second)
    if first.shape != second.shape:
        raise InputError(
            f"{first.address} is {first.shape} (t, c, z, y, x) and {second.address} is "
            f"{second.shape}: select the same part of both with --channel and --timepoints"
        )
    check_dtype(first)
    check_dtype(second)
    spacing, unit = _scale(first, second)
    box = _box_shape(first)
    places = list(_places(first, box, seed))
    sums = _compared(first, second, places, spacing, progress or NoProgress())
    voxels = first.shape[0] * prod(first.spatial_shape)
    curves = []
    for c in range(first.shape[1]):
        found = [s for s, p in zip(sums, places, strict=True) if s is not None and p.c == c]
        if not found:
            raise InputError(
                f"channel {first.channels[c]} of {first.address} and {second.address}: none of "
                f"the {len(places)} sampled boxes of {box} voxels can be compared: all hold NaN "
                "or infinity, or cannot be read"
            )
        total = reduce(add, found)
        curves.append(shell_curves(total, box, spacing, boxes=len(found), voxels=voxels))
    return PairEvaluation(
        first.channels,
        tuple(curves),
        unit,
        spacing,
        box,
        sum(s is not None for s in sums),
        sum(s is None for s in sums),
        tuple(_notes(first, second, curves, unit)),
    )


def _scale(first: Volume, second: Volume) -> tuple[Spacing, str]:
    """Size of the voxels, and its unit: as either volume knows it, and both if both do."""
    known = [_known_scale(volume) for volume in (first, second)]
    found = [scale for scale in known if scale is not None]
    if not found:
        return (1.0, 1.0, 1.0), "voxel"
    (size, unit), (other, other_unit) = found[0], found[-1]
    if unit != other_unit or not np.allclose(size, other, rtol=SAME_SIZE, atol=0):
        raise InputError(
            f"the voxels of {first.address} are {size} {unit} (z, y, x) and those of "
            f"{second.address} {other} {other_unit}: give two volumes on one grid"
        )
    return size, unit


def _known_scale(volume: Volume) -> tuple[Spacing, str] | None:
    """None where the source says nothing, or has another unit along every axis."""
    axes = [axis for axis in volume.axes if axis.name in "zyx"]
    units = {axis.unit for axis in axes}
    if len(units) > 1:
        return None
    (unit,) = units
    if unit is None and volume.voxel_size == (1.0, 1.0, 1.0):
        return None
    return volume.voxel_size, unit or "unit"


def _box_shape(volume: Volume) -> Shape:
    """One for the whole volume: that of a sampled box, but no thinner than :data:`EDGE`."""
    place = sample_boxes(volume, count=1)[0].box
    return as_shape(
        [min(n, max(EDGE, b)) for n, b in zip(volume.spatial_shape, place.shape, strict=True)]
    )


def _places(volume: Volume, shape: Shape, seed: int) -> Iterator[SampledBox]:
    """Boxes of one shape: of a small volume all at half a box's distance, as the window fades each
    of them out; of a large one those around the middles of a sample.
    """
    count = max(FEWEST_BOXES, SAMPLED_VOXELS // prod(shape))
    starts = [
        sorted({*range(0, whole - n, max(1, n // 2)), whole - n})
        for n, whole in zip(shape, volume.spatial_shape, strict=True)
    ]
    times, channels = volume.shape[:2]
    if times * prod(len(along) for along in starts) <= count:
        for c, t, *start in product(range(channels), range(times), *starts):
            yield _box_at(t, c, start, shape)
        return
    for place in sample_boxes(volume, count=count, seed=seed):
        ends = zip(place.box.start, place.box.stop, shape, volume.spatial_shape, strict=True)
        start = [max(0, min((a + b - n) // 2, whole - n)) for a, b, n, whole in ends]
        yield _box_at(place.t, place.c, start, shape)


def _box_at(t: int, c: int, start: list[int], shape: Shape) -> SampledBox:
    stop = [a + n for a, n in zip(start, shape, strict=True)]
    return SampledBox(t, c, Box(as_shape(start), as_shape(stop)))


def _compared(
    first: Volume,
    second: Volume,
    places: Sequence[SampledBox],
    spacing: Spacing,
    progress: Progress,
) -> list[ShellSums | None]:
    task = delayed(_sums_of, pure=False)
    found: list[ShellSums | None] = []
    with progress.step("comparing", len(places), "block") as bar:
        for k in range(0, len(places), AT_ONCE):
            some = places[k : k + AT_ONCE]
            found += compute(*(task(first, second, place, spacing) for place in some))
            bar.advance(len(some))
    return found


def _sums_of(
    first: Volume, second: Volume, place: SampledBox, spacing: Spacing
) -> ShellSums | None:
    """The Dask task; None for a box that cannot be read, or holds what is not finite."""
    try:
        a, b = (volume.read(place.t, place.c, place.box) for volume in (first, second))
    except InputError as error:
        log.warning("left out of the comparison: %s", error)
        return None
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    return ShellSums.of(a, b, spacing)


def _notes(
    first: Volume, second: Volume, curves: Sequence[dict[str, ShellCurve]], unit: str
) -> Iterator[str]:
    models = [_model_key(volume) for volume in (first, second)]
    if models[0] is not None and models[0] == models[1]:
        yield ONE_MODEL
    for c, found in zip(first.channels, curves, strict=True):
        if found["all"].outcome == "beyond":
            yield TOO_FINE.format(c=c)
        for direction, curve in found.items():
            if curve.rises_at is not None:
                yield RISES.format(c=c, direction=direction, frequency=curve.rises_at, unit=unit)


def _model_key(volume: Volume) -> str | None:
    """Of the model that made it, where its record says so."""
    record = record_of(volume)
    key = None if record is None else str(record["plan"]["denoiser"]["key"])
    return None if key == IDENTITY else key
