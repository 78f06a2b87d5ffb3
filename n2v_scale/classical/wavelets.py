"""Soft thresholds on a stationary wavelet transform, with PyWavelets.

Stationary: the result does not depend on where a tile begins. The transform continues an array
periodically, so it is first continued symmetrically, as far as the wavelets reach: what is beyond
a face then follows from what lies at that face.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from n2v_scale.classical.base import Filter, FloatArray
from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Shape, round_up

WAVELET = "db2"
TAPS = 4
"""Of its filters."""
LEVELS = 2
REACH = (TAPS - 1) * (2**LEVELS - 1)
"""Of the filters of all levels, each twice as long as the one before."""


@dataclass(frozen=True)
class Wavelet(Filter):
    """Wavelet shrinkage (Donoho 1995), translation-invariant (Coifman & Donoho 1995).

    The threshold of a level is the parameter times the noise that a level has: white noise of
    standard deviation 1 has ``2 ** (-level * dimensions / 2)`` there.
    """

    parameter = "threshold, in units of the noise"
    candidates = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
    copies = 26.0
    cost = 40.0
    isotropic = True

    @property
    def reach(self) -> Shape:
        """See :data:`REACH`."""
        return self.along(REACH)

    def image_bytes(self, shape: tuple[int, ...]) -> int:
        """With what the array is continued by."""
        return super().image_bytes(tuple(sum(_pad(n)) + n for n in shape))

    def apply(self, image: FloatArray) -> FloatArray:
        """See :class:`Filter`."""
        pywt = _library()
        pads = [_pad(n) for n in image.shape]
        wide = np.pad(image, pads, mode="symmetric")
        coarse, *levels = pywt.swtn(wide, WAVELET, LEVELS, trim_approx=True, norm=True)
        for level, details in zip(range(LEVELS, 0, -1), levels, strict=True):
            limit = self.value * 2 ** (-level * image.ndim / 2)
            for name, band in details.items():
                details[name] = pywt.threshold(band, limit, "soft")
        found: FloatArray = pywt.iswtn([coarse, *levels], WAVELET, norm=True)
        return found[tuple(slice(a, a + n) for (a, _), n in zip(pads, image.shape, strict=True))]


def _pad(n: int) -> tuple[int, int]:
    """As far as the wavelets reach, and then to what the transform can halve."""
    return REACH, round_up(n + 2 * REACH, 2**LEVELS) - n - REACH


def _library() -> ModuleType:
    try:
        import pywt
    except ImportError:
        raise ConfigError(
            "the wavelet filter needs PyWavelets: pip install 'n2v-scale[wavelets]'"
        ) from None
    library: ModuleType = pywt
    return library
