"""What napari would show of an OME-Zarr: its reader's layers, as JSON on the last line.

python read_with_napari.py ADDRESS
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
from napari_ome_zarr import napari_get_reader

layers = []
for levels, options, kind in napari_get_reader(sys.argv[1])(sys.argv[1]):
    values = [np.asarray(level) for level in levels]
    layers.append(
        {
            "kind": kind,
            "levels": [
                [list(v.shape), hashlib.sha256(np.ascontiguousarray(v).tobytes()).hexdigest()]
                for v in values
            ],
            "scale": list(options["scale"]),
            "units": list(options.get("units", [])),
            "contrast_limits": options["contrast_limits"],
            "name": options["name"],
        }
    )
qt = sorted(name for name in sys.modules if name.startswith(("PyQt", "PySide")))
print(json.dumps({"layers": layers, "qt": qt}))  # noqa: T201
