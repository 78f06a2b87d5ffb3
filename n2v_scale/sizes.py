"""How large chunks, shards, blocks and tiles are, from a volume's shape and what was asked for."""

from __future__ import annotations

from math import prod

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Denoiser
from n2v_scale.geometry import Shape, as_shape, grid_shape, round_up

CHUNK = 64
PLANE_CHUNK = 256
"""Of images without depth, along Y and X."""
SHARD = 256
SMALLEST_SHARD = 128
"""Shards are not made smaller than this to have more blocks."""
FEWEST_BLOCKS = 8
TILE = 128
TILE_BYTES = 2 * 2**30
"""What one forward pass may take when the plan chooses the tile."""


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


def tile_shape(settings: PredictSettings, block: Shape, denoiser: Denoiser) -> Shape:
    """The core that one forward pass keeps: as asked, or the largest within the memory."""
    stride = denoiser.stride
    if settings.tile is not None:
        return as_shape([round_up(t, s) for t, s in zip(settings.tile, stride, strict=True)])
    tile = [divisor_near(b, TILE) for b in block]

    def padded() -> Shape:
        pairs = zip(tile, denoiser.halo, stride, strict=True)
        return as_shape([round_up(n + low + high, s) + s for n, (low, high), s in pairs])

    while denoiser.memory_bytes(padded()) > TILE_BYTES and max(tile) > CHUNK // 2:
        axis = max(range(3), key=lambda a: tile[a])
        tile[axis] = -(-tile[axis] // 2)
    return as_shape([round_up(t, s) for t, s in zip(tile, stride, strict=True)])
