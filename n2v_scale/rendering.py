"""How a viewer is to show an output: OME-Zarr's omero block, from the input's and the new data."""

from __future__ import annotations

from typing import Any

import numpy as np

from n2v_scale.geometry import Box
from n2v_scale.io.ome_metadata import selected_omero
from n2v_scale.io.writer import ArraySpec, read_output
from n2v_scale.plan import Plan

Rendering = dict[str, Any]


def begun_rendering(plan: Plan) -> Rendering | None:
    """The input's, as long as nothing is known of the new data; None where it has none."""
    rendering = selected_omero(plan.volume.omero, plan.volume.channels)
    if rendering is None or plan.parts == 1:
        return rendering
    channels = rendering["channels"]
    return {**rendering, "channels": [*channels, *(_of_std(c, {}) for c in channels)]}


def finished_rendering(plan: Plan) -> Rendering:
    """The input's with windows of the new data, from the coarsest level, which is written."""
    spec = [plan.output, *(level.array for level in plan.levels)][-1]
    stored = plan.volume.omero or {}
    listed = stored.get("channels")
    named = dict(enumerate(listed if isinstance(listed, list) else []))
    means: list[Rendering] = []
    for position, index in enumerate(plan.volume.channels):
        described = named.get(index)
        means.append(
            {
                "label": f"channel {index}",
                "color": "FFFFFF",
                "active": True,
                **(described if isinstance(described, dict) else {}),
                "window": _window(spec, position),
            }
        )
    stds = [
        _of_std(mean, {"window": {**_window(spec, len(means) + k), "start": 0.0}})
        for k, mean in enumerate(means[: spec.channels - len(means)])
    ]
    return {**stored, "channels": [*means, *stds]}


def _of_std(mean: Any, more: Rendering) -> Any:
    """A channel of standard deviations: named after its mean, and not shown until asked for."""
    if not isinstance(mean, dict):
        return mean
    return {**mean, "label": f"{mean.get('label', '')} std".strip(), "active": False, **more}


def _window(spec: ArraySpec, channel: int) -> dict[str, float]:
    box = Box.whole(spec.spatial_shape)
    values = read_output(spec, 0, channel, box)
    dtype = np.dtype(spec.dtype)
    values = values[np.isfinite(values)]  # NaN is no JSON
    if not values.size:
        values = np.zeros(1, dtype)
    low, high = np.percentile(values, [1, 99.8]).tolist()
    ends = (values.min(), values.max())
    limits = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind != "f" else ends
    return {
        "min": float(limits[0]),
        "max": float(limits[1]),
        "start": float(low),
        "end": float(max(high, low + 1e-6)),
    }
