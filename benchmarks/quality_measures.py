"""What quality.py measures of a result: against the truth, and without one."""

from __future__ import annotations

from typing import Any

import numpy as np
from quality_columns import Array, Case
from quality_rows import Output
from scipy import ndimage

from n2v_scale.metrics import psnr, ssim
from n2v_scale.residuals import ResidualSums

BAND = 1 / 32
"""Cycles a voxel: so near to 0.5 counts as the Nyquist frequency."""
BACKGROUND = 0.25
"""Of the voxels, the darkest of the smoothed noisy volume."""
SMOOTH, FLAT = (2, 6, 6), (0, 16, 16)
"""Sigmas in voxels: of what is dark, and of what is taken away as uneven light. With less, the
dark quarter is chosen by its noise."""
LAGS = 3
EPSILON = 1e-6
SSIM_SIDE = 11


def measure(output: Output, case: Case) -> dict[str, Any]:
    """Everything that can be said of one output."""
    result = output.values
    planes = slice(output.first, output.first + result.shape[1])
    decibel, peak = checkerboard(result)
    found: dict[str, Any] = {"checkerboard_db": decibel, "nyquist_peak_db": peak}
    sums = (
        ResidualSums.of(a, b.astype(np.float32))
        for a, b in zip(case.noisy[:, planes].astype(np.float32), result, strict=True)
    )
    residual = sum(sums, ResidualSums())
    found["residual"] = residual.correlation
    found["residual_with_signal"] = residual.with_signal
    if case.truth is None:
        return found | background(case.noisy[0], result[0])
    if result.shape != case.truth.shape:
        return found | {"psnr_slab": psnr(result[0], case.truth[0, planes], case.span)}
    return found | against(result, case.truth, case.span, None if case.flat else case.slab)


def against(result: Array, truth: Array, span: float, slab: slice | None) -> dict[str, Any]:
    """PSNR and SSIM, as means over t; ``psnr_slab`` is that of some planes. None for the truth."""
    pairs = list(zip(result, truth, strict=True))
    if all(np.array_equal(a, b) for a, b in pairs):
        return {"psnr": None, "ssim": 1.0}
    found: dict[str, Any] = {"psnr": float(np.mean([psnr(a, b, span) for a, b in pairs]))}
    if min(truth.shape[2:]) >= SSIM_SIDE:
        found["ssim"] = float(np.mean([ssim(a, b, span) for a, b in pairs]))
    if slab is not None:
        found["psnr_slab"] = psnr(result[0, slab], truth[0, slab], span)
    return found


def checkerboard(result: Array) -> tuple[float, float]:
    """Energy at the Nyquist frequencies of Y and X: over all of it, and over what is next to them.

    Both in decibels, by voxels of the spectrum; planes (..., y, x) without their means, under a
    Hann window. The second is about 0 for white noise, below it for what is smooth, and above it
    only where every other voxel differs.
    """
    planes = np.asarray(result, np.float64).reshape(-1, *result.shape[-2:])
    window = np.multiply.outer(*(np.hanning(n + 2)[1:-1] for n in planes.shape[1:]))
    power = np.zeros(planes.shape[1:])
    for plane in planes:
        power += np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2
    fy, fx = (np.abs(np.fft.fftfreq(n)) for n in power.shape)
    most = np.maximum.outer(fy, fx)
    nyquist = most >= 0.5 - BAND
    beside = (most >= 0.5 - 3 * BAND) & ~nyquist
    share = power[nyquist].sum() / power.sum()
    peak = power[nyquist].mean() / power[beside].mean()
    return float(10 * np.log10(share)), float(10 * np.log10(peak))


def background(noisy: Array, result: Array) -> dict[str, Any]:
    """Of the darkest quarter of a volume (z, y, x): its deviation, and how alike X neighbours are.

    Slow changes of its brightness are taken away first, without a look at what is bright.
    ``background_x`` is the correlation at lags 1 to 3 of what is left, and ``background_std`` its
    standard deviation: a result without noise may be alike, but then there is little of it.
    """
    dark = ndimage.gaussian_filter(noisy.astype(np.float32), SMOOTH)
    where = dark <= np.quantile(dark, BACKGROUND)
    known = ndimage.gaussian_filter(where.astype(np.float32), FLAT)
    level = ndimage.gaussian_filter(np.where(where, result, 0).astype(np.float32), FLAT)
    values = np.where(where, result - level / np.maximum(known, EPSILON), 0)
    alike = []
    for lag in range(1, LAGS + 1):
        both = where[..., lag:] & where[..., :-lag]
        left, right = values[..., :-lag][both], values[..., lag:][both]
        scale = np.sqrt(np.square(left).mean() * np.square(right).mean())
        alike.append(float((left * right).mean() / scale) if scale > 0 else 0.0)
    return {"background_std": float(values[where].std()), "background_x": alike}


def middle_slice(output: Output, case: Case) -> Array:
    """The plane that the pictures show, over the PSNR's range, as float16."""
    t, z = (n // 2 for n in case.noisy.shape[:2])
    return np.asarray(output.values[t, z - output.first] / case.span, np.float16)
