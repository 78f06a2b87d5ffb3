"""The public verbs. Everything here is re-exported by the package."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client

from n2v_scale.baselines import filter_settings, prepare_filter
from n2v_scale.cluster_settings import ClusterSettings, read_cluster
from n2v_scale.config import (
    CameraSettings,
    OutputSettings,
    PredictSettings,
    TrainSettings,
    read_settings,
)
from n2v_scale.costs import Forecast, forecast_plan
from n2v_scale.diagnosis import Diagnosis, diagnose_volume
from n2v_scale.errors import InputError
from n2v_scale.evaluation import Evaluation, evaluate_volumes
from n2v_scale.events import events_to
from n2v_scale.execution import Summary, run_plan
from n2v_scale.io.open import open_volume
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.lazy import denoise
from n2v_scale.model import Model, load_model
from n2v_scale.pair_evaluation import PairEvaluation, evaluate_captures
from n2v_scale.place import place_of
from n2v_scale.plan import Plan
from n2v_scale.prediction import make_copy_plan, make_prediction_plan
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.reporting import ReportSummary, make_report
from n2v_scale.self_evaluation import SelfEvaluation, evaluate_itself
from n2v_scale.verification import (
    Verification,
    pyramid_of,
    repair_output,
    stored_plan,
    verify_output,
)

if TYPE_CHECKING:
    from n2v_scale.export import ExportSummary

Address = str | PathLike[str]
VolumeLike = Address | Volume
Cluster = ClusterSettings | str
"""``local``, a batch system, a scheduler's address or a preset, or what :func:`read_cluster` makes
of these with more settings."""


def train(
    volume: VolumeLike | Sequence[VolumeLike],
    output: Address,
    *,
    config: Address | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Train a denoiser on noisy volumes and write it as a model folder.

    Nothing needs to be set: network, patches and schedule follow from the volume. The same call,
    run again, goes on where an interrupted one has stopped; on a finished model it does nothing.

    Parameters
    ----------
    volume
        An address, or what :func:`open_volume` returns (with channels, time points or a level
        selected), or several of these. Volumes, time points and channels share one network; each
        channel of each volume has a normalisation of its own.
    output
        The folder to write. Checkpoints lie beside it, in ``<output>.training``, until it is
        finished.
    overwrite
        Whether to begin afresh, whatever is there.
    config
        A TOML file with settings; ``settings`` override it.
    client
        A Dask client whose workers read the patches; threads of this process when None.
    cluster
        Where to start workers that read the patches, instead; the network is trained here.
    settings
        Fields of :class:`n2v_scale.config.TrainSettings`, such as ``preset``, ``steps``,
        ``minutes``, ``patch``, ``batch``, ``net``, ``init``, ``foreground``, ``devices``, ``seed``.
        With ``devices`` above 1 it starts processes: call it from within
        ``if __name__ == "__main__":`` in a script.

    Returns
    -------
    Model
        Opened from ``output``.

    Raises
    ------
    InputError, ConfigError, OutputError, TrainingError
        Each says what was seen and what to do.
    KeyboardInterrupt
        At SIGTERM and Ctrl-C, once the state is kept. At SIGUSR1 it is kept as well, and training
        goes on.
    """
    from n2v_scale.training import train_model

    volumes = [volume] if isinstance(volume, str | PathLike | Volume) else list(volume)
    if not volumes:
        raise InputError("no volume to train on was given")
    opened, chosen = [_volume(v) for v in volumes], read_settings(TrainSettings, config, **settings)
    with place_of(cluster, client) as place:
        return train_model(
            opened,
            Path(normalise(output)),
            chosen,
            overwrite=overwrite,
            place=place,
            progress=progress,
        )


def plan_prediction(
    volume: VolumeLike,
    model: Address,
    output: Address,
    *,
    config: Address | None = None,
    cluster: Cluster | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Plan:
    """Every decision about applying ``model`` to ``volume``, before anything runs.

    ``settings`` are fields of :class:`n2v_scale.config.PredictSettings`, ``cluster`` is where it
    is to run; :func:`forecast` says what it will take. Raises
    :class:`n2v_scale.errors.ModelError` when the model does not fit, and
    :class:`n2v_scale.errors.PlanError` when the sizes contradict each other, or need more memory
    than a worker has.
    """
    chosen = read_settings(PredictSettings, config, **settings)
    storage = StorageOptions.of(storage_options)
    with place_of(cluster) as place:
        return make_prediction_plan(
            _volume(volume, storage), model, output, chosen, storage=storage, place=place
        )


def forecast(
    plan: Plan,
    *,
    speed: float | None = None,
    config: Address | None = None,
    cluster: Cluster | None = None,
    **settings: Any,
) -> Forecast:
    """What a plan will take: blocks, bytes, the halo's cost, a worker's memory, time.

    ``speed`` is in voxels a second and worker; measured on one tile when None. ``settings`` are
    those that the plan was made with.
    """
    chosen = read_settings(PredictSettings, config, **settings)
    with place_of(cluster) as place:
        return forecast_plan(plan, place.budget(chosen, plan.device), speed=speed)


def predict(
    volume: VolumeLike,
    model: Address,
    output: Address,
    *,
    config: Address | None = None,
    overwrite: bool = False,
    only: slice | list[int] | None = None,
    pyramid: bool = True,
    events: Address | None = None,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Summary:
    """Denoise a volume of any size into a new OME-Zarr with a pyramid.

    The result equals one forward pass over the whole volume. The same call, run again, goes on
    with what is missing; on a finished output it does nothing.

    Parameters
    ----------
    volume
        An address, or what :func:`open_volume` returns.
    model
        A folder that :func:`train` wrote.
    output
        The OME-Zarr to write: a path, or a URL that fsspec knows.
    only
        Numbers of the blocks to compute; the others wait for another call.
    pyramid
        Whether to make the lower resolutions too; :func:`make_pyramid` can do it later.
    events
        A file to which one JSON object a line is appended: blocks, failures, workers.
    storage_options
        fsspec keywords for URLs, such as ``key``, ``secret``, ``endpoint_url``. They are written
        nowhere.
    client
        A Dask client whose workers compute, instead of ``cluster``.
    cluster
        Where to start workers: here, with TLS, when None. It starts processes: call it from
        within ``if __name__ == "__main__":`` in a script.
    settings
        Fields of :class:`n2v_scale.config.PredictSettings`, such as ``memory``, ``block``,
        ``tile``, ``chunk``, ``shard``, ``mask``, ``nodata``, ``dtype``, ``codec``, ``device``.

    Raises
    ------
    IncompleteError
        When some blocks failed; they are named, and the others are written.
    InputError, ModelError, ConfigError, OutputError, PlanError
        Each says what was seen and what to do.
    """
    chosen = read_settings(PredictSettings, config, **settings)
    storage = StorageOptions.of(storage_options)
    opened = _volume(volume, storage)
    with place_of(cluster, client) as place, events_to(events) as log:
        plan = make_prediction_plan(
            opened, model, output, chosen, storage=storage, resume=not overwrite, place=place
        )
        return run_plan(
            plan,
            chosen,
            place.budget(chosen, plan.device),
            overwrite=overwrite,
            only=only,
            pyramid=pyramid,
            client=place.client,
            cluster=place.settings,
            progress=progress,
            events=log,
        )


def baseline(
    volume: VolumeLike,
    output: Address,
    *,
    filter: str = "gaussian",  # noqa: A002 (the command's option has this name)
    calibrated: Address | None = None,
    values: Sequence[float] | None = None,
    plot: Address | None = None,
    config: Address | None = None,
    overwrite: bool = False,
    only: slice | list[int] | None = None,
    pyramid: bool = True,
    events: Address | None = None,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Summary:
    """Denoise a volume with a classical filter whose parameter is found on the volume itself.

    What a trained model is to be compared with. The parameter is the one with the least error at
    voxels that the filter does not see (Batson & Royer 2019), so no clean reference is needed. The
    result equals filtering the whole volume at once, and the same call, run again, finds the same
    filter and goes on with what is missing.

    Parameters
    ----------
    filter
        ``gaussian``, ``median``, ``nlm`` (non-local means), ``tv`` (total variation) or
        ``wavelet``.
    calibrated
        Folder of the calibrated filter, which :func:`predict` takes as a model; its
        ``calibration.json`` holds the losses. Default: ``<output>.filter``.
    values
        Of the parameter, to be tried instead of the filter's own candidates.
    plot
        A picture to draw of the losses; needs matplotlib.
    settings
        As in :func:`predict`, without those that only a network has; the other parameters too.

    Raises
    ------
    IncompleteError
        When some blocks failed; they are named, and the others are written.
    InputError, ModelError, ConfigError, OutputError, PlanError
        Each says what was seen and what to do.
    """
    here = client is None and cluster in (None, "local")
    chosen = filter_settings(read_settings(PredictSettings, config, **settings), here=here)
    opened = _volume(volume, StorageOptions.of(storage_options))
    folder = prepare_filter(
        opened,
        normalise(output),
        filter,
        None if calibrated is None else normalise(calibrated),
        settings=chosen,
        values=None if values is None else list(values),
        plot=None if plot is None else normalise(plot),
        overwrite=overwrite,
        client=client,
        progress=progress or NoProgress(),
    )
    return predict(
        opened,
        folder,
        output,
        overwrite=overwrite,
        only=only,
        pyramid=pyramid,
        events=events,
        storage_options=storage_options,
        client=client,
        cluster=cluster,
        progress=progress,
        **chosen.model_dump(exclude_unset=True),
    )


def import_volume(
    source: VolumeLike,
    output: Address,
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Summary:
    """Copy any readable volume into a sharded, pyramidal OME-Zarr, voxel for voxel, streamed.

    ``settings`` are fields of :class:`n2v_scale.config.OutputSettings`; the others are as in
    :func:`predict`, resuming included.
    """
    given = read_settings(OutputSettings, None, **settings)
    chosen = PredictSettings(**given.model_dump(exclude_unset=True))
    storage = StorageOptions.of(storage_options)
    plan = make_copy_plan(_volume(source, storage), output, chosen, storage=storage)
    with place_of(cluster, client) as place:
        return run_plan(
            plan,
            chosen,
            place.budget(chosen, plan.device),
            overwrite=overwrite,
            client=place.client,
            cluster=place.settings,
            progress=progress,
            name="importing",
        )


def verify(
    output: Address,
    *,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read every shard of an output back and compare it with what was written.

    Says which blocks are missing or damaged; changes nothing, and needs neither input nor model.
    :func:`repair` computes them again.
    """
    storage, store = StorageOptions.of(storage_options), normalise(output)
    stored_plan(store, storage)  # before jobs are asked for
    with place_of(cluster, client) as place, place.workers(progress) as used:
        return verify_output(store, storage=storage, client=used, progress=progress)


def repair(
    output: Address,
    *,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Verify an output, and compute what is damaged or missing again, and nothing else.

    Its input and its model must be where they were.
    """
    storage, store = StorageOptions.of(storage_options), normalise(output)
    stored_plan(store, storage)  # before jobs are asked for
    with place_of(cluster, client) as place, place.workers(progress) as used:
        return repair_output(store, storage=storage, client=used, place=place, progress=progress)


def make_pyramid(
    output: Address,
    *,
    storage_options: Mapping[str, Any] | None = None,
    client: Client | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Make the lower resolutions of an output whose full resolution is finished.

    Goes on where an earlier call was interrupted; on a finished output it does nothing.
    """
    storage, store = StorageOptions.of(storage_options), normalise(output)
    with place_of(cluster, client) as place:
        return pyramid_of(
            store, storage=storage, client=place.client, place=place, progress=progress
        )


def export_model(
    model: Address,
    *,
    bioimageio: Address | None = None,
    onnx: Address | None = None,
    torchscript: Address | None = None,
    overwrite: bool = False,
    write: str = "mean",
    posterior: bool | None = None,
    gain: float | None = None,
    offset: float | None = None,
    read_noise: float | None = None,
    name: str | None = None,
    license: str = "CC-BY-4.0",  # noqa: A002 (the command's option has this name)
    authors: Sequence[str] = (),
) -> ExportSummary:
    """Write a trained model as files that other programs run, one or several at once.

    Each file is opened again and compared with the model, on images of two sizes and in a batch;
    one that differs by more than 1e-4 of the output's standard deviation is not written.
    docs/models.md says what a file takes and gives.

    Parameters
    ----------
    model
        A folder that :func:`train` wrote.
    bioimageio, onnx, torchscript
        The files to write: a zip package for bioimage.io, validated; an ONNX graph; a TorchScript
        module. ONNX and bioimage.io need the extra ``export``.
    write
        ``mean,std`` adds the standard deviation as a second output, for methods that know it.
    posterior
        Whether each voxel's own value is put back in the graph, after a blind method: as in a
        prediction of the training volume when None.
    gain, offset, read_noise
        Of the camera, in the volume's units, for that; seen in the training volume, or on the
        card, when None.
    name, license, authors
        Of the package: the licence of the weights is an SPDX identifier.

    Raises
    ------
    ConfigError, ModelError, OutputError
        Each says what was seen and what to do; then nothing is written.
    """
    from n2v_scale.export import export_to
    from n2v_scale.export_package import About

    asked = {"write": write, "posterior": posterior, "gain": gain}
    asked |= {"offset": offset, "read_noise": read_noise, "device": "cpu"}
    named = {"bioimageio": bioimageio, "onnx": onnx, "torchscript": torchscript}
    return export_to(
        Path(normalise(model)),
        {kind: Path(normalise(to)) for kind, to in named.items() if to is not None},
        read_settings(PredictSettings, None, **asked),
        About(name, license, tuple(authors)),
        overwrite=overwrite,
    )


def diagnose(volume: VolumeLike, *, seed: int = 0) -> Diagnosis:
    """What noise a volume has, from a sample, and which method suits it.

    Gain, offset and read noise; the noise's correlation along z, y and x, at which the signal's own
    is held off; saturated, clipped and empty shares. ``recommendation.sentence`` says which method
    and which blind mask, and why.

    Raises
    ------
    InputError
        When the volume's voxel type is none that can be trained on.
    """
    return diagnose_volume(_volume(volume), seed=seed)


def evaluate(
    volume: VolumeLike,
    reference: VolumeLike,
    *,
    data_range: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a volume with a clean reference: PSNR, scale-invariant PSNR, SSIM.

    ``data_range`` is the PSNR's peak; by default the reference's 99.9th percentile minus its
    minimum, from a sample. Nothing grows with the volumes.
    """
    return evaluate_volumes(
        _volume(volume), _volume(reference), data_range=data_range, progress=progress
    )


def estimate_error(
    volume: VolumeLike,
    noisy: VolumeLike,
    *,
    model: Address | None = None,
    gain: float | None = None,
    offset: float | None = None,
    read_noise: float | None = None,
    data_range: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SelfEvaluation:
    """The error of a denoised volume, estimated from the noisy one, without a clean one.

    Right where the noise is independent from voxel to voxel and its variance is known: at 30 dB one
    percent of it is some tenths of a decibel. The interval says what is not known. A prediction
    that has not seen the voxels it predicts is taken as it is stored; for others, their model is
    applied again to sampled boxes (:mod:`n2v_scale.blind_error`).

    Parameters
    ----------
    volume
        The denoised one.
    noisy
        What it was made from.
    model
        The folder of the model that made it; the one on the output's record when None.
    gain, offset, read_noise
        Of the camera, in the volume's units; seen in a sample when None.
    data_range
        The PSNR's peak; by default the denoised volume's 99.9th minus its 0.1th percentile.

    Raises
    ------
    InputError, ModelError, ConfigError
        Each says what was seen and what to do.
    """
    told = read_settings(CameraSettings, None, gain=gain, offset=offset, read_noise=read_noise)
    return evaluate_itself(
        _volume(volume),
        _volume(noisy),
        model=None if model is None else normalise(model),
        camera=told.camera,
        data_range=data_range,
        seed=seed,
        progress=progress,
    )


def evaluate_pair(
    volume: VolumeLike,
    pair: VolumeLike,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> PairEvaluation:
    """The resolution of two captures of the same, where their Fourier shell correlation is 1/7.

    Both are noisy, or each was denoised on its own; voxel for voxel on one grid, each with noise of
    its own. The resolution is that of their mean (Rosenthal and Henderson 2003), over all of the
    volume, in all directions together, along XY and along Z. What is in both without being in the
    specimen counts as resolved: a camera's pattern, or what one model makes of noise by habit.

    Parameters
    ----------
    volume, pair
        The two captures.
    seed
        Of the sample: 64³ voxels or a chunk each, about 2^25 voxels a channel.

    Raises
    ------
    InputError
        When the two are not on one grid, or nothing of them can be compared.
    """
    return evaluate_captures(_volume(volume), _volume(pair), seed=seed, progress=progress)


def report(
    volume: VolumeLike,
    output: Address = "report.html",
    *,
    model: Address | None = None,
    noisy: VolumeLike | None = None,
    reference: VolumeLike | None = None,
    gain: float | None = None,
    offset: float | None = None,
    read_noise: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ReportSummary:
    """Write one HTML file that shows a denoised volume and whether to trust it.

    It holds all that it shows: no request leaves it, and it stays below 15 MB whatever the volume's
    size. Voxels are read from samples alone, but with a ``reference``, which is compared whole.

    Parameters
    ----------
    volume
        An output of :func:`predict` or :func:`baseline`.
    output
        The file; one that is there is replaced.
    model
        The folder of the model that made it; the one on the output's record when None.
    noisy
        What it was made from; the volume on the output's record when None.
    reference
        A clean volume, voxel for voxel.
    gain, offset, read_noise
        Of the camera, in the volume's units; seen in a sample when None.
    seed
        Of the places that are shown, and of the samples.

    Raises
    ------
    InputError, ConfigError, OutputError
        When this package did not write the volume, the noisy one is gone, a library is missing or
        the file cannot be written.
    """
    told = read_settings(CameraSettings, None, gain=gain, offset=offset, read_noise=read_noise)
    return make_report(
        _volume(volume),
        Path(output),
        noisy=noisy if noisy is None or isinstance(noisy, Volume) else os.fspath(noisy),
        reference=None if reference is None else _volume(reference),
        model=None if model is None else os.fspath(model),
        camera=told.camera,
        seed=seed,
        progress=progress,
    )


def _volume(volume: VolumeLike, storage: StorageOptions | None = None) -> Volume:
    return volume if isinstance(volume, Volume) else open_volume(volume, storage_options=storage)


__all__ = [
    "ClusterSettings",
    "Diagnosis",
    "Evaluation",
    "Forecast",
    "Model",
    "PairEvaluation",
    "Plan",
    "ReportSummary",
    "SelfEvaluation",
    "Summary",
    "Verification",
    "Volume",
    "baseline",
    "denoise",
    "diagnose",
    "estimate_error",
    "evaluate",
    "evaluate_pair",
    "export_model",
    "forecast",
    "import_volume",
    "load_model",
    "make_pyramid",
    "open_volume",
    "plan_prediction",
    "predict",
    "read_cluster",
    "repair",
    "report",
    "train",
    "verify",
]
