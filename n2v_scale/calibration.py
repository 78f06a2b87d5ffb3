"""The parameter of a classical filter, found on the noisy volume itself; see :mod:`.donut`.

A stratified sample says where something is to be seen; on a few boxes of that every candidate is
tried, as Dask tasks. The same volume and seed give the same filter.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import sqrt
from operator import add
from pathlib import Path

import numpy as np
from dask.base import compute
from dask.delayed import delayed

from n2v_scale._version import __version__
from n2v_scale.classical import Filter, axis_ratio, filter_named
from n2v_scale.content import Cells, cells_of
from n2v_scale.denoiser import Normalisation
from n2v_scale.donut import Losses, measure_losses
from n2v_scale.errors import InputError, OutputError
from n2v_scale.filter_card import (
    Calibration,
    Curve,
    FilterCard,
    check_is_filter,
    read_filter_card,
    write_filter,
)
from n2v_scale.geometry import Box, Shape, as_shape
from n2v_scale.io.volume import Volume
from n2v_scale.model_card import CARD_NAME
from n2v_scale.statistics import (
    ChannelStatistics,
    SampledBox,
    box_statistics,
    normalisation_from,
    sample_boxes,
)
from n2v_scale.survey import noise_of

log = logging.getLogger(__name__)

BOXES = 8
"""Of a channel, that the candidates are tried on."""
BOX: Shape = (32, 64, 64)
FLAT_BOX: Shape = (1, 256, 256)
"""Of images without depth."""


@dataclass(frozen=True)
class Look:
    """What is kept of a sampled box: the Dask task's result."""

    place: SampledBox
    moments: ChannelStatistics
    cells: Cells


def calibrated_filter(
    volume: Volume,
    folder: Path,
    name: str,
    *,
    values: Sequence[float] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> FilterCard:
    """The filter in ``folder``, calibrated on ``volume`` unless the same call has done it before.

    Runs as Dask tasks on the current client, on threads without one.

    Parameters
    ----------
    values
        Of the parameter, that are tried; the filter's own candidates when None.

    Raises
    ------
    OutputError
        When another filter, or something else, is at ``folder``.
    InputError
        When there is no noise to be seen in the volume, or nothing else.
    """
    tried = tuple(sorted(set(values or filter_named(name).candidates)))
    request = {"filter": name, "values": list(tried), "seed": seed, "input": volume.identity()}
    request["channels"] = list(volume.channels)
    check_is_filter(folder)
    if (folder / CARD_NAME).exists() and not overwrite:
        found = read_filter_card(folder)
        if found.request != request:
            different = [key for key in request if found.request.get(key) != request[key]]
            raise OutputError(
                f"{folder} holds a filter that was calibrated with another "
                f"{', '.join(different)}: choose another folder or pass --overwrite"
            )
        return found
    ratio = axis_ratio(volume.spatial_shape, volume.voxel_size)
    filters = [filter_named(name)(value, ratio) for value in tried]
    calibration, constants = calibrate(volume, name, filters, seed=seed)
    card = FilterCard(
        package_version=__version__,
        filter=name,
        values=tuple(curve.best for curve in calibration.curves),
        ratio=ratio,
        channels=volume.channels,
        offset=constants.offset,
        scale=constants.scale,
        request=request,
    )
    write_filter(folder, card, calibration)
    return card


def calibrate(
    volume: Volume, name: str, filters: Sequence[Filter], *, seed: int = 0
) -> tuple[Calibration, Normalisation]:
    """The losses of every one of ``filters`` by channel, and the constants that they see it in."""
    looks = _looks(volume, seed)
    chosen = [_telling([k for k in looks if k.place.c == c]) for c in range(volume.shape[1])]
    moments = [
        reduce(ChannelStatistics.merge, (k.moments for k in looks if k.place.c == c))
        for c in range(volume.shape[1])
    ]
    offset = normalisation_from(tuple(moments), volume.address).offset
    scale = tuple(
        _noise([k for k in looks if k.place.c == c], chosen[c], volume.address, c)
        for c in range(volume.shape[1])
    )
    constants = Normalisation(offset, scale)
    task = delayed(_losses_at, pure=False)
    results: tuple[list[Losses], ...] = compute(
        *([task(volume, look.place, filters, constants, seed) for look in some] for some in chosen)
    )
    curves = tuple(
        _curve(c, scale[c], filters, reduce(add, found), volume) for c, found in enumerate(results)
    )
    return Calibration(filter=name, parameter=filters[0].parameter, curves=curves), constants


def _looks(volume: Volume, seed: int) -> list[Look]:
    task = delayed(_look, pure=False)
    places = sample_boxes(volume, seed=seed)
    found: tuple[Look | None, ...] = compute(*(task(volume, place) for place in places))
    looks = [look for look in found if look is not None]
    missing = set(range(volume.shape[1])) - {look.place.c for look in looks}
    if missing:
        raise InputError(
            f"{volume.address}: none of the sampled boxes of channel {min(missing)} can be read: "
            "a filter is calibrated on what can"
        )
    return looks


def _look(volume: Volume, place: SampledBox) -> Look | None:
    """A Dask task. A box that cannot be read is left out."""
    try:
        values = volume.read(place.t, place.c, place.box)
    except InputError as error:
        log.warning("left out of the calibration: %s", error)
        return None
    return Look(place, box_statistics(values, place.box), cells_of(values))


def _telling(looks: Sequence[Look]) -> list[Look]:
    """Of one channel, the boxes in which most is not noise: elsewhere all smoothing is good."""
    noise = noise_of([look.cells for look in looks])
    contents = [float(look.cells.content(noise).mean()) for look in looks]
    order = sorted(range(len(looks)), key=lambda i: -contents[i])  # stable: the same every time
    return [looks[i] for i in sorted(order[:BOXES])]


def _noise(looks: Sequence[Look], chosen: Sequence[Look], address: str, channel: int) -> float:
    """The standard deviation of the noise where the candidates are tried, in the volume's units."""
    model = noise_of([look.cells for look in looks])
    means = np.concatenate([look.cells.mean.ravel() for look in chosen])
    if model is not None:
        variance = float(np.mean(model.variance(means[np.isfinite(means)])))
    else:
        seen = np.concatenate([look.cells.noise.ravel() for look in chosen])
        seen = seen[np.isfinite(seen)]
        variance = float(np.median(seen)) if seen.size else 0.0
    if not variance > 0:
        raise InputError(
            f"{address}: no noise is seen in channel {channel}, which a filter is calibrated by: "
            "give a volume of noisy data, of at least 3 voxels along y and x"
        )
    return sqrt(variance)


def _losses_at(
    volume: Volume,
    place: SampledBox,
    filters: Sequence[Filter],
    constants: Normalisation,
    seed: int,
) -> Losses:
    """A Dask task: the losses in the middle of a sampled box."""
    values = volume.read(place.t, place.c, _middle(place.box, filters[0].flat)).astype(np.float32)
    values -= constants.offset[place.c]
    values /= constants.scale[place.c]
    rng = np.random.default_rng((seed, place.t, place.c, *place.box.start))
    return measure_losses(values, filters, rng)


def _middle(box: Box, flat: bool) -> Box:
    """As much of a box as the candidates are tried on."""
    most = FLAT_BOX if flat else BOX
    start = [a + max(0, n - m) // 2 for a, n, m in zip(box.start, box.shape, most, strict=True)]
    stop = [min(b, a + m) for a, b, m in zip(start, box.stop, most, strict=True)]
    return Box(as_shape(start), as_shape(stop))


def _curve(
    channel: int, noise: float, filters: Sequence[Filter], losses: Losses, volume: Volume
) -> Curve:
    if not losses.voxels:
        raise InputError(
            f"{volume.address}: channel {channel} holds no finite voxel where the filter is tried"
        )
    unit = noise**2 / losses.voxels
    curve = Curve(
        channel=volume.channels[channel],
        noise=noise,
        values=tuple(f.value for f in filters),
        donut=tuple((losses.hidden * unit).tolist()),
        residual=tuple((losses.seen * unit).tolist()),
        voxels=losses.voxels,
    )
    if curve.at_end:
        log.warning(
            "channel %d: the least loss is at the end of the values that were tried, %g: try more "
            "(--values)",
            curve.channel,
            curve.best,
        )
    return curve
