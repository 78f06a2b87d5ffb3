"""Images to try an exported model on: from its training volume, or simulated where that is gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import N2VScaleError
from n2v_scale.geometry import Box, Shape, as_shape, round_down, round_up
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.model_card import TrainedOn
from n2v_scale.simulate import simulate_light_sheet

FloatArray = npt.NDArray[np.float32]

TARGET: Shape = (24, 64, 64)
FLAT_TARGET: Shape = (1, 128, 128)
COVER_PIXELS = 256


@dataclass(frozen=True)
class Sample:
    """An image, and the plane that a cover is made of."""

    values: FloatArray
    """(c, z, y, x), in the camera's units; extents are multiples of the model's step."""
    read: Callable[[int, Box], FloatArray]
    """The voxels of a channel in a box of the whole image that the sample is cut from."""
    shape: Shape
    """Of that whole image."""
    box: Box
    """Where in it the sample lies."""
    origin: str
    """Where it comes from, as a sentence."""
    real: bool


def training_volume(trained: TrainedOn) -> Volume | None:
    """The volume that a model comes from, where it still lies there as it was, on this machine."""
    if "://" in trained.address:
        return None
    try:
        volume = open_volume(trained.address, channels=list(trained.channels))
        return volume if volume.identity() == trained.identity else None
    except (N2VScaleError, OSError):
        return None


def sample_for(trained: TrainedOn, volume: Volume | None, step: Shape, least: Shape) -> Sample:
    """An image for a model that was trained on ``trained``; ``volume`` is that, where it is there.

    Of a volume, the place with the most contrast among a few, mirrored where the volume ends before
    the ``least`` size. ``step`` is what extents are multiples of.
    """
    target = FLAT_TARGET if trained.shape[2] == 1 else TARGET
    size = as_shape([max(n, round_up(t, s)) for t, n, s in zip(target, least, step, strict=True)])
    if volume is not None:
        return _of_volume(trained, volume, step, least, size)
    return _simulated(trained, size)


def _of_volume(
    trained: TrainedOn, volume: Volume, step: Shape, least: Shape, size: Shape
) -> Sample:
    shape = volume.spatial_shape
    there = [
        m if n >= m else round_down(n, s) or n for n, m, s in zip(shape, size, step, strict=True)
    ]
    wanted = [max(low, round_up(n, s)) for low, n, s in zip(least, there, step, strict=True)]

    def read(c: int, box: Box) -> FloatArray:
        values = volume.read(0, c, box).astype(np.float32)
        return np.where(np.isfinite(values), values, np.float32(trained.offset[c]))

    boxes = [Box.whole(as_shape(there)).shift(corner) for corner in _corners(shape, there)]
    best = max(boxes, key=lambda box: float(read(0, box).std()))
    beyond = [(0, m - n) for n, m in zip(there, wanted, strict=True)]
    values = np.stack(
        [np.pad(read(c, best), beyond, mode="symmetric") for c in range(len(trained.channels))]
    )
    mirrored = " and ".join("zyx"[k] for k, (_, more) in enumerate(beyond) if more)
    origin = f"cut from the training volume, at z, y, x = {', '.join(map(str, best.start))}"
    if mirrored:
        origin += f", and mirrored along {mirrored}, where the volume is smaller than a tile"
    return Sample(values, read, shape, best, origin, real=True)


def _simulated(trained: TrainedOn, wanted: Shape) -> Sample:
    """Tissue with the mean and the spread that the card has of each channel."""
    flat = trained.shape[2] == 1
    shape = as_shape([1 if flat else max(8, wanted[0]), *(max(128, n) for n in wanted[1:])])
    noisy = simulate_light_sheet(shape).noisy.astype(np.float32)
    noisy = (noisy - noisy.mean()) / noisy.std()
    limits = np.iinfo(trained.dtype) if np.dtype(trained.dtype).kind in "iu" else None

    def read(c: int, box: Box) -> FloatArray:
        values = noisy[box.slices] * trained.scale[c] + trained.offset[c]
        if limits is not None:
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.asarray(values, np.float32)

    box = Box.whole(wanted)
    values = np.stack([read(c, box) for c in range(len(trained.channels))])
    origin = "simulated, because the training volume is no longer at the address on the card"
    return Sample(values, read, shape, box, origin, real=False)


def _corners(shape: Shape, size: Sequence[int]) -> list[Shape]:
    """At both ends and in the middle, along each axis."""
    places = [sorted({0, (n - m) // 2, n - m}) for n, m in zip(shape, size, strict=True)]
    return [as_shape(list(corner)) for corner in product(*places)]


def cover_box(sample: Sample) -> Box:
    """A plane through the sample's middle, as large as a cover can show."""
    z = sample.box.start[0] + sample.box.shape[0] // 2
    sides = [min(COVER_PIXELS, n) for n in sample.shape[1:]]
    side = min(sides)
    starts = []
    for axis in (1, 2):
        middle = sample.box.start[axis] + sample.box.shape[axis] // 2
        starts.append(min(max(0, middle - side // 2), sample.shape[axis] - side))
    y, x = starts
    return Box((z, y, x), (z + 1, y + side, x + side))
