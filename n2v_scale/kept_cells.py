"""Voxels of an output that are the input's own: outside of a mask, or without data.

They were decided by whole cells of the output's chunk grid (:mod:`n2v_scale.empty`), from the plan
and the input alone, and so they can be found again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.empty import classify
from n2v_scale.errors import InputError
from n2v_scale.foreground import Foreground, open_foreground
from n2v_scale.geometry import NO_HALO, Box, Shape
from n2v_scale.io.volume import Volume
from n2v_scale.plan import Plan
from n2v_scale.statistics import SampledBox


@dataclass(frozen=True)
class KeptCells:
    """Which voxels an output took from its input as they were."""

    noisy: Volume
    """The input."""
    cell: Shape
    """The output's chunk."""
    nodata: float | None
    foreground: Foreground | None

    def computed(self, place: SampledBox) -> npt.NDArray[np.bool_]:
        """Of the box's voxels (z, y, x), those that were computed."""
        shape = self.noisy.spatial_shape
        around = place.box.align(self.cell).intersect(Box.whole(shape))
        mask = self.foreground
        cells = classify(
            self.noisy.read(place.t, place.c, around),
            around,
            around,
            cell=self.cell,
            halo=NO_HALO,
            shape=shape,
            nodata=self.nodata,
            outside=None if mask is None else mask.over(place.t, place.c, around),
        )
        computed = np.ones(around.shape, bool)
        for box in cells.kept:
            computed[box.slices_in(around)] = False
        return computed[place.box.slices_in(around)]


def kept_cells(plan: Plan, mask: dict[str, Any] | None, noisy: Volume) -> KeptCells | None:
    """What the output of ``plan``, and of a ``mask`` as its record has it, kept of ``noisy``.

    None where everything was computed.

    Raises
    ------
    InputError
        When the mask is not there, or is another one now, or the volume has another shape than the
        output at full resolution.
    """
    if plan.nodata is None and mask is None:
        return None
    if noisy.spatial_shape != plan.shape:
        raise InputError(
            f"{plan.output.store} was made with --mask or --nodata at {plan.shape} voxels (z, y, "
            f"x), and {noisy.address} has {noisy.spatial_shape}: compare the full resolutions"
        )
    foreground = None
    if mask is not None:
        foreground = open_foreground(mask["address"], noisy, storage_options=noisy.storage)
        if foreground.key != mask["key"]:
            raise InputError(
                f"the mask {mask['address']} has changed since {plan.output.store} was made with "
                "it, so that nobody knows what was left as it was: put the old one back"
            )
    return KeptCells(noisy, plan.output.spatial_chunk, plan.nodata, foreground)
