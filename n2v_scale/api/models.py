"""Models: train one, write it for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Client

from n2v_scale.api.arguments import Address, Cluster, VolumeLike, as_volume
from n2v_scale.config import (
    PredictSettings,
    TrainSettings,
    read_settings,
)
from n2v_scale.errors import InputError
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.model import Model
from n2v_scale.place import place_of
from n2v_scale.progress import Progress

if TYPE_CHECKING:
    from n2v_scale.export import ExportSummary


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
    opened, chosen = (
        [as_volume(v) for v in volumes],
        read_settings(TrainSettings, config, **settings),
    )
    with place_of(cluster, client) as place:
        return train_model(
            opened,
            Path(normalise(output)),
            chosen,
            overwrite=overwrite,
            place=place,
            progress=progress,
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
