"""Fourier shell correlation: how alike two captures of the same are, frequency by frequency.

With the Fourier transforms A and B of the two, over the frequencies f of a shell (Harauz and van
Heel 1986)::

    FSC = sum A(f) B*(f) / sqrt(sum |A(f)|² sum |B(f)|²)

Signal is in both, noise that is independent is not. Where the FSC of two captures is 1/7, the
correlation of their mean with the truth is sqrt(2 FSC / (1 + FSC)) = 0.5, which is where its
resolution is said to end (Rosenthal and Henderson 2003, J. Mol. Biol. 333, 721).

Shells are spheres in physical frequency, whatever the voxels' proportions. Frequencies within 20
degrees of the plane are summed by themselves too, by how far they lie from the Z axis, and those
within 30 degrees of the Z axis by how far they lie from the plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi, prod, radians, tan
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft

from n2v_scale.geometry import Shape

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]
"""From voxel to voxel along (z, y, x)."""

THRESHOLD = 1 / 7
PLANE, CONE = 20.0, 30.0
"""Degrees to either side of the plane, and around the Z axis."""
BESIDE = 1.5
"""Shells of the plane that are taken around the Z axis at least, where the cone is thinner."""
FEWEST_MODES = (3 / THRESHOLD) ** 2
"""Independent frequencies of a shell: with so many, chance reaches the threshold at 3 sigma."""
HANN_SHARE = (3 / 8) ** 2 / (35 / 128)
"""Of the frequencies along an axis, how many a Hann window leaves independent."""
RISES = 2 * THRESHOLD
"""What the correlation must come back to, beyond the resolution, to be spoken of."""


@dataclass(frozen=True)
class ShellSums:
    """Sums over shells of boxes of one shape; those of two boxes add up."""

    parts: dict[str, npt.NDArray[np.float64]]
    """By direction (3, shells): the real part of A B*, |A|² and |B|²."""

    @classmethod
    def of(cls, a: Array, b: Array, spacing: Spacing) -> ShellSums:
        """Of one box (z, y, x) of either capture, under a Hann window and without its mean."""
        one, other = (fft.rfftn(_windowed(values)) for values in (a, b))
        products = (
            one.real * other.real + one.imag * other.imag,
            one.real**2 + one.imag**2,
            other.real**2 + other.imag**2,
        )
        grids = shell_grids(a.shape, spacing)
        return cls(
            {name: np.stack([grid.summed(p) for p in products]) for name, grid in grids.items()}
        )

    def __add__(self, other: ShellSums) -> ShellSums:
        return ShellSums({name: part + other.parts[name] for name, part in self.parts.items()})


@dataclass(frozen=True)
class ShellGrid:
    """Which shell each frequency of a box belongs to."""

    index: npt.NDArray[np.int32]
    """As numpy's ``rfftn`` lays frequencies out; -1 where it belongs to none."""
    weight: npt.NDArray[np.float32]
    """Along X: 2 where the conjugate frequency is not stored."""
    shells: int
    width: float
    """Of a shell, in cycles per unit of length; the first is one width out."""

    def summed(self, values: Array) -> npt.NDArray[np.float64]:
        """Over each shell."""
        known = self.index >= 0
        weighted = (values * self.weight)[known]
        sums = np.bincount(self.index[known], weighted, minlength=self.shells)
        return sums.astype(np.float64, copy=False)


@lru_cache(maxsize=4)
def shell_grids(shape: tuple[int, ...], spacing: Spacing) -> dict[str, ShellGrid]:
    """The shells of boxes of one shape, by direction: each as wide as the box resolves along it."""
    lines = [np.fft.fftfreq(n, d) for n, d in zip(shape[:2], spacing[:2], strict=True)]
    lines.append(np.fft.rfftfreq(shape[2], spacing[2]))
    z, y, x = np.meshgrid(*(np.abs(line) for line in lines), indexing="ij", sparse=True)
    weight = np.full(lines[2].size, 2, np.float32)
    weight[0] = 1
    if shape[2] % 2 == 0:
        weight[-1] = 1
    flat = np.hypot(y, x)
    fine, deep = 1 / min(n * d for n, d in zip(shape[1:], spacing[1:], strict=True)), 1.0
    lengths = {"all": (np.hypot(z, flat), fine, np.ones((1, 1, 1), bool))}
    if shape[0] > 1:
        deep = 1 / (shape[0] * spacing[0])
        lengths["xy"] = flat, fine, z <= tan(radians(PLANE)) * flat
        around = np.maximum(tan(radians(CONE)) * z, BESIDE * fine)
        lengths["z"] = z, deep, flat <= around
    grids = {}
    for name, (length, width, there) in lengths.items():
        shells = max(1, int(nyquist(name, shape, spacing) / width * (1 + 1e-9)))
        number = np.rint(length / width) - 1
        index = np.where(there & (number >= 0) & (number < shells), number, -1)
        grids[name] = ShellGrid(index.astype(np.int32), weight, shells, width)
    return grids


def nyquist(direction: str, shape: tuple[int, ...], spacing: Spacing) -> float:
    """The highest frequency that the voxels hold along a direction, in cycles per unit.

    Of all directions together that of the finest axis; in the plane that of the coarser one.
    """
    sides = [d for n, d in zip(shape, spacing, strict=True) if n > 1] or [1.0]
    chosen = {"all": min(sides), "xy": max(spacing[1:]), "z": spacing[0]}[direction]
    return 1 / (2 * chosen)


def _windowed(values: Array) -> npt.NDArray[np.float32]:
    window = np.ones((1, 1, 1), np.float32)
    for axis, n in enumerate(values.shape):
        hann = np.sin(pi * (np.arange(n) + 0.5) / n) ** 2
        window = window * np.expand_dims(hann.astype(np.float32), tuple({0, 1, 2} - {axis}))
    data = values.astype(np.float32)
    mean = np.float32((data * window).sum(dtype=np.float64) / window.sum(dtype=np.float64))
    windowed: npt.NDArray[np.float32] = (data - mean) * window
    return windowed


@dataclass(frozen=True)
class ShellCurve:
    """The correlation along one direction; shells of too few frequencies are joined."""

    frequency: tuple[float, ...]
    """Middle of each shell, in cycles per unit; empty where there are too few voxels to tell."""
    correlation: tuple[float, ...]
    modes: tuple[float, ...]
    """Independent frequencies of each: chance scatters the correlation by their inverse root."""
    nyquist: float

    @property
    def crossing(self) -> float | None:
        """Frequency at which it first falls below 1/7, between shells by a straight line; None
        where it never does, or was never above.
        """
        for k in range(1, len(self.correlation)):
            high, low = self.correlation[k - 1 : k + 1]
            if high >= THRESHOLD > low:
                step = (high - THRESHOLD) / (high - low)
                return self.frequency[k - 1] + step * (self.frequency[k] - self.frequency[k - 1])
        return None

    @property
    def outcome(self) -> str:
        """``resolved``; ``beyond`` the voxels, where it stays above; ``nothing`` in common, where
        it is below from the start; ``unknown`` where there are too few voxels.
        """
        if not self.correlation:
            return "unknown"
        if self.correlation[0] < THRESHOLD:
            return "nothing"
        return "beyond" if self.crossing is None else "resolved"

    @property
    def resolution(self) -> float | None:
        """Length of a cycle at the crossing; where it stays above, the shortest there can be."""
        if self.outcome == "beyond":
            return 1 / self.nyquist
        return None if self.crossing is None else 1 / self.crossing

    @property
    def rises_at(self) -> float | None:
        """Frequency beyond the resolution at which the two are alike again."""
        for frequency, value in zip(self.frequency, self.correlation, strict=True):
            if self.crossing is not None and frequency > self.crossing and value > RISES:
                return frequency
        return None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "outcome": self.outcome,
            "resolution": self.resolution,
            "nyquist": self.nyquist,
            "frequency": list(self.frequency),
            "correlation": list(self.correlation),
            "modes": list(self.modes),
        }


def shell_curves(
    sums: ShellSums, shape: Shape, spacing: Spacing, *, boxes: int, voxels: int
) -> dict[str, ShellCurve]:
    """The correlation along every direction that a volume has.

    Parameters
    ----------
    sums
        Over all boxes.
    shape
        Of one box.
    spacing
        Of its voxels.
    boxes, voxels
        How many boxes there are, and how many voxels the volume has that they were cut from:
        where boxes overlap, they say less.
    """
    window = prod(HANN_SHARE for n in shape if n > 2)
    share = min(boxes * window, voxels / prod(shape))
    curves = {}
    for name, grid in shell_grids(shape, spacing).items():
        modes = share * grid.summed(np.ones(grid.index.shape, np.float32))
        frequency = grid.width * np.arange(1, grid.shells + 1)
        rows = np.stack([*sums.parts[name], modes, frequency * modes])
        curves[name] = _curve(rows, nyquist(name, shape, spacing))
    return curves


def _curve(rows: Array, limit: float) -> ShellCurve:
    joined = _joined(rows)
    return ShellCurve(
        tuple(float(weighted / modes) for *_, modes, weighted in joined),
        tuple(float(cross / np.sqrt(a * b)) if a * b > 0 else 0.0 for cross, a, b, *_ in joined),
        tuple(float(modes) for *_, modes, _ in joined),
        limit,
    )


def _joined(rows: Array) -> list[Array]:
    """Columns summed from the lowest frequency on until each has enough modes; the rest joins the
    last of them.
    """
    found: list[Array] = []
    open_sum = np.zeros(len(rows))
    for column in rows.T:
        open_sum = open_sum + column
        if open_sum[3] >= FEWEST_MODES:
            found.append(open_sum)
            open_sum = np.zeros(len(rows))
    if found and open_sum[3] > 0:
        found[-1] = found[-1] + open_sum
    return found
