"""A whole training run: what is there already, survey, sampler, loop, model folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from distributed import Client
from distributed.security import Security

from n2v_scale.budget import Budget
from n2v_scale.checkpoint import Checkpoint, CheckpointFolder, read_checkpoint, step_of
from n2v_scale.chosen_method import chosen_method
from n2v_scale.config import NETWORKS, TrainSettings
from n2v_scale.cores import available_cores
from n2v_scale.devices import choose_device, torch_threads
from n2v_scale.diagnosis import diagnose_volume
from n2v_scale.errors import (
    ConfigError,
    DeviceMemoryError,
    InputError,
)
from n2v_scale.io.volume import Volume
from n2v_scale.job import Job, agreed, check_folder, decide
from n2v_scale.local_cluster import thread_client
from n2v_scale.lock import driver_lock
from n2v_scale.loop import train_network
from n2v_scale.mask_files import blind_mask_of
from n2v_scale.metrics_file import MetricsFile
from n2v_scale.model import Model, load_model, save_model
from n2v_scale.model_card import METRICS_NAME, read_card
from n2v_scale.pairing import paired_volume
from n2v_scale.parallel import Ranks, found_ranks, joined, run_ranks
from n2v_scale.patches import PatchSampler
from n2v_scale.place import LOCAL, Place
from n2v_scale.progress import NoProgress, Progress, progress_for
from n2v_scale.requested import training_mask
from n2v_scale.run import Run
from n2v_scale.signals import kept_alive
from n2v_scale.sources import Source, open_sources, sampled_voxels
from n2v_scale.statistics import ChannelStatistics
from n2v_scale.trained_card import card_of

READERS = 2
"""Threads that read regions ahead of the training."""


def train_model(
    volumes: Sequence[Volume],
    folder: Path,
    settings: TrainSettings,
    *,
    overwrite: bool = False,
    client: Client | None = None,
    place: Place = LOCAL,
    progress: Progress | None = None,
) -> Model:
    """Train on ``volumes`` and write the model; see :func:`n2v_scale.train`.

    Without a ``client``, workers that read are started in ``place``, once there is something to do.
    """
    started = monotonic()
    progress = progress or NoProgress()
    group = found_ranks()
    if group is not None:
        _check_among_others(settings, place)
    check_folder(folder, volumes, settings.pair, settings.target)
    checkpoints = CheckpointFolder.beside(folder)
    with joined(group, choose_device(settings.device)) as ranks:
        progress = progress if ranks.leads else NoProgress()
        with kept_alive(), _alone(checkpoints, ranks, progress) as check:
            asked, processes = settings, max(ranks.size, settings.devices)
            settings = agreed(ranks, partial(_resolved, volumes, asked, progress))
            given = (volumes, folder, settings, overwrite, started, processes)
            job = agreed(ranks, partial(decide, *given))
            if job is None:
                progress.say(f"{folder} is finished: nothing to do")
            else:
                job = replace(job, started=started)  # the clocks of other machines differ
                if job.begun is not None:
                    step = step_of(job.begun)
                    progress.say(f"going on from step {step}, which an earlier run has kept")
                with place.workers(progress, patient=True) as started_there:
                    _carry_out(job, ranks, client or started_there, progress, check)
            if ranks.leads:
                checkpoints.clear()
        if ranks.leads:
            remove_empty(checkpoints.path)
        ranks.gathered(None)  # the others open the model once it is written
    return load_model(folder)


def _check_among_others(settings: TrainSettings, place: Place) -> None:
    """Refuse what each of several processes that somebody else has started would start again."""
    if settings.devices > 1:
        raise ConfigError(
            "--devices starts processes itself, and this one was started with others already: "
            "leave it out"
        )
    if place.settings.batch:
        raise ConfigError(
            f"--cluster {place.settings.system} asks for jobs, and each of the processes that "
            "torchrun or srun has started would ask for its own: leave it out, as each reads its "
            "patches itself; or let all of them read through one scheduler that runs already "
            "(--cluster tls://HOST:PORT)"
        )


def _resolved(
    volumes: Sequence[Volume], settings: TrainSettings, progress: Progress
) -> TrainSettings:
    """With a method, a budget, the network of the model that is begun with, and what the file of a
    blind mask holds.
    """
    settings = _followed(volumes, _with_offsets(volumes, settings, progress), progress).resolved()
    if settings.init is None or "net" in settings.model_fields_set:
        return settings
    net = read_card(Path(settings.init)).network
    if net not in NETWORKS[settings.method]:
        raise ConfigError(
            f"--init {settings.init} is a {net}, which --method {settings.method} does not train"
        )
    # Not among the fields that were set: nobody asked for it.
    return TrainSettings.model_construct(
        settings.model_fields_set, **{**dict(settings), "net": net}
    )


def _with_offsets(
    volumes: Sequence[Volume], settings: TrainSettings, progress: Progress
) -> TrainSettings:
    """With the offsets that a blind mask's file holds, which are remembered and not the file; of
    ``auto``, with the mask that a diagnosis of the first volume recommends.
    """
    if settings.blind_mask is None:
        return settings
    if settings.blind_mask == "auto":
        found = diagnose_volume(volumes[0], seed=settings.seed).recommendation
        progress.say(found.sentence)
        if not found.mask and settings.method == "structn2v":
            raise ConfigError(
                "--blind-mask auto: the sample shows no noise that is alike in neighbouring "
                "voxels; use another method, or say what to hide, such as x:5"
            )
        mask = found.mask or None
    else:
        mask = blind_mask_of(settings.blind_mask)
    return settings.model_copy(update={"blind_mask": mask})


def _followed(
    volumes: Sequence[Volume], settings: TrainSettings, progress: Progress
) -> TrainSettings:
    """With the method and the blind mask that a diagnosis of the first volume recommends."""
    if settings.method != "auto":
        return settings
    found = diagnose_volume(volumes[0], seed=settings.seed).recommendation
    progress.say(found.sentence)
    chosen = {"method": found.method, "blind_mask": found.mask or None}
    return TrainSettings.model_construct(settings.model_fields_set, **{**dict(settings), **chosen})


def _carry_out(
    job: Job, ranks: Ranks, client: Client | None, progress: Progress, check: Callable[[], None]
) -> None:
    """Train; when a step does not fit the device, once more with half the batch."""
    try:
        _start(job, ranks, client, progress, check)
    except DeviceMemoryError as error:
        fixed = job.begun is not None or job.settings.batch is not None
        if fixed or job.design.batch == 1 or ranks.size > 1:
            raise
        half = job.design.batch // 2
        progress.say(f"{error}: trying with half the batch, {half}")
        smaller = replace(job, design=replace(job.design, batch=half))
        _start(smaller, ranks, client, progress, check)


def _start(
    job: Job, ranks: Ranks, client: Client | None, progress: Progress, check: Callable[[], None]
) -> None:
    """Run the job here, or in processes of its own."""
    if job.settings.devices == 1:
        with _client(client) as used:
            _train(job, ranks, used, progress, check)
        return
    address: Any = None
    if client is not None:
        scheduler = "inproc" if client.scheduler is None else str(client.scheduler.address)
        if scheduler.startswith("inproc"):
            raise ConfigError("a client of threads serves one process: leave out devices, or it")
        address = (scheduler, client.security)
    shown = not isinstance(progress, NoProgress)
    run_ranks(_train_rank, job.settings.devices, job, address, shown)


def _train_rank(
    environment: dict[str, str], job: Job, address: tuple[str, Security] | None, shown: bool
) -> None:
    """In one of several processes on this machine."""
    progress = progress_for(sys.stderr) if shown and environment["RANK"] == "0" else NoProgress()
    threads = max(1, (job.settings.threads or available_cores()) // job.settings.devices)
    job = replace(job, settings=job.settings.model_copy(update={"threads": threads}))
    with joined(environment, choose_device(job.settings.device)) as ranks, ExitStack() as stack:
        if address is None:
            client = stack.enter_context(thread_client(READERS))
        else:
            opened = Client(address[0], security=address[1], set_as_default=False)
            client = stack.enter_context(opened)
        _train(job, ranks, client, progress, lambda: None)


def _train(
    job: Job, ranks: Ranks, client: Client, progress: Progress, check: Callable[[], None]
) -> None:
    """Survey, train, and write the model, together with the processes there are."""
    settings, design = job.settings, job.design
    checkpoints = CheckpointFolder.beside(job.folder)
    begun = None if job.begun is None else read_checkpoint(job.begun)
    with torch_threads(settings.threads or available_cores()):
        progress.say("looking at a sample of the volume")
        sources = agreed(ranks, partial(_sources, job, client))
        _check_same_sample(sources, begun)
        run = Run(
            settings,
            design,
            chosen_method(settings, design, sources),
            _sampler(job, sources, ranks, client),
            _budget(job, begun),
            _device(settings, ranks),
            _metrics(job, ranks),
            checkpoints,
            begun,
            _initial_weights(settings),
            ranks,
            progress,
            job.request,
            check,
        )
        trained = train_network(run)
        if ranks.leads:
            check()
            card = card_of(run, trained, sources)
            metrics = [checkpoints.path / METRICS_NAME]
            save_model(job.folder, card, trained.weights, overwrite=True, extra=metrics)
    if trained.stopped_early:
        progress.say(f"stopped at step {trained.steps}: the held-out loss falls no more")


def _sampler(job: Job, sources: Sequence[Source], ranks: Ranks, client: Client) -> PatchSampler:
    settings, design = job.settings, job.design
    return PatchSampler(
        sources,
        client,
        patch=design.patch,
        batch=design.batch * ranks.size,
        seed=settings.seed,
        on_nan=settings.on_nan,
        pool_bytes=settings.pool_memory,
        lanes=ranks.lanes(design.batch),
    )


def _budget(job: Job, begun: Checkpoint | None) -> Budget:
    settings = job.settings
    spent = monotonic() - job.started if begun is None else float(begun.state["seconds"])
    step = 0 if begun is None else int(begun.state["step"])
    return Budget(settings.steps, settings.minutes, spent_s=max(0.0, spent), step=step)


def _device(settings: TrainSettings, ranks: Ranks) -> torch.device:
    device = choose_device(settings.device)
    return torch.device(device, ranks.local) if device == "cuda" else torch.device(device)


def _sources(job: Job, client: Client) -> tuple[Source, ...]:
    settings = job.settings
    masks = None
    if settings.foreground is not None:
        masks = [training_mask(job.volumes, settings)]
    sources = open_sources(
        job.volumes,
        job.design.patch,
        client,
        seed=settings.seed,
        uniform=settings.sampling == "uniform",
        foregrounds=masks,
        target=paired_volume(job.volumes, settings),
    )
    for source in sources:
        assert source.survey is not None
        if settings.on_nan == "error":
            _check_statistics(source.volume, source.survey.statistics)
        _ = source.normalisation  # a constant volume is refused here
    return sources


def _check_same_sample(sources: Sequence[Source], begun: Checkpoint | None) -> None:
    """Refuse to go on when the sample says something else than before: a box was not read."""
    before = None if begun is None else begun.state.get("sampled")
    if before is not None and before != sampled_voxels(sources):
        raise InputError(
            "the sample of the volume is not what it was when this training was begun, so parts of "
            "it cannot be read now, or could not be read then: run the command again, or "
            "--overwrite to train afresh"
        )


def _metrics(job: Job, ranks: Ranks) -> MetricsFile | None:
    if not ranks.leads:
        return None
    path = CheckpointFolder.beside(job.folder).path / METRICS_NAME
    board = job.settings.tensorboard
    return MetricsFile(path, None if board is None else Path(board))


def _initial_weights(settings: TrainSettings) -> dict[str, torch.Tensor] | None:
    if settings.init is None:
        return None
    return dict(load_model(settings.init).network.state_dict())


@contextmanager
def _client(client: Client | None) -> Iterator[Client]:
    if client is not None:
        yield client
        return
    with thread_client(READERS) as own:
        yield own


@contextmanager
def _alone(
    checkpoints: CheckpointFolder, ranks: Ranks, progress: Progress
) -> Iterator[Callable[[], None]]:
    """One training at a time writes a model; what it yields raises when another one does."""
    if not ranks.leads:
        yield lambda: None
        return
    with driver_lock(str(checkpoints.path), wait=progress.say) as lock:
        yield lock.check


def remove_empty(folder: Path) -> None:
    """Delete a folder of a finished training, unless somebody has put something there."""
    for path in (folder / "0", folder):  # where the lock was, and all of it
        with suppress(OSError):
            path.rmdir()


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
