"""A volume as a report looks at it: what cannot be shown is NaN, and stops nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, as_shape, ceil_div
from n2v_scale.io.volume import Volume
from n2v_scale.written import WrittenBlocks, written_blocks

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
        """NaN for chunks that cannot be read, which halving after halving tells from the others."""
        try:
            return self.volume.read(t, c, box).astype(np.float32)
        except InputError:
            halves = _halves(box, self.volume.chunk)
            if not halves:
                return np.full(box.shape, np.nan, np.float32)
        axis, parts = halves
        return np.concatenate([self._readable(t, c, part) for part in parts], axis)


def _halves(box: Box, chunk: Shape) -> tuple[int, tuple[Box, Box]] | None:
    """The axis along which ``box`` spans most chunks, and both halves; None within one chunk."""
    first = [a // n for a, n in zip(box.start, chunk, strict=True)]
    spans = [ceil_div(b, n) - k for b, n, k in zip(box.stop, chunk, first, strict=True)]
    axis = int(np.argmax(spans))
    if spans[axis] == 1:
        return None
    stop, start = list(box.stop), list(box.start)
    stop[axis] = start[axis] = (first[axis] + spans[axis] // 2) * chunk[axis]
    return axis, (Box(box.start, as_shape(stop)), Box(as_shape(start), box.stop))
