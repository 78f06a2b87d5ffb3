"""Classical baselines: a filter calibrated on the noisy volume, and then applied like a model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from distributed import Client
from distributed.system import memory_limit

from n2v_scale.calibration import calibrated_filter
from n2v_scale.calibration_plot import draw_calibration
from n2v_scale.classical import filter_named
from n2v_scale.config import PredictSettings
from n2v_scale.cores import available_cores
from n2v_scale.errors import ConfigError
from n2v_scale.filter_card import FilterCard, read_calibration
from n2v_scale.io.stores import is_url
from n2v_scale.io.volume import Volume
from n2v_scale.output import check_place
from n2v_scale.place import MEMORY_SHARE
from n2v_scale.progress import Progress

NETWORK_ONLY = {
    *("device", "precision", "threads", "plain", "tta", "write"),
    *("posterior", "gain", "offset", "read_noise"),
}
"""Settings that a filter has no use for."""


def prepare_filter(
    volume: Volume,
    output: str,
    name: str,
    folder: str | None,
    *,
    settings: PredictSettings,
    values: list[float] | None,
    plot: str | None,
    overwrite: bool,
    client: Client | None,
    progress: Progress,
) -> Path:
    """The folder of the filter for ``output``, calibrated if need be, and drawn if wanted.

    Raises
    ------
    ConfigError
        When the output is a URL, and nobody said where the filter is to be.
    """
    place = Path(filter_folder(output, folder))
    check_place(output, volume)
    check_place(str(place), volume)
    progress.say(f"calibrating the {name} filter")
    with _tasks_on(client):
        card = calibrated_filter(
            volume, place, name, values=values, seed=settings.seed, overwrite=overwrite
        )
    progress.say(describe(card))
    if plot is not None:
        draw_calibration(Path(plot), read_calibration(place))
    return place


def filter_folder(output: str, folder: str | None) -> str:
    """Where the filter of an output is kept: as told, or beside it."""
    if folder is None and is_url(output):
        raise ConfigError(
            f"the output {output} is a URL, and the calibrated filter is a folder: say where it is "
            "to be, in a place that every worker sees (--calibrated FOLDER)"
        )
    return folder or f"{output}.filter"


def filter_settings(settings: PredictSettings, *, here: bool = True) -> PredictSettings:
    """On the CPU, and, on this machine, with a process a core: no filter has several threads.

    Raises
    ------
    ConfigError
        When something is set that only a network has.
    """
    given = {n for n in settings.model_fields_set & NETWORK_ONLY if n not in ("device", "threads")}
    if given or settings.device not in ("auto", "cpu"):
        what = ", ".join(sorted(given)) or f"device {settings.device}"
        raise ConfigError(f"a classical filter has no {what.replace('_', '-')}: leave it out")
    chosen: dict[str, object] = {"device": "cpu", "threads": 1}
    if here and settings.workers is None:
        room = available_cores()
        if settings.memory is not None:
            room = min(room, int(memory_limit() * MEMORY_SHARE) // settings.memory)
        chosen["workers"] = max(1, room)
    return settings.model_copy(update=chosen)


def describe(card: FilterCard) -> str:
    """The values that were chosen, for people."""
    found = ", ".join(
        f"{value:g}{f' (channel {channel})' if len(card.channels) > 1 else ''}"
        for channel, value in zip(card.channels, card.values, strict=True)
    )
    return f"{card.filter}: {filter_named(card.filter).parameter}: {found}"


def _tasks_on(client: Client | None) -> AbstractContextManager[object]:
    """The client becomes the current one, that Dask computes on."""
    return nullcontext() if client is None else client.as_current()
