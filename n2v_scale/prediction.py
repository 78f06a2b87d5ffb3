"""A whole run over a volume: plan, output, blocks, pyramid, end."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from distributed import Client

from n2v_scale.blocks import recheck_blocks, run_blocks
from n2v_scale.cluster import local_client
from n2v_scale.config import PredictSettings
from n2v_scale.cores import available_cores, split_cores
from n2v_scale.denoiser import IDENTITY, Denoiser, Normalisation, open_denoiser
from n2v_scale.errors import IncompleteError
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.output import Output, accept_input, check_place, finish_output, prepare_output
from n2v_scale.plan import Plan, make_plan
from n2v_scale.progress import NoProgress, Progress
from n2v_scale.pyramid import run_pyramid
from n2v_scale.sizes import storage_shapes
from n2v_scale.statistics import normalisation_from, sample_statistics

COPY_BLOCK_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    output: str
    blocks: int
    computed: int
    """Blocks of this run; the others were done before."""
    voxels: int
    already_finished: bool
    """Nothing was left to do."""
    seconds: float
    read_s: float
    compute_s: float
    write_s: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def make_prediction_plan(
    volume: Volume, model: str | Path, output: str | Path, settings: PredictSettings
) -> Plan:
    """Every decision about applying ``model`` to ``volume``; nothing is written."""
    address = normalise(model)
    check_place(normalise(output), volume)
    denoiser = open_denoiser(address)
    denoiser.check_fits(volume)
    threads = settings.threads or split_cores(available_cores())[1]
    return make_plan(
        volume,
        denoiser,
        address,
        normalise(output),
        settings,
        normalisation=_normalisation(denoiser, volume, settings.seed),
        device=_device(settings.device),
        threads=threads,
        identity=volume.identity(),
    )


def make_copy_plan(volume: Volume, output: str | Path, settings: PredictSettings) -> Plan:
    """Copy a volume as it is. Blocks grow to whole planes where the input is stored in planes."""
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


def _device(wanted: str) -> str:
    if wanted == "cpu":
        return wanted
    from n2v_scale.devices import choose_device

    return choose_device(wanted)


def run_plan(
    plan: Plan,
    settings: PredictSettings,
    *,
    overwrite: bool = False,
    client: Client | None = None,
    progress: Progress | None = None,
    name: str = "predicting",
) -> Summary:
    """Write what is missing of the plan's output; on a finished one, nothing.

    Raises
    ------
    IncompleteError
        When blocks failed. The others are written; the same call computes only these.
    OutputError, PlanError
        When the output cannot be begun or taken up.
    """
    started = perf_counter()
    progress = progress or NoProgress()
    output = prepare_output(plan, settings, overwrite=overwrite)
    plan = output.plan
    if output.complete:
        return _summary(plan, [], started, already_finished=True)
    with _client(client, plan) as used:
        if output.input_changed:
            recheck_blocks(plan, used, progress)
            accept_input(output)
        reports, failed = run_blocks(plan, used, progress, name=name)
        _raise_incomplete(output, failed, f"of {plan.blocks} blocks")
        _raise_incomplete(output, run_pyramid(plan, used, progress), "blocks of the pyramid")
    finish_output(output)
    return _summary(plan, reports, started)


def _client(client: Client | None, plan: Plan) -> AbstractContextManager[Client]:
    if client is not None:
        return nullcontext(client)
    workers = 1 if plan.device != "cpu" else split_cores(available_cores())[0]
    return local_client(min(workers, plan.blocks))


def _raise_incomplete(output: Output, failed: dict[int, str], what: str) -> None:
    if not failed:
        return
    listed = [f"  block {number}: {why}" for number, why in sorted(failed.items())[:20]]
    more = [f"  … and {len(failed) - 20} more"] if len(failed) > 20 else []
    raise IncompleteError(
        f"{output.plan.output.store}: {len(failed)} {what} failed and are not written; "
        " the others are. The same command computes only what is missing.\n"
        + "\n".join(listed + more)
    )


def _summary(
    plan: Plan, reports: list[Any], started: float, *, already_finished: bool = False
) -> Summary:
    return Summary(
        output=plan.output.store,
        blocks=plan.blocks,
        computed=len(reports),
        voxels=sum(r.voxels for r in reports),
        already_finished=already_finished,
        seconds=perf_counter() - started,
        read_s=sum(r.read_s for r in reports),
        compute_s=sum(r.compute_s for r in reports),
        write_s=sum(r.write_s for r in reports),
    )
