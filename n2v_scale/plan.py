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
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from typing import Any

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Denoiser, Normalisation, TileBoxes, tile_boxes
from n2v_scale.errors import PlanError
from n2v_scale.geometry import (
    Box,
    Halo,
    Shape,
    as_shape,
    cells_touching,
    grid_cell,
    grid_indices,
    grid_shape,
)
from n2v_scale.io.volume import Volume
from n2v_scale.io.writer import ArraySpec
from n2v_scale.sizes import storage_shapes, tile_shape

PLAN_FORMAT = 1


@dataclass(frozen=True)
class Block:
    """One task: it owns every shard that its write box covers."""

    number: int
    t: int
    c: int
    write: Box


@dataclass(frozen=True)
class PyramidLevel:
    """A lower resolution, made from the level above it."""

    array: ArraySpec
    factors: Shape
    """From the level above, along (z, y, x)."""


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

    @property
    def shape(self) -> Shape:
        """The volume's spatial extent."""
        return self.volume.spatial_shape

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        times, channels = self.volume.shape[:2]
        return times * channels * prod(grid_shape(self.shape, self.block))

    def iterate(self) -> Iterator[Block]:
        """Every block, in C order of (t, c, z, y, x). Their write boxes partition the volume."""
        times, channels = self.volume.shape[:2]
        places = (  # not product(): it would keep every index of the grid
            (t, c, index)
            for t, c in product(range(times), range(channels))
            for index in grid_indices(self.shape, self.block)
        )
        for number, (t, c, index) in enumerate(places):
            yield Block(number, t, c, grid_cell(index, self.block, self.shape))

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
            "on_nan": self.on_nan,
        }

    @property
    def key(self) -> str:
        """A hash of everything that the written bytes depend on."""
        return plan_key(self.to_dict())


def _metadata(volume: Volume) -> str:
    """What of an input must not change; whether its voxels did is asked block by block."""
    return volume.digest if volume.kind == "zarr" else f"{volume.stored_shape} {volume.dtype}"


def plan_key(plan: dict[str, Any]) -> str:
    """The key of :meth:`Plan.to_dict`; addresses may change, contents may not."""
    content = json.loads(json.dumps(plan))
    del content["input"]["address"], content["denoiser"]["address"]
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
    identity: str = "",
) -> Plan:
    """Decide everything about a run.

    Parameters
    ----------
    address
        Of the denoiser, for the workers.
    store
        Path of the output.
    identity
        Of the volume's content, as :meth:`Volume.identity` tells; nothing is read here.

    Raises
    ------
    PlanError
        When the asked sizes contradict each other.
    """
    shape = volume.spatial_shape
    chunk, shard, block = storage_shapes(shape, settings)
    stride = denoiser.stride
    tile = tile_shape(settings, block, denoiser)
    axes = tuple(a for a in "tczyx" if a in {axis.name for axis in volume.axes})
    output = ArraySpec(
        store=store,
        path="0",
        axes=axes,
        shape=_along(axes, volume.shape),
        chunk=_along(axes, (1, 1, *chunk)),
        shard=_along(axes, (1, 1, *shard)),
        dtype=volume.dtype if settings.dtype == "input" else settings.dtype,
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
        stride=stride,
        tile=tile,
        block=block,
        output=output,
        levels=pyramid_levels(output, volume.voxel_size),
        normalisation=normalisation,
        device=device,
        threads=threads,
        on_nan=settings.on_nan,
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
    chunk = _spatial(output, output.chunk)
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


def _spatial(spec: ArraySpec, values: tuple[int, ...]) -> Shape:
    return as_shape([values[spec.axes.index(a)] if a in spec.axes else 1 for a in "zyx"])


def _replace_spatial(spec: ArraySpec, values: tuple[int, ...], spatial: Shape) -> tuple[int, ...]:
    new = dict(zip("zyx", spatial, strict=True))
    return tuple(new.get(a, v) for a, v in zip(spec.axes, values, strict=True))


def resume_plan(stored: dict[str, Any], fresh: Plan, settings: PredictSettings) -> Plan:
    """The plan of an output that exists, when ``fresh`` asks for the same.

    Whether the input still holds the same voxels is not asked here.

    What was not asked for explicitly is taken from what is stored, so a resume on a machine with
    other cores or memory goes on with the same bytes.

    Raises
    ------
    PlanError
        That says what differs.
    """
    now = json.loads(json.dumps(fresh.to_dict()))
    differences = []
    if stored.get("format") != PLAN_FORMAT:
        differences.append(f"the plan's format ({stored.get('format')}, now {PLAN_FORMAT})")
    else:
        differences += _differences(stored, now, settings)
    if differences:
        raise PlanError(
            "the output was begun with other settings: "
            + "; ".join(differences)
            + ". Use the same, or --overwrite to start afresh, or another name"
        )
    spec: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored["output"].items()
    }
    output = ArraySpec(**{**spec, "store": fresh.output.store})
    normalisation = stored["normalisation"]
    return replace(
        fresh,
        tile=as_shape(stored["tile"]),
        block=as_shape(stored["block"]),
        output=output,
        levels=pyramid_levels(output, fresh.volume.voxel_size),
        normalisation=Normalisation.from_dict(normalisation) if normalisation else None,
        device=stored["device"],
        threads=stored["threads"],
    )


def _differences(
    stored: dict[str, Any], now: dict[str, Any], settings: PredictSettings
) -> list[str]:
    def differ(name: str, old: Any, new: Any) -> list[str]:
        return [] if old == new else [f"{name} was {_short(old)}, now {_short(new)}"]

    found = differ("the input's metadata", stored["input"]["metadata"], now["input"]["metadata"])
    for key in ("array", "timepoints", "channels"):
        found += differ(key, stored["input"][key], now["input"][key])
    found += differ("the model", stored["denoiser"]["key"], now["denoiser"]["key"])
    if stored["axes"] != now["axes"]:
        found.append("the voxel size, units or position of the input differ")
    if stored["on_nan"] != "error":  # no block with NaN was finished: nothing to contradict
        found += differ("--on-nan", stored["on_nan"], now["on_nan"])
    for key in ("codec", "codec_level", "ome_version", "dtype"):
        if key in settings.model_fields_set:
            found += differ(f"--{key.replace('_', '-')}", stored["output"][key], now["output"][key])
    for key in ("chunk", "shard"):
        if getattr(settings, key) is not None:
            found += differ(f"--{key}", stored["output"][key], now["output"][key])
    for key in ("tile", "block"):
        if getattr(settings, key) is not None:
            found += differ(f"--{key}", stored[key], now[key])
    if settings.device != "auto":
        found += differ("--device", stored["device"], now["device"])
    return found


def _short(value: Any) -> str:
    text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 24 else text[:12] + "…"
