"""The plan: every decision about a run, taken before anything runs.

Pure functions from shapes to shapes. Along one axis::

    volume   |0                                             n|
    blocks   |----- block 0 -----|----- block 1 -----|-- 2 --|   whole shards; one Dask task each
    shards   |---------|---------|---------|---------|-------|   one writer each
    tiles    |----|----|----|----|----|----|----|----|----|--|   anchored at 0, so that blocks do
                                                                 not matter
    one tile's read box      |halo[core]halo|                    ends at the faces, on the stride
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any

from n2v_scale.config import PredictSettings, Write
from n2v_scale.denoiser import Denoiser, Normalisation, OpenOptions, TileBoxes, tile_boxes
from n2v_scale.foreground import Foreground
from n2v_scale.geometry import (
    Box,
    Halo,
    Shape,
    as_shape,
    cells_touching,
    grid_shape,
    round_down,
)
from n2v_scale.grids import Block, BlockGrid
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume import Volume
from n2v_scale.io.writer import ArraySpec
from n2v_scale.memory import Budget, Sizes
from n2v_scale.noise import NoiseModel
from n2v_scale.sizes import choose_sizes, output_dtype

PLAN_FORMAT = 1
LEVEL_BLOCK = 256
"""What one task of a pyramid writes along an axis where nothing is sharded."""


@dataclass(frozen=True)
class PyramidLevel:
    """A lower resolution, made from the level above it."""

    array: ArraySpec
    factors: Shape
    """From the level above, along (z, y, x)."""

    @property
    def block(self) -> Shape:
        """What one task writes: a shard, or some chunks where there are none."""
        spec = self.array
        if spec.shard != spec.chunk:
            return spec.spatial_shard
        return as_shape([max(c, round_down(LEVEL_BLOCK, c)) for c in spec.spatial_chunk])


@dataclass(frozen=True)
class Plan:
    """What is read, computed and written, block by block. Lengths are along (z, y, x)."""

    volume: Volume
    identity: str
    """Of the volume's content, when the plan was made."""
    denoiser: str
    denoiser_key: str
    halo: Halo
    stride: Shape
    tile: Shape
    block: Shape
    output: ArraySpec
    levels: tuple[PyramidLevel, ...]
    normalisation: Normalisation | None
    device: str
    threads: int
    on_nan: str
    noise: tuple[NoiseModel, ...] | None = None
    """By channel: what the posterior uses; None where there is none."""
    no_posterior: str | None = None
    """Why there is none although the model is blind."""
    plain: bool = False
    """Whether a method of several passes is applied in one."""
    tta: bool = False
    """Whether the mean over mirror images is taken."""
    write: Write = "mean"
    """What of the estimate is written; standard deviations are channels after all the means."""
    precision: str = "float32"
    """Of the network's arithmetic."""
    precision_error: float | None = None
    """That this makes, over the standard deviation of the result; None when nobody measured it."""
    precision_is_open: bool = False
    """Whether a worker is asked for a faster one before this is recorded: the devices are there."""
    nodata: float | None = None
    """Cells of nothing but this value keep it."""
    foreground: Foreground | None = None
    """Cells outside of it keep the input."""
    storage: StorageOptions = field(default_factory=StorageOptions, repr=False)
    """How to reach the output's store; never recorded."""

    @property
    def shape(self) -> Shape:
        """The volume's spatial extent."""
        return self.volume.spatial_shape

    @property
    def open_options(self) -> OpenOptions:
        """How a worker opens the denoiser."""
        return OpenOptions(
            normalisation=self.normalisation,
            device=self.device,
            threads=self.threads,
            precision=self.precision,
            noise=self.noise,
            plain=self.plain,
            tta=self.tta,
            std=self.parts > 1,
        )

    @property
    def sizes(self) -> Sizes:
        """Its shapes."""
        return Sizes(self.output.spatial_chunk, self.output.spatial_shard, self.block, self.tile)

    @property
    def grid(self) -> BlockGrid:
        """The blocks of the full resolution."""
        times, channels = self.volume.shape[:2]
        return BlockGrid(times, channels, self.shape, self.block)

    @property
    def parts(self) -> int:
        """Arrays that are written of an estimate: its mean, and its standard deviation."""
        return self.output.channels // self.volume.shape[1]

    def level_grid(self, level: PyramidLevel) -> BlockGrid:
        """The blocks of a lower resolution."""
        array = level.array
        return BlockGrid(self.volume.shape[0], array.channels, array.spatial_shape, level.block)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self.grid)

    def iterate(self) -> Iterator[Block]:
        """Every block, in order."""
        return iter(self.grid)

    def tiles(self, block: Block) -> list[TileBoxes]:
        """The tiles that share a voxel with the block's write box, whole."""
        return [
            tile_boxes(core, self.halo, self.stride, self.shape)
            for core in cells_touching(block.write, self.tile, self.shape)
        ]

    def read_box(self, block: Block) -> Box:
        """What a block reads: what all of its tiles need."""
        first, *rest = (tile.data for tile in self.tiles(block))
        for box in rest:
            first = first.union(box)
        return first

    def to_dict(self) -> dict[str, Any]:
        """As JSON, for people and for the output's metadata."""
        volume = self.volume
        return {
            "format": PLAN_FORMAT,
            "input": {
                "address": volume.address,
                "array": volume.array_path,
                "identity": self.identity,
                "metadata": _metadata(volume),
                "timepoints": list(volume.timepoints),
                "channels": list(volume.channels),
            },
            "denoiser": {"address": self.denoiser, "key": self.denoiser_key},
            "halo": [list(side) for side in self.halo],
            "stride": list(self.stride),
            "tile": list(self.tile),
            "block": list(self.block),
            "blocks": self.blocks,
            "output": {k: v for k, v in asdict(self.output).items() if k != "store"},
            "axes": [
                asdict(axis) for name in self.output.axes if (axis := volume.axis(name)) is not None
            ],
            "normalisation": self.normalisation.to_dict() if self.normalisation else None,
            "device": self.device,
            "threads": self.threads,
            "precision": self.precision,
            "precision_error": self.precision_error,
            "on_nan": self.on_nan,
            "nodata": _number(self.nodata),
            "foreground": self._foreground(),
            **{name: True for name in ("plain", "tta") if getattr(self, name)},
            **({"write": self.write} if self.parts > 1 else {}),
            **({} if self.noise is None else {"noise": [asdict(n) for n in self.noise]}),
            **({} if self.no_posterior is None else {"no_posterior": self.no_posterior}),
        }

    def _foreground(self) -> dict[str, str] | None:
        mask = self.foreground
        return None if mask is None else {"address": mask.address, "key": mask.key}

    @property
    def key(self) -> str:
        """A hash of everything that the written bytes depend on."""
        return plan_key(self.to_dict())


def _metadata(volume: Volume) -> str:
    """What of an input must not change; whether its voxels did is asked block by block."""
    return volume.digest if volume.kind == "zarr" else f"{volume.stored_shape} {volume.dtype}"


def _number(value: float | None) -> float | str | None:
    """As JSON, which knows neither NaN nor infinity; ``float`` reads either."""
    return value if value is None or isfinite(value) else str(value)


def plan_key(plan: dict[str, Any]) -> str:
    """The key of :meth:`Plan.to_dict`; addresses may change, contents may not."""
    content = json.loads(json.dumps(plan))
    content.pop("precision_error", None)  # it is measured, and differs from time to time
    content.pop("no_posterior", None)  # words
    for part in ("input", "denoiser", "foreground"):
        if content[part]:
            del content[part]["address"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_plan(
    volume: Volume,
    denoiser: Denoiser,
    address: str,
    store: str,
    settings: PredictSettings,
    *,
    normalisation: Normalisation | None,
    device: str,
    threads: int,
    noise: tuple[NoiseModel, ...] | None = None,
    identity: str = "",
    precision: str = "float32",
    foreground: Foreground | None = None,
    storage: StorageOptions | None = None,
    budget: Budget | None = None,
) -> Plan:
    """Decide everything about a run.

    Parameters
    ----------
    address
        Of the denoiser, for the workers.
    store
        Path of the output.
    noise
        What the posterior uses, by channel.
    identity
        Of the volume's content, as :meth:`Volume.identity` tells; nothing is read here.
    foreground
        Outside of it the input is kept.
    storage
        How the output's store is reached.
    budget
        What a worker may take; decides the sizes that ``settings`` leave open.

    Raises
    ------
    PlanError
        When the asked sizes contradict each other, or do not fit the budget.
    ConfigError
        When standard deviations are asked for in a voxel type that cannot hold them.
    """
    sizes = choose_sizes(volume, denoiser, settings, budget or Budget(), mask=foreground)
    stored = {axis.name for axis in volume.axes} | ({"c"} if settings.parts > 1 else set())
    axes = tuple(a for a in "tczyx" if a in stored)
    times, channels, *extent = volume.shape
    shape = (times, channels * settings.parts, *extent)
    output = ArraySpec(
        store=store,
        path="0",
        axes=axes,
        shape=_along(axes, shape),
        chunk=_along(axes, (1, 1, *sizes.chunk)),
        shard=_along(axes, (1, 1, *sizes.shard)),
        dtype=output_dtype(volume, settings),
        codec=settings.codec,
        codec_level=settings.codec_level,
        ome_version=settings.ome_version,
    )
    return Plan(
        volume=volume,
        identity=identity,
        denoiser=address,
        denoiser_key=denoiser.key,
        halo=denoiser.halo,
        stride=denoiser.stride,
        tile=sizes.tile,
        block=sizes.block,
        output=output,
        levels=pyramid_levels(output, volume.voxel_size),
        normalisation=normalisation,
        noise=noise,
        plain=settings.plain,
        tta=settings.tta,
        write=settings.write,
        device=device,
        threads=threads,
        on_nan=settings.on_nan,
        precision=precision,
        nodata=settings.nodata,
        foreground=foreground,
        storage=storage or StorageOptions(),
    )


def _along(axes: tuple[str, ...], values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(v for a, v in zip("tczyx", values, strict=True) if a in axes)


def pyramid_levels(
    output: ArraySpec, voxel_size: tuple[float, float, float]
) -> tuple[PyramidLevel, ...]:
    """Halved again and again until the coarsest level is one chunk.

    Only the axes whose voxels are the finest are halved: an axis joins when its voxels are less
    than √2 times as long as the finest, which keeps them as near to cubes as halving can. Once
    those fit into one chunk, the others are halved until they do.
    """
    levels: list[PyramidLevel] = []
    current, spacing = output, list(voxel_size)
    chunk = output.spatial_chunk
    while any(n > c for n, c in zip(current.spatial_shape, chunk, strict=True)):
        shape = current.spatial_shape
        finest = min(s for s, n in zip(spacing, shape, strict=True) if n > 1)
        factors = as_shape(
            [2 if n > 1 and s < 2**0.5 * finest else 1 for s, n in zip(spacing, shape, strict=True)]
        )
        if all(n <= c for n, c, f in zip(shape, chunk, factors, strict=True) if f == 2):
            factors = as_shape([2 if n > c else 1 for n, c in zip(shape, chunk, strict=True)])
        smaller = grid_shape(shape, factors)
        current = replace(
            current,
            path=str(len(levels) + 1),
            shape=_replace_spatial(current, current.shape, smaller),
        )
        levels.append(PyramidLevel(current, factors))
        spacing = [s * f for s, f in zip(spacing, factors, strict=True)]
    return tuple(levels)


def _replace_spatial(spec: ArraySpec, values: tuple[int, ...], spatial: Shape) -> tuple[int, ...]:
    new = dict(zip("zyx", spatial, strict=True))
    return tuple(new.get(a, v) for a, v in zip(spec.axes, values, strict=True))
