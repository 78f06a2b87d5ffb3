"""The public verbs. Everything here is re-exported by the package."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from distributed import Client

from n2v_scale.config import OutputSettings, PredictSettings, TrainSettings, read_settings
from n2v_scale.evaluation import Evaluation, evaluate_volumes
from n2v_scale.io.open import open_volume
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.lazy import denoise
from n2v_scale.model import Model, load_model
from n2v_scale.plan import Plan
from n2v_scale.prediction import Summary, make_copy_plan, make_prediction_plan, run_plan
from n2v_scale.progress import Progress

Address = str | PathLike[str]
VolumeLike = Address | Volume


def train(
    volume: VolumeLike,
    output: Address,
    *,
    config: Address | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Model:
    """Train a denoiser on one noisy volume and write it as a model folder.

    Nothing needs to be set: network, patches and schedule follow from the volume.

    Parameters
    ----------
    volume
        An address, or what :func:`open_volume` returns (with channels, time points or a level
        selected). Time points and channels share one network; each channel has a normalisation of
        its own.
    output
        The folder to write; it must not exist, unless ``overwrite``.
    config
        A TOML file with settings; ``settings`` override it.
    client
        A Dask client whose workers read the patches; threads of this process when None.
    settings
        Fields of :class:`n2v_scale.config.TrainSettings`, such as ``steps``, ``minutes``,
        ``patch``, ``batch``, ``net``, ``seed``, ``device``.

    Returns
    -------
    Model
        Opened from ``output``.

    Raises
    ------
    InputError, ConfigError, OutputError, TrainingError
        Each says what was seen and what to do.
    """
    from n2v_scale.training import train_model

    return train_model(
        _volume(volume),
        Path(normalise(output)),
        read_settings(TrainSettings, config, **settings),
        overwrite=overwrite,
        client=client,
        progress=progress,
    )


def plan_prediction(
    volume: VolumeLike,
    model: Address,
    output: Address,
    *,
    config: Address | None = None,
    **settings: Any,
) -> Plan:
    """Every decision about applying ``model`` to ``volume``, before anything runs.

    ``settings`` are fields of :class:`n2v_scale.config.PredictSettings`. Raises
    :class:`n2v_scale.errors.ModelError` when the model does not fit, and
    :class:`n2v_scale.errors.PlanError` when the sizes contradict each other.
    """
    chosen = read_settings(PredictSettings, config, **settings)
    return make_prediction_plan(_volume(volume), Path(model), Path(output), chosen)


def predict(
    volume: VolumeLike,
    model: Address,
    output: Address,
    *,
    config: Address | None = None,
    overwrite: bool = False,
    client: Client | None = None,
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
        The OME-Zarr to write.
    client
        A Dask client; a local cluster with TLS when None. It starts processes: call it from
        within ``if __name__ == "__main__":`` in a script.
    settings
        Fields of :class:`n2v_scale.config.PredictSettings`, such as ``block``, ``tile``,
        ``chunk``, ``shard``, ``dtype``, ``codec``, ``ome_version``, ``device``.

    Raises
    ------
    IncompleteError
        When some blocks failed; they are named, and the others are written.
    InputError, ModelError, ConfigError, OutputError, PlanError
        Each says what was seen and what to do.
    """
    chosen = read_settings(PredictSettings, config, **settings)
    plan = make_prediction_plan(_volume(volume), Path(model), Path(output), chosen)
    return run_plan(plan, chosen, overwrite=overwrite, client=client, progress=progress)


def import_volume(
    source: VolumeLike,
    output: Address,
    *,
    overwrite: bool = False,
    client: Client | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Summary:
    """Copy any readable volume into a sharded, pyramidal OME-Zarr, voxel for voxel, streamed.

    ``settings`` are fields of :class:`n2v_scale.config.OutputSettings`; the others are as in
    :func:`predict`, resuming included.
    """
    given = read_settings(OutputSettings, None, **settings)
    chosen = PredictSettings(**given.model_dump(exclude_unset=True))
    plan = make_copy_plan(_volume(source), Path(output), chosen)
    return run_plan(
        plan, chosen, overwrite=overwrite, client=client, progress=progress, name="importing"
    )


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


def _volume(volume: VolumeLike) -> Volume:
    return volume if isinstance(volume, Volume) else open_volume(volume)


__all__ = [
    "Evaluation",
    "Model",
    "Plan",
    "Summary",
    "Volume",
    "denoise",
    "evaluate",
    "import_volume",
    "load_model",
    "open_volume",
    "plan_prediction",
    "predict",
    "train",
]
