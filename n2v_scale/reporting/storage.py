"""What a volume takes on the disk before and after: noise is what does not compress."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numcodecs import Blosc

from n2v_scale.errors import InputError
from n2v_scale.io.stored import stored_bytes
from n2v_scale.reporting.sight import Sight
from n2v_scale.statistics import sample_boxes

BOXES = 16
CODEC = Blosc(cname="zstd", clevel=3, shuffle=Blosc.BITSHUFFLE)
"""The default of what is written, for a comparison of like with like."""


@dataclass(frozen=True)
class Stored:
    """One volume."""

    codec: str
    bytes_stored: int | None
    """Of the full resolution as it lies on the disk; None where counting would take long."""
    bytes_in_memory: int
    """Of all of it."""
    ratio: float | None
    """In memory over compressed, of sampled boxes with one and the same codec; None where none of
    them is there."""


def storage_of(sight: Sight) -> Stored:
    """Counted on the disk, and compressed again in a sample."""
    volume, raw, packed = sight.volume, 0, 0
    for place in sample_boxes(volume, count=BOXES):
        if not sight.whole(place.t, place.c, place.box):
            continue
        try:
            values = volume.read(place.t, place.c, place.box)
        except InputError:
            continue
        raw += values.nbytes
        packed += len(CODEC.encode(values))
    try:
        stored = stored_bytes(volume.kind, volume.address, volume.array_path)
    except OSError:
        stored = None
    whole = prod(volume.stored_shape) * np.dtype(volume.dtype).itemsize
    return Stored(volume.codec, stored, whole, raw / packed if packed else None)
