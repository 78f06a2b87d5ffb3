"""A volume as a report looks at it: what cannot be shown is NaN, and stops nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, as_shape
from n2v_scale.io.volume import Volume
from n2v_scale.written import WrittenBlocks, written_blocks

SMALLEST = 16
"""Voxels along the longest axis of what is given up as a whole where it cannot be read."""

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sight:
    """Of a volume; NaN where it is not finite, cannot be read or is not written yet."""

    volume: Volume
    written: WrittenBlocks | None = None
    """None where all of it is."""

    @classmethod
    def of_output(cls, volume: Volume) -> Sight:
        """Of an output, whose missing blocks read as zeros."""
        return cls(volume, written_blocks(volume))

    def read(self, t: int, c: int, box: Box) -> Values:
        """The voxels (z, y, x) of ``box``."""
        values = self._readable(t, c, box)
        values[~np.isfinite(values)] = np.nan
        if self.written is not None:
            values[~self.written.mask(t, c, box)] = np.nan
        return values

    def whole(self, t: int, c: int, box: Box) -> bool:
        """Whether all of ``box`` is written."""
        return self.written is None or bool(self.written.mask(t, c, box).all())

    def _readable(self, t: int, c: int, box: Box) -> Values:
        """NaN for what cannot be read, which halving after halving tells from its neighbours."""
        try:
            return self.volume.read(t, c, box).astype(np.float32)
        except InputError:
            axis = int(np.argmax(box.shape))
            if box.shape[axis] <= SMALLEST:
                return np.full(box.shape, np.nan, np.float32)
        middle = (box.start[axis] + box.stop[axis]) // 2
        halves = [self._readable(t, c, half) for half in _halves(box, axis, middle)]
        return np.concatenate(halves, axis)


def _halves(box: Box, axis: int, middle: int) -> tuple[Box, Box]:
    stop, start = list(box.stop), list(box.start)
    stop[axis] = start[axis] = middle
    return Box(box.start, as_shape(stop)), Box(as_shape(start), box.stop)
