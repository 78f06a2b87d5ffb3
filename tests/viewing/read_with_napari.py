"""What napari would show of an OME-Zarr: its reader's layers, as JSON on the last line.

python read_with_napari.py ADDRESS
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np


def layers_of(address: str) -> list[dict[str, Any]]:
    from napari_ome_zarr import napari_get_reader

    return [
        {
            "kind": kind,
            "levels": [described(np.asarray(level)) for level in levels],
            "scale": list(options["scale"]),
            "units": list(options.get("units", [])),
            "contrast_limits": options["contrast_limits"],
            "name": options["name"],
            "channel_axis": options.get("channel_axis"),
        }
        for levels, options, kind in napari_get_reader(address)(address)
    ]


def described(values: np.ndarray) -> list[Any]:
    content = np.ascontiguousarray(values).tobytes()
    return [list(values.shape), hashlib.sha256(content).hexdigest()]


if __name__ == "__main__":
    found = layers_of(sys.argv[1])
    qt = sorted(name for name in sys.modules if name.startswith(("PyQt", "PySide")))
    print(json.dumps({"layers": found, "qt": qt}))  # noqa: T201
