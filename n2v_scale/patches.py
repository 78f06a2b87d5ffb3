"""The sampler: regions read ahead as Dask tasks, a pool of them, patches cut from the pool.

Never the volume: at most the pool and what is being read ahead is in memory.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client, Future

from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import InputError, TrainingError
from n2v_scale.geometry import Shape
from n2v_scale.io.finite import check_finite
from n2v_scale.io.volume import Volume
from n2v_scale.regions import Region, RegionSampler, draw_patch, held_out_boxes

FloatArray = npt.NDArray[np.float32]

POOL_BYTES = 512 * 2**20
FEWEST_REGIONS = 4
MOST_REGIONS = 32
REUSE = 2.0
"""A region is kept until the patches cut from it hold so many times its voxels."""
VALIDATION_PATCHES = 16
GIVE_UP = 1000
MOST_UNREADABLE = 32
"""Regions that may be damaged before training gives up."""

log = logging.getLogger(__name__)


@dataclass
class PoolEntry:
    """A region in memory and how many more patches it gives."""

    region: Region
    values: npt.NDArray[Any]
    uses: int


def read_region(volume: Volume, region: Region) -> npt.NDArray[Any] | InputError:
    """The voxels of a region, or why it cannot be read: the Dask task."""
    try:
        return volume.read(region.t, region.c, region.box)
    except InputError as error:
        return error


class PatchSampler:
    """Batches of normalised patches from a volume of any size.

    The stream depends on the volume, the patch shape, the batch and the seed alone, not on how
    many threads or workers read.
    """

    def __init__(
        self,
        volume: Volume,
        normalisation: Normalisation,
        client: Client,
        *,
        patch: Shape,
        batch: int,
        seed: int = 0,
        on_nan: str = "error",
        pool_bytes: int = POOL_BYTES,
    ) -> None:
        if any(n < p for n, p in zip(volume.spatial_shape, patch, strict=True)):
            raise InputError(
                f"{volume.address} is {volume.spatial_shape} (z, y, x), smaller than a patch of "
                f"{patch}: pass a smaller --patch"
            )
        self.volume, self.normalisation, self.client = volume, normalisation, client
        self.patch, self.batch, self.seed, self.on_nan = patch, batch, seed, on_nan
        times, channels = volume.shape[:2]
        unit = volume.shard or volume.chunk
        self.held_out = held_out_boxes(volume.spatial_shape, unit, patch, seed=seed)
        self.regions = RegionSampler(
            times, channels, volume.spatial_shape, volume.chunk, patch, seed
        )
        region_voxels = prod(self.regions.extent)
        fits = pool_bytes // (region_voxels * np.dtype(volume.dtype).itemsize)
        self.pool_size = max(FEWEST_REGIONS, min(MOST_REGIONS, fits))
        self.unreadable = 0
        self.uses = max(1, round(REUSE * region_voxels / prod(patch)))

    def __iter__(self) -> Iterator[FloatArray]:
        """Batches (b, z, y, x), float32, normalised; NaN where the volume has no value."""
        incoming = self._read_ahead()
        pool = [self._next_entry(incoming) for _ in range(self.pool_size)]
        for k, entry in enumerate(pool):  # staggered, so that regions leave one by one
            entry.uses = 1 + (k + 1) * self.uses // self.pool_size
        step = 0
        while True:
            rng = np.random.default_rng((self.seed, 3, step))
            slots = rng.permutation(self.pool_size)
            patches = []
            for k in range(self.batch):
                slot = int(slots[k % self.pool_size])
                patches.append(self._cut(pool[slot], rng))
                if pool[slot].uses <= 0:
                    pool[slot] = self._next_entry(incoming)
            yield np.stack(patches)
            step += 1

    def validation(self) -> list[FloatArray]:
        """Patches from the held-out boxes, (z, y, x) each; empty when nothing is held out."""
        if not self.held_out:
            return []
        rng = np.random.default_rng((self.seed, 4))
        times, channels = self.volume.shape[:2]
        chosen = []
        for k in range(min(VALIDATION_PATCHES, 4 * len(self.held_out))):
            box = draw_patch(self.held_out[k % len(self.held_out)], self.patch, (), rng)
            assert box is not None  # nothing is excluded
            chosen.append(Region(int(rng.integers(times)), int(rng.integers(channels)), box))
        futures = [self._submit(region) for region in chosen]
        results = self.client.gather(futures)
        checked = [(self._checked(r, v), r.c) for v, r in zip(results, chosen, strict=True)]
        return [self._normalise(values, c) for values, c in checked if values is not None]

    def initial(self, count: int) -> list[FloatArray]:
        """``count`` patches spread over the volume, for fitting a network's start."""
        rng = np.random.default_rng((self.seed, 5))
        incoming = self._read_ahead()
        entries = [self._next_entry(incoming) for _ in range(min(count, self.regions.cells))]
        return [self._cut(entries[k % len(entries)], rng) for k in range(count)]

    def _submit(self, region: Region) -> Future[Any]:
        return self.client.submit(read_region, self.volume, region, pure=False)

    def _read_ahead(self) -> Iterator[tuple[Region, Future[Any]]]:
        """Regions in order, always some of them being read."""
        waiting: deque[tuple[Region, Future[Any]]] = deque()
        for region in self.regions:
            waiting.append((region, self._submit(region)))
            if len(waiting) >= FEWEST_REGIONS:
                yield waiting.popleft()

    def _next_entry(self, incoming: Iterator[tuple[Region, Future[Any]]]) -> PoolEntry:
        for _ in range(GIVE_UP):
            region, future = next(incoming)
            rng = np.random.default_rng((self.seed, 6))
            if draw_patch(region.box, self.patch, self.held_out, rng) is None:
                continue
            values = self._checked(region, future.result())
            if values is not None:
                return PoolEntry(region, values, self.uses)
        raise TrainingError("held-out regions cover the volume: pass a smaller --patch")

    def _checked(
        self, region: Region, values: npt.NDArray[Any] | InputError
    ) -> npt.NDArray[Any] | None:
        """The values; None for a region that cannot be read, as long as most others can."""
        if isinstance(values, InputError):
            self.unreadable += 1
            if self.unreadable > MOST_UNREADABLE:
                raise values
            log.warning("left out of the training: %s", values)
            return None
        if self.on_nan == "error":
            check_finite(values, region.box, f"{self.volume.address}, t={region.t}, c={region.c}")
        return values

    def _cut(self, entry: PoolEntry, rng: np.random.Generator) -> FloatArray:
        entry.uses -= 1
        box = draw_patch(entry.region.box, self.patch, self.held_out, rng, tries=GIVE_UP)
        if box is None:
            raise TrainingError(f"no patch of {self.patch} fits beside the held-out regions")
        return self._normalise(entry.values[box.slices_in(entry.region.box)], entry.region.c)

    def _normalise(self, values: npt.NDArray[Any], channel: int) -> FloatArray:
        offset, scale = self.normalisation.offset[channel], self.normalisation.scale[channel]
        patch: FloatArray = (values.astype(np.float32) - np.float32(offset)) / np.float32(scale)
        patch[~np.isfinite(patch)] = np.nan
        return patch
