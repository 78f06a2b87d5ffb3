"""Which arithmetic a device is fastest with, where the result hardly changes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from n2v_scale.denoiser import Estimate, OpenOptions, Region, open_denoiser, tile_boxes
from n2v_scale.geometry import Box, as_shape, round_down
from n2v_scale.io.volume import Volume

FULL = "float32"
HALVES = ("float16", "bfloat16")
MOST_ERROR = 1e-3
"""Root of the mean square of the difference, over the standard deviation of the result."""
LEAST_GAIN = 1.2
"""Half precision must be so much faster to be worth any error."""
CORE = 128
REPEATS = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """A precision on one tile of a volume."""

    precision: str
    seconds: float
    """Of a forward pass, the fastest of three."""
    error: float | None
    """Against float32; None when it was not measured."""


def choose_precision(address: str, options: OpenOptions, volume: Volume) -> Trial:
    """The fastest precision with an error below 1e-3, measured on the middle of ``volume``.

    On a CPU float32, without measuring: few have arithmetic for less.
    """
    full = Trial(FULL, 0.0, 0.0)
    if options.device == "cpu":
        return full
    return fastest(trials(address, options, volume))


def fastest(found: list[Trial]) -> Trial:
    """Of trials, the first of them float32, the fastest that may be used."""
    full, *halves = found
    good = [
        trial
        for trial in halves
        if (trial.error or 0) < MOST_ERROR and LEAST_GAIN * trial.seconds < full.seconds
    ]
    best = min(good, key=lambda trial: trial.seconds, default=full)
    for trial in found:
        log.info("%s", trial)
    return best


def trials(
    address: str, options: OpenOptions, volume: Volume, halves: tuple[str, ...] = HALVES
) -> list[Trial]:
    """float32 and each of ``halves`` on one tile of ``volume``."""
    found = []
    expected = None
    for precision in (FULL, *halves):
        denoiser = open_denoiser(address, replace(options, precision=precision))
        core = _middle(volume, denoiser.stride)
        boxes = tile_boxes(core, denoiser.halo, denoiser.stride, volume.spatial_shape)
        values = np.nan_to_num(volume.read(0, 0, boxes.data).astype(np.float32))
        region = Region(0, 0, core, volume.spatial_shape)
        estimate = denoiser.denoise(values, region)  # loads, and chooses kernels
        seconds = []
        for _ in range(REPEATS):
            started = perf_counter()
            denoiser.denoise(values, region)
            seconds.append(perf_counter() - started)
        expected = expected or estimate
        found.append(Trial(precision, min(seconds), _error(estimate, expected)))
    return found


def _middle(volume: Volume, stride: tuple[int, int, int]) -> Box:
    """A core in the middle; its start is a multiple of the stride."""
    start, stop = [], []
    for n, s in zip(volume.spatial_shape, stride, strict=True):
        start.append(round_down(max(0, (n - CORE) // 2), s))
        stop.append(min(n, start[-1] + CORE))
    return Box(as_shape(start), as_shape(stop))


def _error(estimate: Estimate, expected: Estimate) -> float:
    difference = estimate.mean.astype(np.float64) - expected.mean
    spread = float(expected.mean.std(dtype=np.float64)) or 1.0
    return float(np.sqrt(np.mean(difference**2))) / spread
