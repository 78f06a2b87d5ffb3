"""Slices as the page's viewer reads them: 12 bits a voxel, deflated, in JSON.

Eight bits would show steps as soon as somebody stretches the contrast. One scale for all places and
volumes of a channel, so that they compare; the highest code says that there is no value.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.reporting.places import Place

LEVELS = 2**12 - 1
"""Codes of values."""
NO_VALUE = LEVELS
BEYOND = (0.02, 99.98)
"""Percentiles of all slices of a channel that are its darkest and its brightest code, where the
values are not whole numbers of a range that fits."""
WINDOW = (0.5, 99.8)
"""Percentiles of the denoised slices between which gray runs at first."""

Plane = npt.NDArray[np.float32]
Planes = Mapping[str, Plane]


@dataclass(frozen=True)
class Scale:
    """Value = ``low + step · code``, and the contrast to begin with."""

    low: float
    step: float
    window: tuple[float, float]
    exact: bool = False
    """Whether no value lies beyond the codes."""

    def coded(self, plane: Plane) -> npt.NDArray[np.uint16]:
        """The nearest codes, 0 to 4094; 4095 where there is no value."""
        known = np.isfinite(plane)
        values = np.where(known, plane, self.low).astype(np.float64)
        codes = np.rint((values - self.low) / self.step).clip(0, LEVELS - 1)
        return np.where(known, codes, NO_VALUE).astype(np.uint16)


def scale_of(planes: Sequence[Plane], shown: Sequence[Plane], whole: bool) -> Scale:
    """For ``planes`` of all volumes, with the contrast of ``shown``; ``whole`` numbers stay exact
    where they fit.
    """
    values = _known(planes)
    low, high = float(values.min()), float(values.max())
    exact = whole and high - low <= LEVELS - 1
    if not exact:
        low, high = (float(v) for v in np.percentile(values, BEYOND))
    if whole:
        low, high = float(np.floor(low)), float(np.ceil(high))
    step = max((high - low) / (LEVELS - 1), 1.0 if whole else 0.0) or 1.0
    dark, light = (float(v) for v in np.percentile(_known(shown), WINDOW))
    return Scale(low, step, (dark, light if light > dark else dark + step), exact)


def _known(planes: Sequence[Plane]) -> Plane:
    """Their finite values, in one row; a single 0 where there is none."""
    finite = [plane[np.isfinite(plane)] for plane in planes]
    found: Plane = np.concatenate([np.empty(0, np.float32), *finite])
    return found if found.size else np.zeros(1, np.float32)


def coded_text(codes: npt.NDArray[np.uint16]) -> str:
    """Low bytes, then high bytes, deflated (zlib), as base64."""
    parts = codes.astype("<u2").view(np.uint8).reshape(-1, 2)
    return base64.b64encode(zlib.compress(parts.T.tobytes(), 9)).decode()


def slices_json(
    places: Sequence[Place],
    planes: Sequence[Mapping[str, Planes]],
    voxel_size: tuple[float, float, float],
    unit: str,
    *,
    whole: bool,
) -> dict[str, Any]:
    """Everything that the viewer draws.

    Parameters
    ----------
    planes
        Of each place: volume (``noisy``, ``denoised``, ``reference``) → plane name → values.
    voxel_size
        Along (z, y, x), in ``unit``.
    """
    scales = {}
    for channel in sorted({place.c for place in places}):
        of = [found for place, found in zip(places, planes, strict=True) if place.c == channel]
        every = [plane for found in of for volume in found.values() for plane in volume.values()]
        shown = [plane for found in of for plane in found["denoised"].values()]
        scales[channel] = scale_of(every, shown, whole)
    return {
        "voxel": list(voxel_size),
        "unit": unit,
        "volumes": list(planes[0]) if planes else [],
        "scales": {str(c): [s.low, s.step, *s.window, s.exact] for c, s in scales.items()},
        "places": [
            {
                "t": place.t,
                "c": place.c,
                "centre": list(place.centre),
                "start": list(place.box.start),
                "shape": list(place.box.shape),
                "why": place.why,
                "data": {
                    name: {
                        plane: coded_text(scales[place.c].coded(values))
                        for plane, values in volume.items()
                    }
                    for name, volume in found.items()
                },
            }
            for place, found in zip(places, planes, strict=True)
        ],
    }
