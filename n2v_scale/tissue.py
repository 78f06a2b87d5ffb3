"""What a simulated light-sheet volume shows: cells, nuclei, fine structure, and shadows.

Emission is relative: 1 is the bright part of an average nucleus. Positions are in µm. Everything
is a function of position, so that a volume can be rendered in boxes that fit together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from n2v_scale.geometry import Box, Shape, as_shape

Float = NDArray[np.float32]
Micrometres = tuple[float, float, float]
"""Lengths along (z, y, x), in µm."""

_LAYOUT_STREAM, _NUCLEUS_STREAM, _POINT_STREAM, _STRIPE_STREAM = 1, 2, 3, 4
_CELL_UM = 10.0  # mean distance of neighbouring cells
_REACH_UM = 1.5 * _CELL_UM  # a cell's borders lie within this distance of its centre
_NUCLEUS_REACH_UM = 10.0
_MEMBRANE_UM = 0.25
_SURFACE_UM = 0.8
_PATH_STEP_UM, _PATH_STEPS = 0.2, 400


@dataclass(frozen=True)
class Waves:
    """Smooth random function of position: plane waves of random direction, mean 0, variance 1."""

    vectors: NDArray[np.float32]  # (wave, 3), radians per µm
    phases: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength_um: float, count: int = 6) -> Waves:
        """Draw waves of 0.7 to 1.6 times a wavelength."""
        vectors = _directions(rng, count) / rng.uniform(0.7, 1.6, (count, 1)) / wavelength_um
        phases = rng.uniform(0, 2 * np.pi, count)
        return cls((2 * np.pi * vectors).astype(np.float32), phases.astype(np.float32))

    def __call__(self, z: Float, y: Float, x: Float) -> Float:
        """Return the function at positions in µm that broadcast."""
        total = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), np.float32)
        for (kz, ky, kx), phase in zip(self.vectors, self.phases, strict=True):
            total += np.sin((kz * z + phase) + ky * y + kx * x)
        total *= np.float32(math.sqrt(2 / len(self.phases)))
        return total


class Tissue:
    """One piece of tissue in empty space; the same arguments give the same piece.

    Parameters
    ----------
    shape
        Voxels along (z, y, x) of the volume that it is placed in.
    voxel_size
        Distance of the voxels in µm.
    seed
        Seed of everything random.
    """

    def __init__(self, shape: Shape, voxel_size: Micrometres, seed: int) -> None:
        rng = np.random.default_rng([seed, _LAYOUT_STREAM])
        self.shape, self.voxel_size, self.seed = shape, voxel_size, seed
        self.extent = [n * v for n, v in zip(shape, voxel_size, strict=True)]
        self.surface = Waves.draw(rng, 45.0)
        self.bend = Waves.draw(rng, 12.0)
        self.glow = Waves.draw(rng, 60.0)
        self.centres = _cell_centres(self.extent, rng)
        self.levels = rng.lognormal(0, 0.35, len(self.centres)).astype(np.float32)
        self.bends = rng.uniform(-9, 9, len(self.centres)).astype(np.float32)  # µm²
        self.chromatin = _chromatin(voxel_size, rng)

    def coordinates(self, box: Box) -> tuple[Float, Float, Float]:
        """Positions of the voxels' centres, shaped to broadcast over the box."""
        z, y, x = (
            ((np.arange(a, b) + 0.5) * v).astype(np.float32)
            for a, b, v in zip(box.start, box.stop, self.voxel_size, strict=True)
        )
        return z[:, None, None], y[:, None], x

    def depth(self, z: Float, y: Float, x: Float) -> Float:
        """Approximate distance to the tissue's surface in µm; negative outside."""
        bumps = self.surface(z, y, x)
        radius = [f * e for f, e in zip((1.0, 0.62, 0.66), self.extent, strict=True)]
        centre = [f * e for f, e in zip((0.65, 0.42, 0.60), self.extent, strict=True)]
        z, y, x = (((p - c) / r) ** 2 for p, c, r in zip((z, y, x), centre, radius, strict=True))
        scale = np.float32(min(radius[1:]))
        # Waves of at most 4 µm: larger ones would cut islands off a large sample.
        depth: Float = scale * (1 - np.sqrt(z + y + x)) + min(0.05 * scale, np.float32(4)) * bumps
        return depth

    def cells(self, box: Box) -> Float:
        """Emission of membranes, cytoplasm, nuclei and autofluorescence in a box."""
        # One more plane on either side: the membrane's slope along z is a central difference.
        border, level = self.borders(box.expand(((1, 1), (0, 0), (0, 0))))
        slope = np.abs(border[2:] - border[:-2]) / 2
        z, y, x = self.coordinates(box)
        depth = self.depth(z, y, x)
        emission = (0.75 * _membrane(border[1:-1], slope) + 0.07) * level[1:-1]
        emission += 0.03 * (1 + 0.4 * self.glow(z, y, x))
        emission *= _step(depth / _SURFACE_UM)
        emission += 0.30 * np.exp(-((depth / _SURFACE_UM) ** 2))  # the outermost membrane
        emission += 0.01 + 0.05 * _step(depth / 9.0)  # light scattered around the tissue
        for index in self.near(box, _NUCLEUS_REACH_UM):
            self._add_nucleus(emission, box, int(index))
        return emission

    def near(self, box: Box, reach_um: float) -> NDArray[np.intp]:
        """List the cells whose centre lies within ``reach_um`` of the box, per axis."""
        voxel = np.array(self.voxel_size)
        low, high = (np.array(box.start) - 1) * voxel, (np.array(box.stop) + 1) * voxel
        inside = (self.centres > low - reach_um) & (self.centres < high + reach_um)
        return np.flatnonzero(inside.all(axis=1))

    def around(self, centre: NDArray[np.float64], radius_um: float, box: Box) -> Box:
        """Voxels of ``box`` within ``radius_um`` of a position, per axis."""
        voxel = np.array(self.voxel_size)
        start = np.floor((centre - radius_um) / voxel).astype(int)
        stop = np.ceil((centre + radius_um) / voxel).astype(int)
        return Box(as_shape(start.tolist()), as_shape(stop.tolist())).intersect(box)

    def borders(self, box: Box) -> tuple[Float, Float]:
        """Distance to the nearest cell border (µm), and the level of the cell a voxel lies in.

        The borders are those of Voronoi cells, bent by a smooth field so that none is flat.
        """
        first = np.full(box.shape, 4 * _REACH_UM**2, np.float32)
        second, level = first.copy(), np.ones(box.shape, np.float32)
        bend = self.bend(*self.coordinates(box))
        for index in self.near(box, _REACH_UM):
            local = self.around(self.centres[index], _REACH_UM, box)
            at = local.slices_in(box)
            z, y, x = (p**2 for p in self._from(self.centres[index], local))
            square = self.bends[index] * bend[at] + z + y + x
            np.copyto(level[at], self.levels[index], where=square < first[at])
            np.minimum(second[at], np.maximum(first[at], square), out=second[at])
            np.minimum(first[at], square, out=first[at])
        return (second - first) / np.float32(2 * _CELL_UM), level

    def _from(self, centre: NDArray[np.float64], box: Box) -> tuple[Float, Float, Float]:
        """Coordinates of a box, relative to a position."""
        z, y, x = self.coordinates(box)
        return z - np.float32(centre[0]), y - np.float32(centre[1]), x - np.float32(centre[2])

    def _add_nucleus(self, emission: Float, box: Box, index: int) -> None:
        """Add the nucleus of a cell, or its chromosomes where it divides."""
        rng = np.random.default_rng([self.seed, _NUCLEUS_STREAM, index])
        centre = self.centres[index] + rng.uniform(-0.8, 0.8, 3)
        z, y, x = centre.astype(np.float32)[:, None]
        if self.depth(z, y, x)[0] < 3:
            return
        turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        brightness, phase = rng.lognormal(0, 0.3), rng.integers(0, 1000, 3)
        if rng.random() < 0.07:
            plate = np.array([0.8, 2.4, 3.2])
            apart = turn[0] * rng.choice([1.6, 2.4])
            for side in (-apart, apart):
                self._add_chromatin(
                    emission, box, centre + side, turn, plate, 2 * brightness, phase
                )
        else:
            axes = rng.uniform(2.6, 4.2) * np.array([0.85, 1.0, 1.2])
            self._add_chromatin(emission, box, centre, turn, axes, brightness, phase)

    def _add_chromatin(
        self,
        emission: Float,
        box: Box,
        centre: NDArray[np.float64],
        turn: NDArray[np.float64],
        axes: NDArray[np.float64],
        brightness: float,
        phase: NDArray[np.int64],
    ) -> None:
        """Add an ellipsoid with semi-axes ``axes`` (µm): textured, and denser at the rim."""
        local = self.around(centre, float(axes.max()) + 1, box)
        if local.size == 0:
            return
        z, y, x = self._from(centre, local)
        rows = (turn / axes[:, None]).astype(np.float32)
        u, v, w = ((a * z + b * y + c * x) ** 2 for a, b, c in rows)
        radius = np.sqrt(u + v + w)
        inside = np.clip((1 - radius) * np.float32(axes.mean() / 0.8) + 0.5, 0, 1)
        rim = 0.2 * np.exp(-(((radius - 0.85) / 0.15) ** 2))
        texture = self._texture(local, phase)
        emission[local.slices_in(box)] += np.float32(brightness) * inside * (texture + rim)

    def _texture(self, box: Box, phase: NDArray[np.int64]) -> Float:
        """Chromatin's texture in a box, shifted by ``phase`` voxels."""
        z, y, x = (
            (np.arange(a, b) + p) % n
            for a, b, p, n in zip(box.start, box.stop, phase, self.chromatin.shape, strict=True)
        )
        return self.chromatin[np.ix_(z, y, x)]

    def add_fine_structure(self, light: Float) -> None:
        """Add neurites and granules, far thinner than a voxel, to the whole volume in place."""
        rng = np.random.default_rng([self.seed, _POINT_STREAM])
        volume_um3 = math.prod(self.extent)
        paths = _paths(self.extent, math.ceil(volume_um3 / 12_000), rng)
        strength = rng.lognormal(0, 0.4, (len(paths), 1)) * np.ones(_PATH_STEPS)
        self._add_points(light, paths.reshape(-1, 3), 1.3 * _PATH_STEP_UM * strength.reshape(-1))
        granules = rng.uniform(0, self.extent, (math.ceil(volume_um3 / 250), 3))
        self._add_points(light, granules, 1.2 * rng.lognormal(0, 0.6, len(granules)))

    def _add_points(
        self, light: Float, points: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> None:
        """Add points (n, 3) of ``weights`` (µm³), each shared by its eight nearest voxels."""
        z, y, x = points.astype(np.float32).T
        inside = self.depth(z, y, x) > 0
        voxel = np.array(self.voxel_size)
        position = points[inside] / voxel - 0.5
        corner = np.floor(position).astype(int)
        share, weight = position - corner, weights[inside] / voxel.prod()
        for step in np.ndindex(2, 2, 2):
            index = corner + step
            part = np.where(step, share, 1 - share).prod(axis=1) * weight
            hit = ((index >= 0) & (index < light.shape)).all(axis=1)
            np.add.at(light, tuple(index[hit].T), part[hit].astype(np.float32))

    def attenuate(self, light: Float, loss: float) -> None:
        """Dim the whole volume in place by the tissue that the light has to cross.

        The light sheet comes from ``x = 0``, in stripes; the objective looks from ``z = 0``.
        ``loss`` is the fraction that is lost along each of these axes from face to face.
        """
        per_plane, per_column = (
            -math.log1p(-loss) / self.shape[0],
            -math.log1p(-loss) / self.shape[2],
        )
        above = np.zeros(self.shape[1:], np.float32)
        for index, plane in enumerate(light):
            box = Box((index, 0, 0), (index + 1, *self.shape[1:]))
            tissue = _step(self.depth(*self.coordinates(box))[0] / _SURFACE_UM)
            above += np.float32(per_plane) * tissue
            crossed = np.cumsum(tissue, axis=1) * np.float32(self.voxel_size[2])  # µm
            before = crossed * np.float32(per_column / self.voxel_size[2])
            shadow = self.stripes[index][:, None] * _step(crossed / 5.0 - 2.0)
            plane *= np.exp(-above - before - shadow)

    @cached_property
    def stripes(self) -> Float:
        """Optical depth (z, y) of what stands in the light sheet's way before a row of voxels."""
        rng = np.random.default_rng([self.seed, _STRIPE_STREAM])
        noise = rng.standard_normal(self.shape[:2]).astype(np.float32)
        sigma = 4 / self.voxel_size[0], 1.2 / self.voxel_size[1]
        smooth = ndimage.gaussian_filter(noise, sigma, mode="nearest")
        smooth *= np.float32(math.sqrt(4 * math.pi * sigma[0] * sigma[1]))  # back to variance 1
        stripes: Float = np.float32(0.09) * (np.maximum(smooth, -1) + 1)
        return stripes


def _directions(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Random directions (count, 3)."""
    return _unit(rng.standard_normal((count, 3)))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """``vectors`` (..., 3) at length 1."""
    units: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return units


def _cell_centres(extent: list[float], rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (cell, 3) of the cells: a staggered lattice, jittered, beyond every face."""
    ranges = [np.arange(-_REACH_UM, e + _REACH_UM, _CELL_UM) for e in extent]
    lattice = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1)
    lattice[::2, :, :, 1:] += _CELL_UM / 2
    lattice[:, ::2, :, 2] += _CELL_UM / 2
    jitter = rng.uniform(-0.28, 0.28, lattice.shape) * _CELL_UM
    centres: NDArray[np.float64] = (lattice + jitter).reshape(-1, 3)
    return centres


def _membrane(border: Float, slope: Float) -> Float:
    """Brightness of a membrane at a distance ``border`` (µm) from its middle.

    ``slope`` is the change of that distance from plane to plane: a membrane that lies flat is
    spread over the plane's thickness and dims as much, instead of being hit or missed.
    """
    width = np.sqrt(_MEMBRANE_UM**2 + (0.8 * slope) ** 2)
    brightness: Float = np.exp(-((border / width) ** 2)) * (_MEMBRANE_UM / width)
    return brightness


def _step(value: Float) -> Float:
    """0 far below zero, 1 far above it, smooth between."""
    step: Float = np.tanh(value)
    return np.float32(0.5) * (step + np.float32(1))


def _chromatin(voxel_size: Micrometres, rng: np.random.Generator) -> Float:
    """Periodic texture (z, y, x) of mean about 0.6: fine clumps, and dark nucleoli."""
    fine, coarse = (_clumps(rng, [um / v for v in voxel_size]) for um in (0.45, 1.0))
    nucleoli = _step(3.0 * coarse - 4.0)
    texture: Float = np.maximum(0.62 + 0.24 * fine, 0.1) * (1 - 0.75 * nucleoli)
    return texture


def _clumps(rng: np.random.Generator, sigma: list[float]) -> Float:
    """Periodic smooth noise (48, 96, 96) of mean 0 and variance 1; ``sigma`` in voxels."""
    noise = rng.standard_normal((48, 96, 96)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    clumps: Float = (smooth - smooth.mean()) / smooth.std()
    return clumps


def _paths(extent: list[float], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth random curves (path, step, 3)."""
    start = rng.uniform(0, extent, (count, 3))
    turns = np.cumsum(0.05 * rng.standard_normal((count, _PATH_STEPS, 3)), axis=1)
    direction = _unit(_directions(rng, count)[:, None] + turns)
    paths: NDArray[np.float64] = start[:, None] + np.cumsum(_PATH_STEP_UM * direction, axis=1)
    return paths
