"""Volumes: denoise one, copy one, look after what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distributed import Client

from n2v_scale.api.arguments import Address, Cluster, VolumeLike, as_volume
from n2v_scale.baselines import filter_settings, prepare_filter
from n2v_scale.config import (
    OutputSettings,
    PredictSettings,
    read_settings,
)
from n2v_scale.costs import Forecast, forecast_plan
from n2v_scale.events import events_to
from n2v_scale.execution import Summary, run_plan
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import normalise
from n2v_scale.place import place_of
from n2v_scale.plan import Plan
from n2v_scale.prediction import make_copy_plan, make_prediction_plan
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.verification import (
    Verification,
    pyramid_of,
    repair_output,
    stored_plan,
    verify_output,
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
            as_volume(volume, storage), model, output, chosen, storage=storage, place=place
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
    opened = as_volume(volume, storage)
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
    opened = as_volume(volume, StorageOptions.of(storage_options))
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
    plan = make_copy_plan(as_volume(source, storage), output, chosen, storage=storage)
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
