"""What prediction knows of a denoiser: its halo, its stride, its memory, its work, and one call.

A trained model is one, a classical filter is one, the identity is one. Each has an address (a
folder, or a builtin name) that every worker opens for itself.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import ModelError
from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, padded_shape
from n2v_scale.io.volume import Volume
from n2v_scale.noise import NoiseModel

FloatArray = npt.NDArray[np.floating[Any]]

IDENTITY = "identity"


@dataclass(frozen=True)
class Region:
    """Where a tile lies: time point, channel, the core that is kept, the volume's shape."""

    t: int
    c: int
    core: Box
    shape: Shape


@dataclass(frozen=True)
class Estimate:
    """What a denoiser says of a core: the mean and, if it knows, the standard deviation.

    Both have the core's shape (z, y, x) and the input's units.
    """

    mean: FloatArray
    std: FloatArray | None = None


@dataclass(frozen=True)
class Normalisation:
    """One offset and scale a channel, for a whole volume: ``(value - offset) / scale``."""

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def to_dict(self) -> dict[str, list[float]]:
        """As JSON."""
        return {"offset": list(self.offset), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, data: dict[str, list[float]]) -> Normalisation:
        """From :meth:`to_dict`."""
        return cls(tuple(data["offset"]), tuple(data["scale"]))


@dataclass(frozen=True)
class OpenOptions:
    """How a worker opens a denoiser; part of the plan, so that every worker does the same."""

    normalisation: Normalisation | None = None
    device: str = "cpu"
    threads: int | None = None
    """Of a forward pass; None leaves torch as it is."""
    precision: str = "float32"
    """Of the network's arithmetic: float32, float16 or bfloat16."""
    noise: tuple[NoiseModel, ...] | None = None
    """By channel, in the volume's units: puts each voxel's own value back into a blind prediction;
    None leaves the prediction as it is."""
    plain: bool = False
    """Whether a method of several passes is applied in one that sees every voxel."""
    tta: bool = False
    """Whether the mean over the tile's mirror images is taken (test-time augmentation)."""
    std: bool = True
    """Whether the posterior's standard deviation is wanted, which takes time."""


class Denoiser(Hashable, Protocol):
    """The contract between prediction and whatever removes the noise.

    The estimate of a voxel may depend only on input voxels within ``halo`` of it and on whether
    these lie in the volume: then tiles can be stitched exactly.
    """

    @property
    def halo(self) -> Halo:
        """Context that the core needs, per axis and side."""

    @property
    def stride(self) -> Shape:
        """What origins and extents of tiles are multiples of, per axis."""

    @property
    def key(self) -> str:
        """A hash of everything that the result depends on."""

    @property
    def needs_normalisation(self) -> bool:
        """Whether :class:`OpenOptions` must carry constants."""

    def normalisation_for(self, volume: Volume) -> Normalisation | None:
        """The constants that it has for this very volume, or None when they must be sampled."""

    @property
    def blind(self) -> bool:
        """Whether it predicts a voxel without having seen it; see :mod:`n2v_scale.posterior`."""

    @property
    def several_passes(self) -> bool:
        """Whether :attr:`OpenOptions.plain` means something to it."""

    @property
    def knows_std(self) -> bool:
        """Whether, opened as it is, its estimates have a standard deviation if that is wanted."""

    def noise_for(self, volume: Volume) -> tuple[NoiseModel | None, ...] | None:
        """The noise by channel that it knows of this very volume, or None when it does not."""

    @property
    def learned_noise(self) -> NoiseModel | None:
        """That of the camera it was trained for, in units, where training has learned it."""

    def check_fits(self, volume: Volume) -> None:
        """Raise a ModelError when it cannot be applied to ``volume``."""

    @property
    def base_bytes(self) -> int:
        """An upper bound of what a worker process holds before its first tile."""

    def memory_bytes(self, core: Shape) -> int:
        """An upper bound of what one call on a tile with this core, halo all round, allocates."""

    def work(self, core: Shape, halo: Halo) -> float:
        """What one call on a tile with this core and so much context costs, in any fixed unit.

        Both are multiples of the stride; the context is less than :attr:`halo` at a face.
        """

    def denoise(self, tile: FloatArray, region: Region) -> Estimate:
        """The estimate of ``region.core``.

        ``tile`` is (z, y, x) and holds ``tile_boxes(...).data`` of the volume, in its own units.
        """


@dataclass(frozen=True)
class TileBoxes:
    """The boxes of one tile, in volume coordinates."""

    core: Box
    """What is kept, clipped to the volume."""
    aligned: Box
    """The core grown to the stride: what the network returns."""
    padded: Box
    """What the network is given; past the volume's end it holds zeros."""
    data: Box
    """The part of ``padded`` that lies in the volume: what is read."""


def tile_boxes(core: Box, halo: Halo, stride: Shape, shape: Shape) -> TileBoxes:
    """What to read and to pad for a core whose start is a multiple of ``stride``.

    The padded box starts and ends at multiples of the stride, and ends at the volume's faces,
    rounded up to the stride.
    """
    aligned = core.align(stride)
    padded = aligned.expand(halo).align(stride).intersect(Box.whole(padded_shape(shape, stride)))
    return TileBoxes(core, aligned, padded, padded.intersect(Box.whole(shape)))


class Identity:
    """Returns its input: for importing, and for tests of everything around a denoiser."""

    key = IDENTITY
    needs_normalisation = False
    blind = False
    several_passes = False
    knows_std = False
    learned_noise = None
    base_bytes = 2**28

    def __init__(self, halo: Halo = NO_HALO, stride: Shape = (1, 1, 1)) -> None:
        self.halo = halo
        self.stride = stride

    def normalisation_for(self, volume: Volume) -> Normalisation | None:
        """None: it needs no constants."""

    def noise_for(self, volume: Volume) -> tuple[NoiseModel | None, ...] | None:
        """None: it needs no noise."""

    def check_fits(self, volume: Volume) -> None:
        """Every volume does."""

    def memory_bytes(self, core: Shape) -> int:
        """The tile in float32, and its core."""
        return 4 * (Box.whole(core).expand(self.halo).size + Box.whole(core).size)

    def work(self, core: Shape, halo: Halo) -> float:
        """The voxels that it is given."""
        return Box.whole(core).expand(halo).size

    def denoise(self, tile: FloatArray, region: Region) -> Estimate:
        """The core of ``tile``, unchanged."""
        data = tile_boxes(region.core, self.halo, self.stride, region.shape).data
        return Estimate(tile[region.core.slices_in(data)])


# Kinds of denoisers and where they live; a folder names its kind in model.json. The table is
# fixed: a folder from a stranger cannot name code of its own.
KINDS = {
    "network": ("n2v_scale.model", "Model"),
    "filter": ("n2v_scale.filtering", "CalibratedFilter"),
}


def open_denoiser(address: str, options: OpenOptions | None = None) -> Denoiser:
    """The denoiser at ``address``: ``identity``, or a folder with a ``model.json``.

    Cheap: weights are loaded at the first tile.

    Raises
    ------
    ModelError
        When there is no such folder, or its kind is unknown to this version.
    """
    if address == IDENTITY:
        return Identity()
    from n2v_scale.model_card import read_kind

    kind = read_kind(Path(address))
    if kind not in KINDS:
        raise ModelError(
            f"{address} holds a denoiser of kind {kind!r}, and this version knows "
            f"{', '.join(sorted(KINDS))}: a newer n2v-scale may open it"
        )
    module, name = KINDS[kind]
    opened: Denoiser = getattr(import_module(module), name)(address, options or OpenOptions())
    return opened
