"""How large chunks, shards, blocks and tiles are, from a volume's shape and what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Denoiser
from n2v_scale.errors import ConfigError
from n2v_scale.foreground import Foreground
from n2v_scale.geometry import Shape, as_shape, grid_shape, round_up
from n2v_scale.io.volume import Volume
from n2v_scale.memory import Budget, Sizes, check_budget, worker_memory
from n2v_scale.tiling import tiling

CHUNK = 64
PLANE_CHUNK = 256
"""Of images without depth, along Y and X."""
SHARD = 256
SMALLEST_SHARD = 128
"""Shards are not made smaller than this to have more blocks."""
FEWEST_BLOCKS = 8
MOST_TILE_VOXELS = 2**24
"""The halo is little beside 256³ already."""
SMALLEST_TILE = 32
TILE_SHARE = 0.7
"""Of what a worker may take, at most so much is for the forward pass; the rest is for blocks."""
TILE_BYTES = 2 * 2**30
"""What one forward pass may take when nobody said what a worker may."""
MOST_BLOCK_VOXELS = {"cpu": 2**26, "cuda": 2**30}
"""A block is lost when its worker dies: some minutes of work, and no more."""
BLOCKS_A_WORKER = 4
"""At least so many, so that workers end together."""


def output_dtype(volume: Volume, settings: PredictSettings) -> str:
    """The voxel type that is written.

    Raises
    ------
    ConfigError
        When standard deviations are to be rounded to whole numbers.
    """
    asked = volume.dtype if settings.dtype == "input" else settings.dtype
    if settings.parts == 1:
        return asked
    if "dtype" in settings.model_fields_set and asked != "float32":
        raise ConfigError(
            f"--output {settings.write} is written as float32: most standard deviations are a few "
            f"units or less, which {asked} would round away; leave out --dtype"
        )
    return "float32"


def storage_shapes(shape: Shape, settings: PredictSettings) -> tuple[Shape, Shape, Shape]:
    """Chunk, shard and block for a volume; chunks divide shards and shards divide blocks.

    What is asked for is a wish for chunk and shard, and binding for the block.
    """
    sharded = settings.ome_version == "0.5"
    usual = (1, PLANE_CHUNK, PLANE_CHUNK) if shape[0] == 1 else (CHUNK, CHUNK, CHUNK)
    if settings.chunk is None and settings.shard is not None:  # a small shard, smaller chunks
        usual = as_shape([min(c, s) for c, s in zip(usual, settings.shard, strict=True)])
    chunk = as_shape([min(c, n) for c, n in zip(settings.chunk or usual, shape, strict=True)])
    if settings.block is not None:
        block = as_shape(
            [min(b, round_up(n, c)) for b, n, c in zip(settings.block, shape, chunk, strict=True)]
        )
        wish = settings.shard or as_shape([max(SHARD, c) for c in chunk])
        shard = _divisors(block, wish) if sharded else block
        return _divisors(shard, chunk), shard if sharded else _divisors(shard, chunk), block
    wish = settings.shard or _default_shard(shape, chunk)
    shard = as_shape(
        [min(round_up(s, c), round_up(n, c)) for s, n, c in zip(wish, shape, chunk, strict=True)]
    )
    return chunk, shard if sharded else chunk, shard


def _default_shard(shape: Shape, chunk: Shape) -> Shape:
    """About 256³, less where that would leave fewer than eight blocks."""
    shard = [min(max(SHARD, c), round_up(n, c)) for n, c in zip(shape, chunk, strict=True)]
    if shape[0] == 1:
        return as_shape(
            [1, *(min(1024, round_up(n, c)) for n, c in zip(shape[1:], chunk[1:], strict=True))]
        )
    while prod(grid_shape(shape, as_shape(shard))) < FEWEST_BLOCKS:
        axis = max(range(3), key=lambda a: shard[a])
        half = round_up(-(-shard[axis] // 2), chunk[axis])
        if half < SMALLEST_SHARD or half == shard[axis]:
            break
        shard[axis] = half
    return as_shape(shard)


def _divisors(whole: Shape, wish: Shape) -> Shape:
    return as_shape([divisor_near(n, w) for n, w in zip(whole, wish, strict=True)])


def divisor_near(whole: int, wish: int) -> int:
    """The largest divisor of ``whole`` up to ``wish``; the next larger one when that is tiny.

    >>> divisor_near(256, 64), divisor_near(96, 64), divisor_near(97, 64)
    (64, 48, 97)
    """
    divisors = [d for d in range(1, whole + 1) if whole % d == 0]
    below = max(d for d in divisors if d <= wish or d == 1)
    return below if 4 * below >= wish or below == whole else min(d for d in divisors if d > below)


def choose_sizes(
    volume: Volume,
    denoiser: Denoiser,
    settings: PredictSettings,
    budget: Budget,
    *,
    mask: Foreground | None = None,
) -> Sizes:
    """Chunk, shard, block and tile: what was asked for, else the least halo that fits.

    The halo costs computing around a tile and reading around a block. Of what fits, the sizes with
    the least to compute are taken, and of these the ones with the least to read.

    Raises
    ------
    PlanError
        When the smallest sizes, or those that were asked for, need more than a worker has.
    """
    dtype = output_dtype(volume, settings)

    def fits(sizes: Sizes) -> bool:
        limit = budget.memory_bytes
        memory = worker_memory(
            volume, denoiser, sizes, dtype, budget.tasks, mask=mask, parts=settings.parts
        )
        if budget.device_bytes is not None and memory.tile > budget.device_bytes:
            return False
        if limit is None:
            return settings.tile is not None or memory.tile <= TILE_BYTES
        room = memory.tile <= TILE_SHARE * limit or settings.tile is not None
        return room and memory.total <= limit

    def cost(sizes: Sizes) -> tuple[float, float]:
        tiles = tiling(denoiser, volume.spatial_shape, sizes.block, sizes.tile)
        return round(tiles.compute_overhead(denoiser), 6), tiles.read_overhead

    candidates = [
        Sizes(chunk, shard, block, tile)
        for chunk, shard, block in _storage_candidates(volume.spatial_shape, settings)
        for tile in _tiles(settings, block, denoiser.stride)
    ]
    fitting = [sizes for sizes in candidates if fits(sizes)]
    if not fitting:
        check_budget(
            volume, denoiser, candidates[-1], dtype, budget, mask=mask, parts=settings.parts
        )
        return candidates[-1]  # no limit was given, and the smallest tile is over what is usual
    best = min(fitting, key=cost)
    if settings.block is not None or budget.memory_bytes is None:
        return best
    return _grown(best, volume, budget, fits, cost)


def _storage_candidates(
    shape: Shape, settings: PredictSettings
) -> Iterator[tuple[Shape, Shape, Shape]]:
    """Chunk, shard and block, the shard halved again and again where nobody asked for one."""
    chunk, shard, block = storage_shapes(shape, settings)
    yield chunk, shard, block
    if settings.block is not None or settings.shard is not None:
        return
    while True:
        axis = max(range(3), key=lambda a: block[a] / chunk[a])
        half = round_up(-(-block[axis] // 2), chunk[axis])
        if half == block[axis]:
            return
        block = as_shape([half if a == axis else n for a, n in enumerate(block)])
        yield chunk, block if shard != chunk else chunk, block


def _tiles(settings: PredictSettings, block: Shape, stride: Shape) -> Iterator[Shape]:
    """The cores that one forward pass may keep: as asked, or from large to small."""
    if settings.tile is not None:
        yield as_shape([round_up(t, s) for t, s in zip(settings.tile, stride, strict=True)])
        return
    tile = list(block)
    while True:
        if prod(tile) <= MOST_TILE_VOXELS:
            yield as_shape([round_up(t, s) for t, s in zip(tile, stride, strict=True)])
        axis = max(range(3), key=lambda a: tile[a])
        if tile[axis] <= SMALLEST_TILE:
            return
        tile[axis] = -(-tile[axis] // 2)


def _grown(
    sizes: Sizes,
    volume: Volume,
    budget: Budget,
    fits: Callable[[Sizes], bool],
    cost: Callable[[Sizes], tuple[float, float]],
) -> Sizes:
    """The block doubled where that saves most reading, while it fits and blocks are enough."""
    shape = volume.spatial_shape
    times, channels = volume.shape[:2]
    most = MOST_BLOCK_VOXELS.get(budget.device, MOST_BLOCK_VOXELS["cpu"])
    fewest = max(FEWEST_BLOCKS, BLOCKS_A_WORKER * budget.workers)

    def allowed(larger: Sizes) -> bool:
        count = times * channels * prod(grid_shape(shape, larger.block))
        return count >= fewest and prod(larger.block) <= most and fits(larger)

    while larger := [one for one in _doubled(sizes, shape) if allowed(one)]:
        sizes = min(larger, key=cost)
    return sizes


def _doubled(sizes: Sizes, shape: Shape) -> Iterator[Sizes]:
    """The block twice as long along one axis, but no longer than the volume."""
    for axis in range(3):
        if sizes.block[axis] < shape[axis]:
            longest = round_up(shape[axis], sizes.shard[axis])
            block = list(sizes.block)
            block[axis] = min(2 * block[axis], longest)
            yield replace(sizes, block=as_shape(block))
