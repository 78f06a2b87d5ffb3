"""The plans of whole runs: a prediction, and a copy."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike

from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import IDENTITY, Denoiser, Normalisation, OpenOptions, open_denoiser
from n2v_scale.errors import ConfigError
from n2v_scale.foreground import Foreground, open_foreground
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import normalise, remember
from n2v_scale.io.volume import Volume
from n2v_scale.known_noise import noise_for
from n2v_scale.ledger import Ledger
from n2v_scale.output import check_place
from n2v_scale.place import LOCAL, Place
from n2v_scale.plan import Plan, make_plan
from n2v_scale.precision import FULL, Trial, choose_precision
from n2v_scale.resume import begun_with
from n2v_scale.sizes import storage_shapes
from n2v_scale.statistics import normalisation_from, sample_statistics

Address = str | PathLike[str]

COPY_BLOCK_BYTES = 512 * 2**20


def make_prediction_plan(
    volume: Volume,
    model: Address,
    output: Address,
    settings: PredictSettings,
    *,
    storage: StorageOptions | None = None,
    resume: bool = True,
    place: Place = LOCAL,
) -> Plan:
    """Every decision about applying ``model`` to ``volume``; nothing is written.

    To ``resume`` an output, sizes that nobody asked for are those that it was begun with.
    """
    address = normalise(model)
    remember(normalise(output), storage or StorageOptions())
    check_place(normalise(output), volume)
    if resume:
        settings = begun_with(settings, Ledger(normalise(output), "").record())
    denoiser = open_denoiser(address, OpenOptions(plain=settings.plain))
    denoiser.check_fits(volume)
    _check_options(denoiser, settings)
    device = place.device(settings.device)
    budget = place.budget(settings, device)
    normalisation = _normalisation(denoiser, volume, settings.seed)
    known = noise_for(denoiser, volume, settings)
    precision = _precision(address, settings, device, normalisation, volume, place)
    options = OpenOptions(
        normalisation=normalisation,
        device=device,
        precision=precision.precision,
        noise=known.noise,
        plain=settings.plain,
        tta=settings.tta,
        std=settings.parts > 1,
    )
    opened = open_denoiser(address, options)
    _check_std(opened, settings)
    plan = make_plan(
        volume,
        opened,
        address,
        normalise(output),
        settings,
        normalisation=normalisation,
        noise=known.noise,
        device=device,
        threads=settings.threads or budget.threads,
        identity=volume.identity(),
        precision=precision.precision,
        foreground=_foreground(settings, volume, storage),
        storage=storage,
        budget=budget,
    )
    return replace(
        plan,
        precision_error=precision.error,
        precision_is_open=_is_open(settings, device, place),
        no_posterior=known.why_not,
    )


def _check_options(denoiser: Denoiser, settings: PredictSettings) -> None:
    """Refuse what the denoiser would not heed."""
    if settings.plain and not denoiser.several_passes:
        raise ConfigError("--plain is for a model of several passes, such as n2s: leave it out")
    if settings.tta and not denoiser.needs_normalisation:
        raise ConfigError("--tta is for networks, and this is a filter: leave it out")


def _check_std(denoiser: Denoiser, settings: PredictSettings) -> None:
    """Refuse standard deviations that nobody knows.

    Raises
    ------
    ConfigError
        That says what to do instead.
    """
    if settings.write == "mean" or denoiser.knows_std:
        return
    if denoiser.blind:
        raise ConfigError(
            f"--output {settings.write} needs the posterior, and it is left out: its noise does "
            "not show in the volume or is correlated, or --no-posterior was given; pass the "
            "camera's --gain, --offset and --read-noise, or --posterior"
        )
    remedy = "leave out --plain" if settings.plain else "train with --method linear, n2s or ssdn"
    raise ConfigError(
        f"--output {settings.write} is for a model that knows its error, one that predicts a voxel "
        f"without having seen it, and this one sees it: {remedy}, or leave out --output"
    )


def _precision(
    address: str,
    settings: PredictSettings,
    device: str,
    normalisation: Normalisation | None,
    volume: Volume,
    place: Place,
) -> Trial:
    """As asked for, and then its error is not known; else the fastest that is good enough.

    Until a worker has been asked: float32.
    """
    if _is_open(settings, device, place):
        return Trial(FULL, 0.0, None)
    if settings.precision != "auto":
        return Trial(settings.precision, 0.0, None)
    options = OpenOptions(normalisation, device, settings.threads)
    return choose_precision(address, options, volume)


def _is_open(settings: PredictSettings, device: str, place: Place) -> bool:
    """Whether the precision is to be tried, and not here."""
    return settings.precision == "auto" and device != "cpu" and not place.here


def _foreground(
    settings: PredictSettings, volume: Volume, storage: StorageOptions | None
) -> Foreground | None:
    if settings.mask is None:
        return None
    return open_foreground(settings.mask, volume, storage_options=storage)


def make_copy_plan(
    volume: Volume,
    output: Address,
    settings: PredictSettings,
    *,
    storage: StorageOptions | None = None,
) -> Plan:
    """Copy a volume as it is. Blocks grow to whole planes where the input is stored in planes."""
    remember(normalise(output), storage or StorageOptions())
    check_place(normalise(output), volume)
    if settings.block is None:
        settings = _copy_block(volume, settings)
    denoiser = open_denoiser(IDENTITY)
    tile = storage_shapes(volume.spatial_shape, settings)[2]
    plan = make_plan(
        volume,
        denoiser,
        IDENTITY,
        normalise(output),
        settings.model_copy(update={"tile": tile}),
        normalisation=None,
        device="cpu",
        threads=1,
        identity=volume.identity(),
        storage=storage,
    )
    return replace(plan, on_nan="keep")


def _copy_block(volume: Volume, settings: PredictSettings) -> PredictSettings:
    """A block that covers the input's chunks along Y and X, so that planes are decoded once."""
    chunk, shard, block = storage_shapes(volume.spatial_shape, settings)
    wide = [
        -(-n // s) * s if c > s else b
        for n, c, s, b in zip(volume.spatial_shape, volume.chunk, shard, block, strict=True)
    ]
    if wide[0] * wide[1] * wide[2] * 4 > COPY_BLOCK_BYTES:
        return settings
    return settings.model_copy(update={"block": tuple(wide), "shard": shard, "chunk": chunk})


def _normalisation(denoiser: Denoiser, volume: Volume, seed: int) -> Normalisation | None:
    """The training volume's constants for itself; an unseen volume's own, sampled once."""
    if not denoiser.needs_normalisation:
        return None
    known = denoiser.normalisation_for(volume)
    return known or normalisation_from(sample_statistics(volume, seed=seed), volume.address)
