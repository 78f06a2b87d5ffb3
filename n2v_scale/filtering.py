"""A calibrated classical filter as a Denoiser: blocks, tiles and resuming are as for a network."""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path

from n2v_scale.classical import Filter, filter_named
from n2v_scale.classical.base import FLOAT32
from n2v_scale.denoiser import (
    Estimate,
    FloatArray,
    Normalisation,
    OpenOptions,
    Region,
    tile_boxes,
)
from n2v_scale.errors import ModelError
from n2v_scale.filter_card import read_filter_card
from n2v_scale.geometry import Box, Halo, Shape
from n2v_scale.io.volume import Volume
from n2v_scale.noise import NoiseModel

PROCESS_BYTES = 300 * 2**20
"""Of a worker with Dask, zarr, SciPy, scikit-image and PyWavelets, but without torch."""


class CalibratedFilter:
    """One filter, with a value of its parameter for each channel.

    Its constants (the channels' means, and their noise as the unit) come from the calibration.
    """

    needs_normalisation = True
    blind = False
    several_passes = False
    learned_noise = None
    knows_std = False
    stride: Shape = (1, 1, 1)
    base_bytes = PROCESS_BYTES

    def __init__(self, folder: str | Path, options: OpenOptions | None = None) -> None:
        del options  # neither device nor precision changes anything
        self.folder = Path(folder)
        self.card = read_filter_card(self.folder)
        kind = filter_named(self.card.filter)
        self.filters: tuple[Filter, ...] = tuple(kind(v, self.card.ratio) for v in self.card.values)

    @property
    def halo(self) -> Halo:
        """The furthest that the filter of any channel looks."""
        z, y, x = (max(far) for far in zip(*(f.reach for f in self.filters), strict=True))
        return (z, z), (y, y), (x, x)

    @property
    def key(self) -> str:
        """A hash of the filter, its parameters and its constants."""
        card = self.card
        parts = [card.filter, card.values, card.ratio, card.offset, card.scale]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def normalisation_for(self, volume: Volume) -> Normalisation:
        """The constants of its calibration, whatever the volume: its parameters belong to them."""
        self.check_fits(volume)
        return Normalisation(self.card.offset, self.card.scale)

    def noise_for(self, volume: Volume) -> tuple[NoiseModel | None, ...] | None:
        """None: there is no posterior."""

    def check_fits(self, volume: Volume) -> None:
        """Raise a ModelError when it was calibrated on other channels, or another dimension."""
        if volume.channels != self.card.channels:
            raise ModelError(
                f"{self.folder} was calibrated on channels {self.card.channels} and "
                f"{volume.address} has {volume.channels}: select those, or calibrate anew"
            )
        if self.filters[0].flat != (volume.spatial_shape[0] == 1):
            raise ModelError(
                f"{self.folder} was calibrated on {'one plane' if self.filters[0].flat else 'many'}"
                f" and {volume.address} has {volume.spatial_shape[0]}: calibrate anew"
            )

    def memory_bytes(self, core: Shape) -> int:
        """What the filter takes, and beside it the tile as it was read and normalised."""
        tile = Box.whole(core).expand(self.halo).shape
        most = max(f.memory_bytes(tile) for f in self.filters)
        return most + FLOAT32 * (3 * prod(tile) + 2 * prod(core))

    def work(self, core: Shape, halo: Halo) -> float:
        """A filter computes all that it is given."""
        return self.filters[0].cost * Box.whole(core).expand(halo).size

    def denoise(self, tile: FloatArray, region: Region) -> Estimate:
        """The filtered core, in the input's units."""
        data = tile_boxes(region.core, self.halo, self.stride, region.shape).data
        offset, scale = self.card.offset[region.c], self.card.scale[region.c]
        filtered = self.filters[region.c]((tile - offset) / scale)
        mean = filtered[region.core.slices_in(data)] * scale
        mean += offset
        return Estimate(mean)
