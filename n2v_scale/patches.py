"""The sampler: regions read ahead as Dask tasks, pools of them, patches cut from the pools.

Never the volume: at most the pools and what is being read ahead is in memory.

Every patch of a batch has a lane, with a pool of its own: region ``n`` goes to lane ``n`` modulo
the batch. So a batch mixes distinct regions, and processes that train together each read the
regions of their own lanes and no others.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client, Future

from n2v_scale.content import Cells, cells_of
from n2v_scale.errors import ConfigError, InputError, TrainingError
from n2v_scale.geometry import Shape
from n2v_scale.io.finite import check_finite
from n2v_scale.io.volume import Volume
from n2v_scale.regions import Region, draw_patch
from n2v_scale.sources import Chances, Source, SourceRegion, SourceRegions, cells_under

FloatArray = npt.NDArray[np.float32]

POOL_BYTES = 512 * 2**20
MOST_REGIONS = 32
"""In all pools."""
READ_AHEAD = 4
"""Regions that are being read, in all lanes."""
REUSE = 2.0
"""A region is kept until the patches cut from it hold so many times its voxels."""
LEAST_SHARE = 0.4
"""Of that, for a region of little content: 1.25 bytes are decoded for a byte of patches. Where a
volume is mostly noise, a tenth would make training wait for the disk."""
TRIES = 6
"""Patches looked at until one is taken for its content."""
VALIDATION_PATCHES = 16
GIVE_UP = 1000
MOST_UNREADABLE = 32
"""Regions that may be damaged before training gives up."""

NO_FOREGROUND = "pass another --foreground"

log = logging.getLogger(__name__)


@dataclass
class PoolEntry:
    """A region in memory and how many more patches it gives."""

    number: int
    region: SourceRegion
    values: npt.NDArray[Any]
    chances: Chances
    """By cell, that a patch there is taken."""
    uses: int


@dataclass
class _Lane:
    next: int
    """Number of the region that is read next."""
    pool: list[PoolEntry] = field(default_factory=list)
    waiting: deque[tuple[int, SourceRegion, Future[Any]]] = field(default_factory=deque)


def read_region(
    volume: Volume, region: Region, target: Volume | None = None
) -> tuple[npt.NDArray[Any], Cells] | InputError:
    """The voxels of a region and what its cells hold, or why it cannot be read: the Dask task.

    With a ``target`` the voxels of both, (2, z, y, x).
    """
    try:
        values = volume.read(region.t, region.c, region.box)
        cells = cells_of(values)
        if target is not None:
            values = np.stack([values, target.read(region.t, region.c, region.box)])
    except InputError as error:
        return error
    return values, cells


class PatchSampler:
    """Batches of normalised patches from volumes of any size.

    The stream depends on the sources, the patch shape, the batch, the pool's size and the seed
    alone, not on how many threads or workers read, nor on how many processes share the batch.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        client: Client,
        *,
        patch: Shape,
        batch: int,
        seed: int = 0,
        on_nan: str = "error",
        pool_bytes: int = POOL_BYTES,
        lanes: range | None = None,
    ) -> None:
        """``batch`` is that of all processes together, ``lanes`` those of this one."""
        self.sources, self.client = tuple(sources), client
        self.patch, self.batch, self.seed, self.on_nan = patch, batch, seed, on_nan
        self.regions = SourceRegions(self.sources, seed)
        self.pool_size = _pool_size(self.sources, batch, pool_bytes)
        self.ahead = max(1, -(-READ_AHEAD // batch))
        self.lanes = {k: _Lane(k) for k in (lanes if lanes is not None else range(batch))}
        self.step = 0
        self.unreadable = 0
        self.bytes_read = 0

    def __iter__(self) -> Iterator[FloatArray]:
        """Batches (lanes, z, y, x), float32, normalised; NaN where the volume has no value.

        Of pairs (lanes, 2, z, y, x), both normalised by the first's constants.
        """
        while True:
            yield self.next_batch()

    def next_batch(self) -> FloatArray:
        """One patch from each lane. The pools grow by a region a step until they are full."""
        patches = []
        for k, lane in self.lanes.items():
            if len(lane.pool) < self.pool_size:
                lane.pool.append(self._next_entry(lane, first=True))
            rng = np.random.default_rng((self.seed, 3, self.step, k))
            slot = int(rng.integers(len(lane.pool)))
            patches.append(self._cut(lane.pool[slot], rng))
            if lane.pool[slot].uses <= 0:
                lane.pool[slot] = self._next_entry(lane)
        self.step += 1
        return np.stack(patches)

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON."""
        lanes = {
            str(k): {"next": lane.waiting[0][0] if lane.waiting else lane.next}
            | {"pool": [[entry.number, entry.uses] for entry in lane.pool]}
            for k, lane in self.lanes.items()
        }
        return {"step": self.step, "lanes": lanes}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a :meth:`state`: the regions of the pools are read again."""
        self.step = int(state["step"])
        for k, lane in self.lanes.items():
            lane.waiting.clear()
            lane.next = int(state["lanes"][str(k)]["next"])
            futures = []
            for number, uses in state["lanes"][str(k)]["pool"]:
                region = self.regions[number]
                assert region is not None  # it was read before
                futures.append((number, uses, region, self._submit(region)))
            lane.pool = []
            for number, uses, region, future in futures:
                entry = self._entry(number, region, future)
                if entry is None:
                    raise InputError(f"{self._where(region)} cannot be read any more")
                entry.uses = uses
                lane.pool.append(entry)

    def validation(self) -> list[FloatArray]:
        """Patches from the held-out boxes, (z, y, x) each; empty when nothing is held out."""
        each = -(-VALIDATION_PATCHES // len(self.sources))
        chosen: list[SourceRegion] = []
        for s, source in enumerate(self.sources):
            rng = np.random.default_rng((self.seed, 4, s))
            times, channels = source.volume.shape[:2]
            for k in range(min(each, 4 * len(source.held_out))):
                box = draw_patch(source.held_out[k % len(source.held_out)], self.patch, (), rng)
                assert box is not None  # nothing is excluded
                region = Region(int(rng.integers(times)), int(rng.integers(channels)), box)
                chosen.append(SourceRegion(s, region))
        futures = [self._submit(region) for region in chosen]
        read = [(self._checked(r, f.result()), r) for f, r in zip(futures, chosen, strict=True)]
        return [self._normalise(found[0], region) for found, region in read if found is not None]

    def initial(self, count: int) -> list[FloatArray]:
        """``count`` patches spread over the sources, for fitting a network's start."""
        rng = np.random.default_rng((self.seed, 5))
        lane = _Lane(0)
        distinct = min(count, sum(s.regions.cells for s in self.sources))
        entries = [self._next_entry(lane, step=1, ahead=READ_AHEAD) for _ in range(distinct)]
        return [self._cut(entries[k % len(entries)], rng) for k in range(count)]

    def _submit(self, region: SourceRegion) -> Future[Any]:
        source = self.sources[region.source]
        task = (read_region, source.volume, region.region, source.target)
        return self.client.submit(*task, pure=False)

    def _next_entry(
        self, lane: _Lane, *, first: bool = False, step: int | None = None, ahead: int | None = None
    ) -> PoolEntry:
        """The lane's next region that can be read, and the reading of those after it begun."""
        for _ in range(GIVE_UP):
            self._read_ahead(lane, step or self.batch, ahead or self.ahead)
            head = lane.waiting.popleft()
            self._read_ahead(lane, step or self.batch, ahead or self.ahead)
            entry = self._entry(*head)
            if entry is not None:
                if first:  # staggered, so that regions leave one by one
                    entry.uses = max(1, (len(lane.pool) + 1) * entry.uses // self.pool_size)
                return entry
        raise TrainingError(f"{GIVE_UP} regions were read and held no foreground: {NO_FOREGROUND}")

    def _read_ahead(self, lane: _Lane, step: int, ahead: int) -> None:
        for _ in range(GIVE_UP):
            if len(lane.waiting) >= ahead:
                return
            region = self.regions[lane.next]
            if region is not None and self._has_room(region):
                lane.waiting.append((lane.next, region, self._submit(region)))
            lane.next += step
        if not lane.waiting:
            masked = any(source.foreground is not None for source in self.sources)
            raise TrainingError(
                f"{GIVE_UP} regions held no foreground beside what is held out: {NO_FOREGROUND}"
                if masked
                else "held-out regions cover the volume: pass a smaller --patch"
            )

    def _has_room(self, region: SourceRegion) -> bool:
        held_out = self.sources[region.source].held_out
        rng = np.random.default_rng((self.seed, 6))
        return draw_patch(region.region.box, self.patch, held_out, rng) is not None

    def _entry(self, number: int, region: SourceRegion, future: Future[Any]) -> PoolEntry | None:
        """A region in memory; None when it cannot be read, or holds no foreground after all."""
        found = self._checked(region, future.result())
        if found is None:
            return None
        values, cells = found
        source = self.sources[region.source]
        chances = source.chances(region.region, cells)
        share = float(chances.mean())
        if not share:
            return None
        if source.foreground is None:
            share = max(share, LEAST_SHARE)
        uses = REUSE * prod(region.region.box.shape) / prod(self.patch) * share
        return PoolEntry(number, region, values, chances, max(1, round(uses)))

    def _checked(
        self, region: SourceRegion, found: tuple[npt.NDArray[Any], Cells] | InputError
    ) -> tuple[npt.NDArray[Any], Cells] | None:
        """The values; None for a region that cannot be read, as long as most others can."""
        if isinstance(found, InputError):
            self.unreadable += 1
            if self.unreadable > MOST_UNREADABLE:
                raise found
            log.warning("left out of the training: %s", found)
            return None
        self.bytes_read += found[0].nbytes
        if self.on_nan == "error":
            for values in found[0].reshape(-1, *region.region.box.shape):
                check_finite(values, region.region.box, self._where(region))
        return found

    def _where(self, region: SourceRegion) -> str:
        address = self.sources[region.source].volume.address
        return f"{address}, t={region.region.t}, c={region.region.c}"

    def _cut(self, entry: PoolEntry, rng: np.random.Generator) -> FloatArray:
        """A patch, the likelier the more there is in it."""
        entry.uses -= 1
        region = entry.region.region
        held_out = self.sources[entry.region.source].held_out
        best, most = None, -1.0
        for k in range(GIVE_UP):
            if k >= TRIES and most > 0:
                break
            box = draw_patch(region.box, self.patch, held_out, rng, tries=GIVE_UP)
            if box is None:
                raise TrainingError(f"no patch of {self.patch} fits beside the held-out regions")
            chance = float(cells_under(box, region.box, entry.chances).mean())
            if chance > most:
                best, most = box, chance
            if rng.random() < chance:
                best = box
                break
        assert best is not None
        return self._normalise(entry.values[(..., *best.slices_in(region.box))], entry.region)

    def _normalise(self, values: npt.NDArray[Any], region: SourceRegion) -> FloatArray:
        constants = self.sources[region.source].normalisation
        offset, scale = constants.offset[region.region.c], constants.scale[region.region.c]
        patch: FloatArray = (values.astype(np.float32) - np.float32(offset)) / np.float32(scale)
        patch[~np.isfinite(patch)] = np.nan
        return patch


def _pool_size(sources: Sequence[Source], batch: int, pool_bytes: int) -> int:
    """Regions of a lane's pool, so that all pools and what is being read fit."""
    largest = max(prod(s.regions.largest) * _voxel_bytes(s) for s in sources)
    reading = batch * max(1, -(-READ_AHEAD // batch))
    fits = pool_bytes // largest - reading
    if fits < batch:
        raise ConfigError(
            f"a region takes {largest / 1e6:.1f} MB, and "
            f"{batch + reading} of them are held for a batch of {batch}: "
            f"{pool_bytes / 1e6:.1f} MB are too few; pass a smaller --patch or --batch, or more "
            "--pool-memory"
        )
    return max(1, min(MOST_REGIONS, fits) // batch)


def _voxel_bytes(source: Source) -> int:
    if source.target is None:
        return int(np.dtype(source.volume.dtype).itemsize)
    return 2 * int(np.result_type(source.volume.dtype, source.target.dtype).itemsize)
