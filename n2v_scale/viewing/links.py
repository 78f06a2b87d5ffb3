"""Links that open served volumes in other people's viewers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from n2v_scale.viewing.shown import ShownVolume

NEUROGLANCER = "https://neuroglancer-demo.appspot.com/"
VIZARR = "https://hms-dbmi.github.io/vizarr/"
METRES = {
    "angstrom": 1e-10,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "meter": 1.0,
}
SHADER = "#uicontrol invlerp normalized\nvoid main() {\n  emitGrayscale(normalized());\n}\n"


def neuroglancer_state(base: str, volumes: Sequence[ShownVolume]) -> dict[str, Any]:
    """Neuroglancer's state: an image layer a volume, side by side in XY, on one gray scale.

    Parameters
    ----------
    base
        URL of the server with its token, such as ``http://127.0.0.1:8000/token``.
    volumes
        Those that have a :attr:`~n2v_scale.viewing.shown.ShownVolume.tree`.
    """
    window = volumes[-1].window(0, 0)
    layers = [
        {
            "type": "image",
            "name": _layer_name(volume, volumes),
            "source": f"{_scheme(volume)}://{base}/data/{volume.name}/",
            "shader": SHADER,
            "shaderControls": {"normalized": {"range": [window["low"], window["high"]]}},
        }
        for volume in volumes
    ]
    views = [{"type": "viewer", "layers": [layer["name"]], "layout": "xy"} for layer in layers]
    dimensions = _dimensions(volumes[-1])
    return {
        "dimensions": dimensions,
        "displayDimensions": list(dimensions),  # else the first stored axis runs to the right
        "layers": layers,
        "layout": {"type": "row", "children": views},
    }


def neuroglancer_link(base: str, volumes: Sequence[ShownVolume]) -> str:
    """The state in the fragment of a URL, which a browser sends to nobody."""
    state = json.dumps(neuroglancer_state(base, volumes), separators=(",", ":"))
    return f"{NEUROGLANCER}#!{quote(state, safe='')}"


def vizarr_link(base: str, volume: ShownVolume) -> str:
    """One volume in vizarr."""
    return f"{VIZARR}?source={quote(f'{base}/data/{volume.name}', safe='')}"


def napari_command(base: str, volumes: Sequence[ShownVolume]) -> str:
    """A line for a terminal that opens all of them as layers."""
    places = " ".join(f"{base}/data/{volume.name}" for volume in volumes)
    return f"napari --plugin napari-ome-zarr {places}"


def _dimensions(volume: ShownVolume) -> dict[str, tuple[float, str]]:
    """x, y and z, as far as they are stored, with the voxel's size in metres where it is known."""
    sizes = dict(zip("zyx", volume.levels[0].scale, strict=True))
    axes = [axis for name in "xyz" if (axis := volume.volume.axis(name))]
    return {
        axis.name: (sizes[axis.name] * METRES[axis.unit], "m")
        if axis.unit in METRES
        else (sizes[axis.name], "")
        for axis in axes
    }


def _scheme(volume: ShownVolume) -> str:
    old = any(volume.volume.format.endswith(word) for word in ("0.1", "0.2", "0.3", "0.4", "v2"))
    return "zarr2" if old else "zarr3"


def _layer_name(volume: ShownVolume, volumes: Sequence[ShownVolume]) -> str:
    alone = sum(other.role == volume.role for other in volumes) == 1
    return volume.role if alone else volume.name
