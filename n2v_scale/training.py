"""A whole training run: statistics, sampler, loop, model folder."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from distributed import Client

from n2v_scale.architecture import design_for
from n2v_scale.cluster import thread_client
from n2v_scale.config import TrainSettings
from n2v_scale.cores import available_cores
from n2v_scale.devices import torch_threads
from n2v_scale.errors import InputError, OutputError
from n2v_scale.io.stores import inside
from n2v_scale.io.volume import Volume
from n2v_scale.loop import train_network
from n2v_scale.model import Model, check_is_model, load_model, save_model
from n2v_scale.patches import PatchSampler
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.statistics import ChannelStatistics, normalisation_from, sample_statistics

READERS = 2
"""Threads that read regions ahead of the training."""


def train_model(
    volume: Volume,
    folder: Path,
    settings: TrainSettings,
    *,
    overwrite: bool = False,
    client: Client | None = None,
    progress: Progress | None = None,
) -> Model:
    """Train on ``volume`` and write the model; see :func:`n2v_scale.train`."""
    progress = progress or NoProgress()
    _check_folder(folder, volume, overwrite=overwrite)
    design = design_for(settings, volume.spatial_shape, volume.voxel_size)
    statistics = sample_statistics(volume, seed=settings.seed)
    if settings.on_nan == "error":
        _check_statistics(volume, statistics)
    normalisation = normalisation_from(statistics, volume.address)
    with _client(client) as used:
        sampler = PatchSampler(
            volume,
            normalisation,
            used,
            patch=design.patch,
            batch=design.batch,
            seed=settings.seed,
            on_nan=settings.on_nan,
        )
        with torch_threads(settings.threads or available_cores()):
            trained = train_network(
                volume, normalisation, settings, design, sampler, progress=progress
            )
    save_model(folder, trained.card, trained.weights, overwrite=overwrite)
    return load_model(folder)


def _client(client: Client | None) -> AbstractContextManager[Client]:
    return thread_client(READERS) if client is None else nullcontext(client)


def _check_folder(folder: Path, volume: Volume, *, overwrite: bool) -> None:
    if inside(folder, volume.address):
        raise OutputError(f"the model {folder} would lie inside its own input: choose another name")
    if folder.exists():
        if not overwrite:
            raise OutputError(
                f"{folder} exists: choose another name, or --overwrite to train afresh"
            )
        check_is_model(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}."):
            pass
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}") from None


def _check_statistics(volume: Volume, statistics: tuple[ChannelStatistics, ...]) -> None:
    for c, channel in enumerate(statistics):
        if channel.not_finite and channel.first_not_finite is not None:
            z, y, x = channel.first_not_finite
            raise InputError(
                f"{volume.address}: {channel.not_finite} of "
                f"{channel.voxels + channel.not_finite} sampled voxels of channel {c} are NaN or "
                f"infinite, the first at z={z}, y={y}, x={x}; --on-nan fill leaves them out of "
                "the training"
            )
