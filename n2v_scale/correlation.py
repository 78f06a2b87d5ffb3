"""How alike the noise of neighbouring voxels is, along each axis, and not the signal.

The signal is smooth and noise is not: a mask [1 -2 1] along the *other* axes removes most of the
signal and leaves the noise's correlation along this axis as it is, so white noise gives 0 at every
lag and needs no correction. What is left of the signal is least in quiet cells, so these are looked
at, at every brightness. Choosing by power favours neither sign, so white noise still gives 0; what
it takes from noise that is correlated is known, and given back.

Exact where the noise's correlation is a product of one function an axis, which camera lines,
resampling and smoothing give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.noise import NoiseModel

Array = npt.NDArray[np.float32]

AXES = "zyx"
LAGS = 8
MASK_CORRELATION = 1.944
"""Sum over shifts of the squared correlation of what the mask makes of white noise."""
WIDTH, LENGTH = 8, 16
"""Voxels of a cell across and (at least) along the axis, where there are so many."""
BINS = 16
FEWEST_CELLS = 8
QUIET = 0.25
"""Of the cells of one brightness, the share that is looked at."""
QUIET_MEAN = -1.271
"""Of a normal distribution: the mean of its lowest quarter."""
ITERATIONS = 3
CONFIDENCE = 1.96
WEAK, STRONG = 0.05, 0.15
"""Below the first a lag counts as none; from the second on, a blind spot of one voxel is seen
through: two neighbours with a correlation r predict 2 r² of the noise's variance."""
SURE = 6
"""So many times its error must a correlation be that is believed although it is weak, or although
the noise follows no camera's line."""
PATTERN = 0.1
"""A correlation that stays above this at all long lags repeats: the sensor's pattern, or lines."""
LONG = 4
"""From this lag on."""


@dataclass(frozen=True)
class LineCells:
    """Of the cells of a box, along one axis."""

    mean: Array
    """(n,): brightness."""
    power: Array
    """(n,): mean square of the residual."""
    products: Array
    """(lag, n): mean product of residuals a lag apart; NaN where the axis is too short."""
    length: int
    """Voxels of a cell along the axis."""
    lines: float
    """Independent lines of a cell, where the noise is white across the axis."""


@dataclass(frozen=True)
class AxisCorrelation:
    """Of the noise along one axis; lag 1 first."""

    axis: str
    lags: tuple[float, ...]
    """Empty where the axis is too short to see."""
    errors: tuple[float, ...]
    """Half-widths at 95%: chance, and how much more all cells show, where the signal leaks."""

    @property
    def strongest(self) -> float:
        """Of all lags, by size; the sign is kept."""
        return max(self.lags, key=abs, default=0.0)

    @property
    def pattern(self) -> float:
        """What the correlation stays at, however far apart the voxels are."""
        far = self.lags[LONG - 1 :]
        return max(0.0, min(far)) if far else 0.0

    @property
    def strong(self) -> bool:
        """Whether a network would see the noise in the neighbours along this axis."""
        pairs = zip(self.lags, self.errors, strict=True)
        return any(abs(r) >= STRONG and abs(r) > error for r, error in pairs)

    @property
    def sure(self) -> bool:
        """Whether quiet and busy cells agree, so that it can hardly be the signal's."""
        pairs = zip(self.lags, self.errors, strict=True)
        found = (abs(r) >= SURE * error for r, error in pairs if r == self.strongest)
        return self.reach > 0 and any(found)

    @property
    def reach(self) -> int:
        """The farthest lag that is beyond chance and not negligible."""
        pairs = zip(self.lags, self.errors, strict=True)
        seen = [abs(r) >= WEAK and abs(r) > error for r, error in pairs]
        return max((lag for lag, found in enumerate(seen, 1) if found), default=0)

    @property
    def mask_power(self) -> float:
        """What the mask [1 -2 1] leaves of this noise, over what it leaves of white noise.

        The mask's own correlation is 6, -4, 1 at lags 0, 1, 2.
        """
        first, second = (*self.lags, 0.0, 0.0)[:2]
        return (6 - 8 * first + 2 * second) / 6


def line_cells(values: npt.NDArray[Any], axis: int, across: Sequence[int]) -> LineCells:
    """The cells of a box (z, y, x) along ``axis``, after a mask [1 -2 1] along ``across``.

    Cells with NaN or infinity, and those in which nothing varies, are left out.
    """
    data = values.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        residual = data
        for other in across:
            residual = _second_difference(residual, other)
        inner = tuple(slice(0, n) for n in residual.shape)
        lines = _cut(residual, axis)
        mean = _cut(data[inner], axis).mean(axis=(1, 2))
        power = np.square(lines).mean(axis=(1, 2))
        products = np.full((LAGS, len(lines)), np.nan, np.float32)
        for lag in range(1, min(LAGS, lines.shape[2] // 2) + 1):
            products[lag - 1] = (lines[..., lag:] * lines[..., :-lag]).mean(axis=(1, 2))
    known = np.isfinite(mean) & np.isfinite(power) & (power > 0)
    independent = lines.shape[1] / MASK_CORRELATION ** len(across)
    return LineCells(mean[known], power[known], products[:, known], lines.shape[2], independent)


def _second_difference(data: Array, axis: int) -> Array:
    """Along one axis, which becomes two voxels shorter."""
    moved = np.moveaxis(data, axis, 0)
    return np.moveaxis(moved[:-2] - 2 * moved[1:-1] + moved[2:], 0, axis)


def _cut(data: Array, axis: int) -> Array:
    """Cells as (cell, line, voxel along the axis); what is left over is left out."""
    moved = np.moveaxis(data, axis, 2)
    counts = [max(1, n // k) for n, k in zip(moved.shape, (WIDTH, WIDTH, LENGTH), strict=True)]
    sizes = [n // k for n, k in zip(moved.shape, counts, strict=True)]
    whole = tuple(slice(0, n * k) for n, k in zip(counts, sizes, strict=True))
    cut = moved[whole].reshape([n for pair in zip(counts, sizes, strict=True) for n in pair])
    lines = cut.transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(lines).reshape(-1, sizes[0] * sizes[1], sizes[2])


def axis_correlation(axis: str, boxes: Sequence[LineCells]) -> AxisCorrelation:
    """Along one axis, from the quiet cells of all boxes; no lags where there are too few."""
    boxes = _longest([box for box in boxes if box.power.size])
    if sum(box.power.size for box in boxes) < FEWEST_CELLS:
        return AxisCorrelation(axis, (), ())
    mean = np.concatenate([box.mean for box in boxes])
    power = np.concatenate([box.power for box in boxes]).astype(np.float64)
    products = np.concatenate([box.products for box in boxes], axis=1).astype(np.float64)
    quiet, chance = _ratios(mean, power, products, QUIET)
    everywhere, _ = _ratios(mean, power, products, 1.0)
    leaked = np.maximum(0, np.abs(everywhere) - np.abs(quiet))
    found = _unselected(quiet, max(boxes, key=lambda box: box.power.size))
    # Nothing was selected of all cells: what they show bounds what the selection took.
    found = np.clip(found, np.minimum(quiet, everywhere), np.maximum(quiet, everywhere))
    errors = CONFIDENCE * chance + leaked
    return AxisCorrelation(axis, tuple(found.tolist()), tuple(errors.tolist()))


def _longest(boxes: Sequence[LineCells]) -> list[LineCells]:
    """The boxes in which the most lags are seen, with these: what ends at a face may be thin."""
    lags = [int(np.isfinite(box.products).all(axis=1).sum()) for box in boxes]
    most = max(lags, default=0)
    return [
        replace(box, products=box.products[:most])
        for box, seen in zip(boxes, lags, strict=True)
        if seen == most and most
    ]


def _ratios(
    mean: Array, power: npt.NDArray[Any], products: npt.NDArray[Any], share: float
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Correlation at each lag over the quietest ``share`` of each brightness, and its deviation.

    Each brightness is divided by its own power: dark and bright cells count alike.
    """
    bins = np.array_split(np.argsort(mean), max(1, min(BINS, mean.size // FEWEST_CELLS)))
    scale = np.zeros_like(power)
    for members in bins:
        quiet = members[power[members] <= np.quantile(power[members], share)]
        scale[quiet] = 1 / power[quiet].mean()
    chosen = scale > 0
    weighted, total = products[:, chosen] * scale[chosen], power[chosen] * scale[chosen]
    ratio = weighted.sum(axis=1) / total.sum()
    scatter = weighted - ratio[:, None] * total
    return ratio, np.sqrt(np.square(scatter).sum(axis=1)) / total.sum()


def _unselected(found: npt.NDArray[Any], cells: LineCells) -> npt.NDArray[Any]:
    """The correlation of all noise, from that of the quietest quarter of its cells.

    By chance, cells of correlated noise that have little power have little correlation: at a lag h
    the product grows with the power by ``b = sum r(k) r(k+h) / sum r(k)²``, and the power of a cell
    scatters by ``sqrt(2 sum r(k)² / voxels)`` (Bartlett's formula). White noise stays as it is.
    """
    length = cells.length
    lags = range(1, found.size + 1)
    taper = 1 - np.abs(np.arange(-length + 1, length)) / length
    true = found
    for _ in range(ITERATIONS):
        rest = max(0.0, true[LONG - 1 :].min()) if true.size >= LONG else 0.0
        one_side = np.concatenate([true, np.full(2 * length, rest)])
        far = np.concatenate([one_side[::-1], [1.0], one_side])
        middle = far.size // 2
        near = far[middle - length + 1 : middle + length]
        squares = float((taper * near**2).sum())
        power = 1 + QUIET_MEAN * np.sqrt(2 * squares / (cells.lines * length))
        apart = [np.roll(far, -lag)[middle - length + 1 : middle + length] for lag in lags]
        slope = (taper * near * apart).sum(axis=1) / squares
        true = np.clip(found * power - slope * (power - 1), -1, 1) if power > 0 else found
    return true


def corrected(noise: NoiseModel, along: Sequence[AxisCorrelation]) -> NoiseModel:
    """The noise as it is, from what the mask [1 -2 1] x [1 -2 1] in y and x made of it.

    That mask takes noise that is correlated for less than it is; the line through the cells keeps
    its place, and its height is divided by what the mask has left.
    """
    left = 1.0
    for found in along:
        if found.axis in "yx" and (found.strong or found.sure):
            left *= max(found.mask_power, LEAST_LEFT)
    return NoiseModel(noise.gain / left, noise.offset, noise.read_noise / left**0.5, noise.misfit)


LEAST_LEFT = 0.02
"""Of the noise's variance: where less is left, nothing can be said of what was."""
