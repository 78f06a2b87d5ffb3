"""Which voxels of an output are written: those of its missing blocks read as zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from n2v_scale.geometry import Box
from n2v_scale.grids import BlockGrid
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.ledger import Ledger
from n2v_scale.own_record import record_of
from n2v_scale.resume import recorded_plan


@dataclass(frozen=True)
class WrittenBlocks:
    """Of an output that is not complete."""

    volume: Volume
    """The output, as it was opened."""
    grid: BlockGrid
    done: npt.NDArray[np.bool_]
    """By the block's number."""

    def mask(self, t: int, c: int, box: Box) -> npt.NDArray[np.bool_]:
        """Of the voxels (z, y, x) of ``box``, those that are written.

        ``t`` and ``c`` are positions within the selection.
        """
        found = np.zeros(box.shape, bool)
        time, channel = self.volume.timepoints[t], self.volume.channels[c] % self.grid.channels
        for number in self.grid.touching(time, channel, box):
            if self.done[number]:
                found[self.grid.at(number).write.intersect(box).slices_in(box)] = True
        return found


def written_blocks(volume: Volume) -> WrittenBlocks | None:
    """Of an output of this package at full resolution; None where all is written, or nothing is
    known.
    """
    record = record_of(volume)
    if record is None:
        return None
    plan = recorded_plan(record, normalise(volume.address), volume.storage)
    if plan.shape != volume.spatial_shape:
        return None
    ledger = Ledger(plan.output.store, plan.output.ome_version)
    done = ledger.done(plan.output.path, plan.blocks, loose=True)
    if done.all():
        return None
    return WrittenBlocks(volume, plan.grid, done)
