"""The columns of quality.py: noisy data, and what is known of it.

``simulated``
    A light-sheet volume as the demo's.
``atlas-40``, ``atlas-160``, ``atlas-400``, ``strong``
    The crop [60:156, 0:192, 8:264] of a mouse brain without noise, so many electrons (the 99.9th
    percentile; of ``strong``, 8), with Poisson noise and read noise of 2.5 electrons; the PSNR's
    range is the number of electrons.
``lines-40``
    The same with noise of the same variance that is alike along X, 0.44 from voxel to voxel.
``bsd68``
    68 photographs (481 x 321, the wide ones turned) with Gaussian noise of 25, unclipped; the
    PSNR's range is 255, and its mean over the images is given.
Real volumes, by the names of their files
    Noisy and no more: at most 64 x 256 x 256 from the middle.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter
from skimage.io import imread

from n2v_scale.api import open_volume
from n2v_scale.geometry import Box
from n2v_scale.simulate import simulate_light_sheet

Array = np.ndarray[Any, Any]
Sizes = tuple[int, int, int]

ATLAS = {"atlas-40": 40.0, "atlas-160": 160.0, "atlas-400": 400.0, "strong": 8.0}
REAL = (
    "mousebrain_signal",
    "lateralroot_nuclei_lightsheet",
    "organoid_lowsnr",
    "ovule_nuclei_confocal",
    "chromosomes",
    "nuclear_envelope",
    "dendrite_correlated_noise",
)
COLUMNS = ("simulated", *ATLAS, "lines-40", "bsd68", *REAL)

CROP = (slice(60, 156), slice(0, 192), slice(8, 264))
READ_NOISE = 2.5
LEAK = 0.6
"""Of a voxel's noise into the next along X, in ``lines``."""
SIMULATED: Sizes = (48, 192, 192)
REAL_SIZES: Sizes = (64, 256, 256)
IMAGE_NOISE = 25.0
SLAB = (30, 62)
"""Planes of the crop that methods which take hours for all of it are compared on."""


DATA = Path(os.environ["N2V_SCALE_DATA"]) if "N2V_SCALE_DATA" in os.environ else None
"""The folder of real images that the tests take."""


@dataclass(frozen=True)
class Case:
    """The data of a column: arrays (t, z, y, x), volumes having a single t."""

    noisy: Array
    span: float
    """Range of the PSNR."""
    truth: Array | None = None
    other: Array | None = None
    """A second capture."""
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    read_noise: float | None = None
    """In electrons, where the values are electrons of a camera."""

    @property
    def flat(self) -> bool:
        """Whether these are images without depth."""
        return bool(self.noisy.shape[1] == 1)

    @property
    def slab(self) -> slice:
        """Planes that slow methods are compared on: of a smaller volume, its middle third."""
        depth = self.noisy.shape[1]
        low, high = SLAB if depth == CROP[0].stop - CROP[0].start else (depth // 3, 2 * depth // 3)
        return slice(low, max(high, low + 1))


def sizes(text: str) -> Sizes:
    """``16,64,64`` as numbers."""
    z, y, x = (int(part) for part in text.split(","))
    return z, y, x


def kind_of(column: str) -> str:
    """What rows must fit: ``simulated``, ``atlas``, ``lines``, ``images`` or ``real``."""
    if column in ATLAS:
        return "atlas"
    return {"simulated": "simulated", "lines-40": "lines", "bsd68": "images"}.get(column, "real")


def missing(column: str, data: Path | None) -> str | None:
    """Which file is not there that a column is made from."""
    if column == "simulated":
        return None
    if data is None:
        return "--data"
    file = _source(column, data)
    return None if file.exists() else str(file)


def _source(column: str, data: Path) -> Path:
    if column == "bsd68":
        return data / "images" / "BSD68"
    name = column if kind_of(column) == "real" else "mousebrain_atlas_clean"
    return data / "volumes" / f"{name}.tif"


def make_case(column: str, data: Path | None, seed: int, crop: Sizes | None = None) -> Case:
    """The column's data, noise by ``seed``; ``crop`` takes at most so much of it, for a look."""
    if column == "simulated":
        return _simulated(seed, crop)
    assert data is not None
    source = _source(column, data)
    if column == "bsd68":
        return _images(source, seed, crop)
    if kind_of(column) == "real":
        return _real(source, crop)
    return _atlas(source, column, seed, crop)


def _simulated(seed: int, crop: Sizes | None) -> Case:
    made = simulate_light_sheet(shape=_smaller(SIMULATED, crop), seed=seed)
    other = made.parameters.camera.expose(made.clean, seed + 1000)
    size = made.parameters.voxel_size
    return Case(made.noisy[None], made.data_range, made.clean[None], other[None], size)


def _atlas(source: Path, column: str, seed: int, crop: Sizes | None) -> Case:
    electrons = ATLAS.get(column, 40.0)
    raw = np.maximum(tifffile.imread(source).astype(np.float64), 0)
    truth = _middle((raw * electrons / np.percentile(raw, 99.9))[CROP], crop)
    noise = _lines if column.startswith("lines") else _camera
    first, second = (
        noise(truth, np.random.default_rng((seed, number) if number else seed)).astype(np.float32)
        for number in range(2)
    )
    read_noise = None if noise is _lines else READ_NOISE
    clean = truth.astype(np.float32)[None]
    return Case(first[None], electrons, clean, second[None], read_noise=read_noise)


def _camera(truth: Array, rng: np.random.Generator) -> Array:
    return np.asarray(rng.poisson(truth) + rng.normal(0, READ_NOISE, truth.shape))


def _lines(truth: Array, rng: np.random.Generator) -> Array:
    z, y, x = truth.shape
    white = rng.normal(0, 1, (z, y, x + 1))
    alike = (white[..., 1:] + LEAK * white[..., :-1]) / np.sqrt(1 + LEAK**2)
    return np.asarray(truth + np.sqrt(truth + READ_NOISE**2) * alike)


def _images(source: Path, seed: int, crop: Sizes | None) -> Case:
    photographs = [imread(file).astype(np.float32) for file in sorted(source.glob("*.png"))]
    upright = [image if image.shape[0] > image.shape[1] else image.T for image in photographs]
    truth = np.stack(upright)[:, None]
    if crop is not None:
        truth = truth[: crop[0], :, : crop[1], : crop[2]]
    first, second = (
        (truth + np.random.default_rng((seed, n)).normal(0, IMAGE_NOISE, truth.shape)).astype("f4")
        for n in range(2)
    )
    return Case(first, 255.0, truth, second)


def _real(source: Path, crop: Sizes | None) -> Case:
    """The PSNR's range, for estimates, is that of the smoothed volume: the same for every row."""
    volume = open_volume(source)
    whole = volume.read(0, 0, Box.whole(volume.spatial_shape))
    noisy = _middle(whole, _smaller(REAL_SIZES, crop))
    low, high = np.percentile(gaussian_filter(noisy.astype(np.float32), 1), (0.1, 99.9))
    return Case(noisy[None], float(high - low), voxel_size=volume.voxel_size)


def _smaller(shape: Sizes, crop: Sizes | None) -> Sizes:
    z, y, x = (min(n, most) for n, most in zip(shape, crop or shape, strict=True))
    return z, y, x


def _middle(values: Array, sizes: Sizes | None) -> Array:
    """At most so much, from the middle."""
    if sizes is None:
        return values
    starts = [max(0, n - most) // 2 for n, most in zip(values.shape, sizes, strict=True)]
    return values[tuple(slice(a, a + most) for a, most in zip(starts, sizes, strict=True))]
