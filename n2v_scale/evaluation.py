"""How close a volume is to a clean reference, plane by plane, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box, Shape, round_up
from n2v_scale.io.volume import Volume
from n2v_scale.metrics import ErrorSums, SsimSums
from n2v_scale.own_record import means_of
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.statistics import sample_boxes

SLAB_VOXELS = 2**25
PERCENTILE = 99.9
SMALLEST_SSIM_PLANE = 11


@dataclass(frozen=True)
class Evaluation:
    """What a comparison gives; PSNR in dB."""

    psnr: float
    si_psnr: float
    """After the best linear map of the volume onto the reference."""
    ssim: float | None
    """Mean over XY planes; None where planes are smaller than SSIM's window."""
    data_range: float
    voxels: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON, which knows no infinity: a perfect match is None."""
        return {k: v if v is None or math.isfinite(v) else None for k, v in asdict(self).items()}


def evaluate_volumes(
    volume: Volume,
    reference: Volume,
    *,
    data_range: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """See :func:`n2v_scale.evaluate`.

    Raises
    ------
    InputError
        When the selections differ in shape.
    """
    volume, reference = means_of(volume), means_of(reference)
    if volume.shape != reference.shape:
        raise InputError(
            f"{volume.address} is {volume.shape} (t, c, z, y, x) and {reference.address} is "
            f"{reference.shape}: select the same part of both with --channel and --timepoints"
        )
    peak = reference_range(reference) if data_range is None else data_range
    errors, similarity = ErrorSums(), SsimSums()
    with_ssim = min(volume.spatial_shape[1:]) >= SMALLEST_SSIM_PLANE
    total = int(np.prod(volume.shape))
    with (progress or NoProgress()).step("evaluating", total, "voxel") as bar:
        for t, c, box in _slabs(volume):
            estimate, truth = volume.read(t, c, box), reference.read(t, c, box)
            errors += ErrorSums.of(estimate, truth)
            if with_ssim:
                similarity += SsimSums.of(estimate, truth, peak)
            bar.advance(box.size)
    return Evaluation(
        errors.psnr(peak),
        errors.si_psnr(peak),
        similarity.ssim if with_ssim else None,
        peak,
        errors.n,
    )


def reference_range(reference: Volume) -> float:
    """The 99.9th percentile minus the minimum, from a sample of the reference."""
    values = np.concatenate(
        [reference.read(s.t, s.c, s.box).ravel() for s in sample_boxes(reference)]
    )
    if not np.isfinite(values).all():
        raise InputError(
            f"{reference.address} holds NaN or infinity: nothing can be compared to it"
        )
    span = float(np.percentile(values, PERCENTILE)) - float(values.min())
    if not span > 0:
        raise InputError(f"{reference.address} is constant: pass the PSNR's range with --range")
    return span


def _slabs(volume: Volume) -> Iterator[tuple[int, int, Box]]:
    """Whole planes, as many at once as the chunks hold and the memory allows."""
    shape: Shape = volume.spatial_shape
    plane = shape[1] * shape[2]
    depth = max(1, min(round_up(1, volume.chunk[0]), SLAB_VOXELS // plane))
    for t in range(volume.shape[0]):
        for c in range(volume.shape[1]):
            for z in range(0, shape[0], depth):
                stop = min(z + depth, shape[0])
                yield t, c, Box((z, 0, 0), (stop, shape[1], shape[2]))
