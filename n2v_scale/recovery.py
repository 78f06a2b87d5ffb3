"""Whether what an earlier run left is still what was written, and of this input.

Nothing here trusts that a marked block is well: a power cut leaves empty files behind renamed
names, disks rot, people copy. Sizes are compared at every start, checksums by ``verify``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from zlib import crc32

from distributed import Client

from n2v_scale.errors import PlanError
from n2v_scale.grids import Block, BlockGrid
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import is_url, remember
from n2v_scale.io.writer import (
    NOTHING,
    ArraySpec,
    Stored,
    get,
    sizes_under,
    stored_checksum,
    stored_size,
)
from n2v_scale.ledger import Ledger, Marker
from n2v_scale.plan import Plan
from n2v_scale.progress import Progress
from n2v_scale.window import reason, run_window

log = logging.getLogger(__name__)

THREADS = 16
BATCH = 4096


@dataclass(frozen=True)
class Level:
    """One array of an output with its blocks."""

    spec: ArraySpec
    grid: BlockGrid

    def channels(self, block: Block) -> range:
        """Those of the array that a block writes: also that of its standard deviations."""
        return self.grid.channels_of(block, self.spec.channels)

    def size(self, block: Block, sizes: Mapping[str, int] | None = None) -> int:
        """Bytes that are stored of a block; see :func:`n2v_scale.io.writer.stored_size`."""
        return sum(
            stored_size(self.spec, block.t, c, block.write, sizes=sizes)
            for c in self.channels(block)
        )

    def stored(self, block: Block) -> Stored:
        """What is stored of a block, which is read."""
        found = NOTHING
        for c in self.channels(block):
            found = stored_checksum(self.spec, block.t, c, block.write, before=found)
        return found


def levels_of(plan: Plan) -> list[Level]:
    """The full resolution, then the pyramid."""
    lower = [Level(level.array, plan.level_grid(level)) for level in plan.levels]
    return [Level(plan.output, plan.grid), *lower]


def is_intact(plan: Plan, ledger: Ledger) -> bool:
    """Whether every block is done, has the size that it had, and the metadata is there.

    What is there is not read: that takes ``verify``.
    """
    return all_done(plan, ledger) and not (lost_metadata(plan) or damaged_by_size(plan, ledger))


def all_done(plan: Plan, ledger: Ledger) -> bool:
    """Whether every block of every level is in the ledger."""
    return all(ledger.done(level.spec.path, len(level.grid)).all() for level in levels_of(plan))


def lost_metadata(plan: Plan) -> list[str]:
    """Keys of the image's and its arrays' metadata that are absent, or torn: no JSON."""
    v3 = plan.output.zarr_format == 3
    keys = ["zarr.json"] if v3 else [".zgroup", ".zattrs"]
    name = "zarr.json" if v3 else ".zarray"
    keys += [f"{level.spec.path}/{name}" for level in levels_of(plan)]
    return [key for key in keys if not _is_json(get(plan.output.store, key))]


def _is_json(content: bytes | None) -> bool:
    try:
        json.loads(content or b"")
    except ValueError:
        return False
    return True


def resized(level: Level, ledger: Ledger) -> list[int]:
    """Finished blocks whose shards have other sizes now than when they were written."""
    spec, grid = level.spec, level.grid
    sizes = sizes_under(spec.store, spec.path) if is_url(spec.store) else None

    def differs(marker: Marker) -> int | None:
        block = grid.at(marker.number)
        return None if level.size(block, sizes) == marker.size else marker.number

    found: list[int] = []
    markers = ledger.markers(spec.path, len(grid))
    with ThreadPoolExecutor(THREADS) as pool:
        while some := list(islice(markers, BATCH)):  # map() would take all of them at once
            found += [number for number in pool.map(differs, some) if number is not None]
    return found


def forget(plan: Plan, ledger: Ledger, damaged: dict[str, list[int]]) -> None:
    """Unmark ``damaged`` blocks, by level, and all that was made from them.

    The lowest resolution goes first: a kill in between must not leave an old pyramid marked.
    """
    levels = levels_of(plan)
    stale = {level.spec.path: set(damaged.get(level.spec.path, [])) for level in levels}
    for above, below, made in zip(levels, levels[1:], plan.levels, strict=False):
        for number in stale[above.spec.path]:
            block = above.grid.at(number)
            box = block.write.divide(made.factors)
            for c in above.channels(block):
                stale[below.spec.path].update(below.grid.touching(block.t, c, box))
    for path in reversed(stale):
        ledger.unmark(path, stale[path])


def damaged_by_size(plan: Plan, ledger: Ledger) -> dict[str, list[int]]:
    """The finished blocks of each level whose shards have other sizes now."""
    found = {level.spec.path: resized(level, ledger) for level in levels_of(plan)}
    for path, numbers in found.items():
        if numbers:
            log.warning("level %s: blocks %s are damaged", path, numbers[:20])
    return {path: numbers for path, numbers in found.items() if numbers}


def recheck_input(plan: Plan, client: Client, ledger: Ledger, progress: Progress) -> int:
    """Unmark the blocks whose input is no longer what they were made from; returns how many.

    For an input whose files changed since the run began, such as a damaged chunk that was copied
    again. A block depends on its read box alone, so the others stay.

    Raises
    ------
    PlanError
        When no block's input is what it was: that is another volume.
    """
    path, grid = plan.output.path, plan.grid
    marked = int(ledger.done(path, len(grid)).sum())
    changed: list[int] = []
    outcomes = run_window(client, partial(_input_changed, plan), _with_blocks(ledger, path, grid))
    with progress.step("checking the input, which changed", max(1, marked), "block") as bar:
        for outcome in outcomes:
            if outcome.error is not None:
                log.info("block %d: %s", outcome.item[0].number, reason(outcome.error))
            if outcome.error is not None or outcome.result:
                changed.append(outcome.item[0].number)
            bar.advance(1, f"{len(changed)} changed" if changed else "")
    if marked and len(changed) == marked:
        raise PlanError(
            f"{plan.volume.address} is not the volume that {plan.output.store} was begun from: "
            "--overwrite starts afresh; or choose another name"
        )
    forget(plan, ledger, {path: changed})
    return len(changed)


def _with_blocks(
    ledger: Ledger, path: str, grid: BlockGrid, *, loose: bool = False
) -> Iterator[tuple[Block, Marker]]:
    return ((grid.at(m.number), m) for m in ledger.markers(path, len(grid), loose=loose))


def _input_changed(plan: Plan, item: tuple[Block, Marker]) -> bool:
    block, marker = item
    values = plan.volume.read(block.t, block.c, plan.read_box(block))
    return crc32(values.data) != marker.read_checksum


def rewritten(
    level: Level, storage: StorageOptions, client: Client, ledger: Ledger, progress: Progress
) -> list[int]:
    """Finished blocks whose shards, read back, are not what was written."""
    path, grid = level.spec.path, level.grid
    marked = int(ledger.done(path, len(grid), loose=True).sum())
    found: list[int] = []
    check = partial(_differs, level, storage)
    items = _with_blocks(ledger, path, grid, loose=True)
    with progress.step(f"verifying level {path}", max(1, marked), "block") as bar:
        for outcome in run_window(client, check, items):
            if outcome.error is not None or outcome.result:
                found.append(outcome.item[0].number)
            bar.advance(1, f"{len(found)} damaged" if found else "")
    return sorted(found)


def _differs(level: Level, storage: StorageOptions, item: tuple[Block, Marker]) -> bool:
    remember(level.spec.store, storage)
    block, marker = item
    stored = level.stored(block)
    return (stored.checksum, stored.size) != (marker.checksum, marker.size)
