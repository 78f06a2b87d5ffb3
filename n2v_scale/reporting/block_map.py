"""What became of the blocks of an output, laid out as they lie in the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.geometry import cells_touching, grid_shape
from n2v_scale.journal import Journal
from n2v_scale.ledger import Ledger
from n2v_scale.plan import Plan
from n2v_scale.self_evaluation import PlacedError

DONE, MISSING, FAILED = 0, 1, 2

Grid = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlockMap:
    """Blocks along (z, y, x), time points and channels taken together."""

    block: tuple[int, int, int]
    """Voxels of a block."""
    extent: tuple[int, int, int]
    """Of the volume."""
    images: int
    """Time points times channels that are taken together."""
    seconds: Grid
    """Of reading, computing and writing, the mean; NaN where nothing is known."""
    state: npt.NDArray[np.uint8]
    """The worst of :data:`DONE`, :data:`MISSING` and :data:`FAILED`."""
    rmse: Grid
    """Estimated root mean square error, in the volume's units; NaN where no voxel was sampled, 0
    where the error is too small to be told from the noise."""
    failed: dict[int, str]
    """Why, by the block's number, of those that are not written still."""
    blocks: int
    missing: int
    """Blocks that are not written, those that failed among them."""
    runs: list[dict[str, Any]]
    """See :meth:`n2v_scale.journal.Journal.runs`."""

    @property
    def total_s(self) -> float:
        """Seconds of all blocks, added up over the workers."""
        return float(np.nansum(self.seconds))


def block_map(plan: Plan, errors: Sequence[PlacedError]) -> BlockMap:
    """From an output's ledger and journal, and the errors that were estimated in boxes of it."""
    store, path = plan.output.store, plan.output.path
    journal = Journal(store, path)
    times, channels = plan.volume.shape[:2]
    shape = (times, channels, *grid_shape(plan.shape, plan.block))
    seconds = journal.seconds(plan.blocks).astype(np.float64)
    done = Ledger(store, plan.output.ome_version).done(path, plan.blocks, loose=True)
    failed = {n: why for n, why in journal.failed().items() if n < len(done) and not done[n]}
    state = np.where(done, DONE, MISSING).astype(np.uint8)
    state[list(failed)] = FAILED
    return BlockMap(
        block=plan.block,
        extent=plan.shape,
        images=times * channels,
        seconds=_mean(seconds.reshape(shape)),
        state=state.reshape(shape).max(axis=(0, 1)),
        rmse=_errors(plan, errors),
        failed=failed,
        blocks=plan.blocks,
        missing=int((~done).sum()),
        runs=journal.runs(),
    )


def _mean(values: Grid) -> Grid:
    """Over time points and channels, of what is known."""
    known = np.isfinite(values)
    total: Grid = np.where(known, values, 0).sum(axis=(0, 1))
    count = known.sum(axis=(0, 1))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _errors(plan: Plan, errors: Sequence[PlacedError]) -> Grid:
    """Of sampled boxes, each in every block that it touches."""
    shape = grid_shape(plan.shape, plan.block)
    total, count = np.zeros(shape), np.zeros(shape)
    for found in errors:
        for cell in cells_touching(found.box, plan.block, plan.shape):
            index = tuple(start // b for start, b in zip(cell.start, plan.block, strict=True))
            share = cell.intersect(found.box).size / found.box.size * found.voxels
            total[index] += found.mse * share
            count[index] += share
    with np.errstate(invalid="ignore", divide="ignore"):
        mse = total / count
    return np.sqrt(np.maximum(mse, 0))
