"""NaN and infinity in an input: how many, and where the first is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box


def check_finite(values: npt.NDArray[Any], box: Box, where: str) -> None:
    """Refuse NaN and infinity in ``values`` (z, y, x) of ``box``.

    Raises
    ------
    InputError
        That counts them and places the first in volume coordinates.
    """
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    z, y, x = (np.argwhere(bad)[0] + box.start).tolist()
    raise InputError(
        f"{where}: {int(bad.sum())} voxels in {box.start}..{box.stop} are NaN or infinite, the "
        f"first at z={z}, y={y}, x={x}; --on-nan fill goes on without them"
    )
