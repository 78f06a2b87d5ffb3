"""An sCMOS camera: from expected photoelectrons to 16-bit counts."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from n2v_scale.errors import ConfigError

_SENSOR_STREAM, _EXPOSURE_STREAM = 101, 102
_LARGEST_COUNT = float(np.iinfo(np.uint16).max)


@dataclass(frozen=True)
class Camera:
    """An sCMOS camera whose noise is independent from voxel to voxel.

    A voxel of ``e`` expected electrons is read as ``offset + gain * (Poisson(e) + Normal(0, r))``,
    rounded and clipped to 0..65535. Its variance is ``gain**2 * (e + r**2) + 1 / 12`` wherever
    nothing clips. The pixel model is that of Huang et al. 2013 (Nature Methods 10, 653).

    Parameters
    ----------
    gain
        Counts per electron.
    offset
        Counts of a dark pixel.
    read_noise
        Electrons; the root mean square over the pixels.
    read_noise_spread
        How unequal the pixels are: the standard deviation of the logarithm of their read noise.
        One map (y, x) holds for all planes.
    offset_spread
        Standard deviation of the pixels' offsets, counts. One map (y, x) holds for all planes, so
        that anything above 0 is an error that repeats along z: the residual is then no longer
        independent from plane to plane.

    Raises
    ------
    ConfigError
        If a number is negative or not finite, or the gain is 0.
    """

    gain: float = 2.2
    offset: float = 100.0
    read_noise: float = 1.6
    read_noise_spread: float = 0.25
    offset_spread: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise ConfigError(f"{field.name} is {value}: give a finite number of at least 0")
        if self.gain == 0:
            raise ConfigError("gain is 0: give the counts per electron, for instance 2.2")

    def expected(self, electrons: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn expected ``electrons`` into noise-free counts, in place."""
        electrons *= np.float32(self.gain)
        electrons += np.float32(self.offset)
        return electrons

    def expose(self, clean: NDArray[np.float32], seed: int) -> NDArray[np.uint16]:
        """One noisy image of noise-free counts ``clean`` (z, y, x).

        Each plane draws from its own random stream, so that the memory needed beside the result
        is that of a few planes.
        """
        y, x = clean.shape[1:]
        offset, read_noise = self._sensor((y, x), seed)
        noisy = np.empty(clean.shape, np.uint16)
        for z, plane in enumerate(clean):
            rng = np.random.default_rng([seed, _EXPOSURE_STREAM, z])
            electrons = np.maximum(plane.astype(np.float64) - self.offset, 0) / self.gain
            signal = rng.poisson(electrons) + read_noise * rng.standard_normal(plane.shape)
            counts = np.rint(offset + self.gain * signal)
            noisy[z] = np.clip(counts, 0, _LARGEST_COUNT)
        return noisy

    def _sensor(
        self, shape: tuple[int, int], seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw the pixels' offset (counts) and read noise (electrons), both (y, x)."""
        rng = np.random.default_rng([seed, _SENSOR_STREAM])
        spread = self.read_noise_spread
        # exp(-s²) makes the mean square of the log-normal factor 1, so read_noise stays the RMS.
        factor = np.exp(spread * rng.standard_normal(shape) - spread**2)
        offset = self.offset + self.offset_spread * rng.standard_normal(shape)
        return offset, self.read_noise * factor
