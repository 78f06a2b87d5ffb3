"""How fast prediction is, against what is possible and against CAREamics 0.3.5, in one run.

    python benchmarks/predict.py                     # end to end against the bare network; halo
    python benchmarks/predict.py --peer .peer        # and against CAREamics, installed into .peer
    python benchmarks/predict.py --device cuda --shape 512,1024,1024

End to end: the useful voxels a second of a whole `predict`, and of its blocks alone (without
starting and stopping the workers), over those of the network by itself, with the same tiles in
memory, each once, in as many processes at a time as there were workers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from peer import run_peer

from n2v_scale.allocator import keep_slabs
from n2v_scale.api import open_volume, plan_prediction, predict, train
from n2v_scale.config import PredictSettings
from n2v_scale.costs import forecast_plan
from n2v_scale.denoiser import Normalisation, Region, open_denoiser
from n2v_scale.geometry import Box
from n2v_scale.metrics import psnr
from n2v_scale.place import LOCAL
from n2v_scale.plan import Plan, make_plan
from n2v_scale.simulate import simulate_light_sheet

PEER_TILE = (64, 128, 128)
"""Of both, for the seams; for the speed we take what the plan says."""


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=ints, default=(512, 512, 1024))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--net", default="filter-unet", choices=["filter-unet", "unet"])
    parser.add_argument("--memory", default=None, help="of one worker")
    parser.add_argument("--only", choices=["speed", "halo", "peer"], help="one part of it")
    parser.add_argument("--peer", type=Path, help="folder of CAREamics's environment; made")
    parser.add_argument("--peer-steps", type=int, default=60)
    parser.add_argument("--peer-shape", type=ints, default=(64, 256, 256))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as folder:
        if options.only in (None, "speed"):
            found["end_to_end"] = end_to_end(Path(folder), options)
        if options.only in (None, "halo"):
            found["halo"] = halo_overheads(Path(folder))
        if options.peer and options.only in (None, "peer"):
            found["careamics"] = against_careamics(Path(folder), options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def ints(text: str) -> tuple[int, ...]:
    """``64,256,256`` as numbers."""
    return tuple(int(part) for part in text.split(","))


def model_of(volume: Path, folder: Path, net: str, steps: int = 2) -> Path:
    """A model trained for a few steps: its speed does not depend on what it learned."""
    path = folder / f"{volume.stem}-{net}-{steps}.n2v"
    if not path.exists():
        train(volume, path, net=net, steps=steps)
    return path


def end_to_end(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Useful voxels a second of a whole prediction over those of the bare network."""
    values = np.random.default_rng(0).poisson(100, options.shape).astype(np.uint16)
    np.save(folder / "values.npy", values)
    volume = folder / "volume.zarr"
    write_zarr(values, volume)
    model = model_of(volume, folder, options.net)
    settings: dict[str, Any] = {"device": options.device, "memory": options.memory}
    plan = plan_prediction(volume, model, folder / "out.zarr", **settings)
    events = folder / "events.jsonl"
    workers = min(plan.blocks, LOCAL.budget(PredictSettings(**settings), plan.device).workers)
    before = bare_seconds(plan, workers, 0)
    summary = predict(volume, model, folder / "out.zarr", events=events, **settings)
    between = block_seconds(events)
    # Half of the tiles before and half after: other things may run on this machine.
    bare = summary.voxels / (before + bare_seconds(plan, workers, 1))
    whole, blocks = summary.voxels / summary.seconds, summary.voxels / between
    print(f"end to end, {options.net}, {options.device}, tile {plan.tile}, block {plan.block}")
    print(f"  bare network, {workers} processes {bare / 1e6:10.3f} Mvoxel/s")
    print(f"  blocks alone               {blocks / 1e6:10.3f} Mvoxel/s   ratio {blocks / bare:.3f}")
    print(f"  the whole command          {whole / 1e6:10.3f} Mvoxel/s   ratio {whole / bare:.3f}")
    parts = {"read": summary.read_s, "compute": summary.compute_s, "write": summary.write_s}
    busy = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
    print(f"  computing {parts['compute'] / (workers * between):.1%} of the time of the blocks")
    print(f"  of {summary.workers} workers for {summary.seconds:.1f} s: {busy}", flush=True)
    return {"bare": bare, "blocks": blocks, "whole": whole, **summary.to_dict()}


def block_seconds(events: Path) -> float:
    """From the first block's start to the last one's end."""
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    done = [e for e in lines if e["event"] == "BlockDone" and e["level"] == "0"]
    parts = ("read_s", "wait_s", "compute_s", "write_s")
    return max(e["time"] for e in done) - min(e["time"] - sum(e[p] for p in parts) for e in done)


def bare_seconds(plan: Plan, processes: int, half: int) -> float:
    """How long forward passes alone take for every other tile, in so many processes at a time."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        parts = [(plan, half + 2 * k, 2 * processes) for k in range(processes)]
        return sum(pool.starmap(bare_process, parts)) / processes


def bare_process(plan: Plan, first: int, step: int) -> float:
    """Seconds that one process takes for its share of the plan's tiles, once it is warm."""
    keep_slabs()
    denoiser = open_denoiser(plan.denoiser, plan.open_options)
    tiles = [tile for block in plan.iterate() for tile in plan.tiles(block)][first::step]
    rng = np.random.default_rng(0)
    data = {t.data.shape: rng.normal(100, 10, t.data.shape).astype(np.float32) for t in tiles}
    small = denoiser.stride
    denoiser.denoise(np.zeros(small, np.float32), Region(0, 0, Box.whole(small), small))
    started = time.perf_counter()
    for tile in tiles:
        denoiser.denoise(data[tile.data.shape], Region(0, 0, tile.core, plan.shape))
    return time.perf_counter() - started


def halo_overheads(folder: Path) -> dict[str, dict[str, float]]:
    """What the halo costs in the plans for a terabyte at three budgets; nothing is run."""
    shape = (2048, 16384, 16384)
    path = folder / "terabyte.zarr"
    zarr.create_array(
        str(path), shape=shape, chunks=(64,) * 3, shards=(512,) * 3, dtype="uint16", fill_value=1
    )
    rows = {}
    print("\nhalo, 1 TB of uint16 (2048 x 16384 x 16384), 8 workers")
    small = folder / "small.zarr"
    write_zarr(np.random.default_rng(0).poisson(100, (64, 64, 64)).astype(np.uint16), small)
    for net in ("filter-unet", "unet"):
        model = model_of(small, folder, net)
        for memory in ("4GB", "16GB", "64GB"):
            rows[f"{net} {memory}"] = row = halo_row(path, model, folder, memory)
            text = "  ".join(f"{name} {value}" for name, value in row.items())
            print(f"  {net:12}{memory:>5}  {text}")
    return rows


def halo_row(path: Path, model: Path, folder: Path, memory: str) -> dict[str, Any]:
    """Of one plan."""
    settings = PredictSettings(memory=memory, workers=8, device="cpu")
    budget = LOCAL.budget(settings, "cpu")
    plan = make_plan(
        open_volume(path),
        open_denoiser(str(model)),
        str(model),
        str(folder / "none.zarr"),
        settings,
        normalisation=Normalisation((0.0,), (1.0,)),  # nothing is there to be sampled
        device="cpu",
        threads=1,
        budget=budget,
    )
    outlook = forecast_plan(plan, budget, speed=1.0)
    return {
        "tile": "x".join(map(str, plan.tile)),
        "block": "x".join(map(str, plan.block)),
        "peak_GB": round(outlook.memory.total / 1e9, 2),
        "recomputed": round(outlook.compute_overhead - 1, 3),
        "reread": round(outlook.read_overhead - 1, 3),
    }


def write_zarr(values: np.ndarray, path: Path) -> None:
    """As a sharded zarr array."""
    shards = tuple(min(256, -(-n // 64) * 64) for n in values.shape)
    zarr.create_array(str(path), data=values, chunks=(64,) * 3, shards=shards)


def against_careamics(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The same volume: speed a CPU second, PSNR, and what tiling changes."""
    simulated = simulate_light_sheet(shape=options.peer_shape)
    truth = simulated.clean
    np.save(folder / "noisy.npy", simulated.noisy.astype(np.float32))
    peer_dir = folder / "peer"
    steps = str(options.peer_steps)
    peer = run_peer(options.peer, folder / "noisy.npy", peer_dir, "--steps", steps)
    span = float(np.percentile(truth, 99.9) - truth.min())
    rows = {"CAREamics 0.3.5": peer_row(peer, peer_dir, truth, span)}
    volume = folder / "peer_volume.zarr"
    write_zarr(simulated.noisy, volume)
    for net in ("unet", "filter-unet"):
        rows[f"ours, {net}"] = our_row(volume, folder, net, peer["train_cpu_s"], truth, span)
    reference = rows["CAREamics 0.3.5"]["mvoxel_per_cpu_s"]
    print("\nsame volume, one thread; training of the same CPU time")
    for name, row in rows.items():
        row["ratio"] = row["mvoxel_per_cpu_s"] / reference
        print(
            f"  {name:20}{row['mvoxel_per_cpu_s']:8.3f} Mvoxel/CPU s  ratio {row['ratio']:5.2f}  "
            f"PSNR {row['psnr']:6.2f}  tiled - whole: {row['seam']:.1e} of the std"
        )
    return rows


def peer_row(peer: dict[str, float], out: Path, truth: np.ndarray, span: float) -> dict[str, float]:
    """CAREamics's figures."""
    tiled, whole = (np.load(out / f"{name}.npy") for name in ("tiled", "whole"))
    return {
        "mvoxel_per_cpu_s": truth.size / peer["tiled_cpu_s"] / 1e6,
        "psnr": psnr(tiled, truth, span),
        "seam": float(np.abs(tiled - whole).max() / whole.std()),
    }


def our_row(
    volume: Path, folder: Path, net: str, train_cpu_s: float, truth: np.ndarray, span: float
) -> dict[str, float]:
    """Ours, trained for as much CPU time on one thread."""
    model = folder / f"peer-{net}.n2v"
    train(volume, model, net=net, minutes=train_cpu_s / 60, threads=1, device="cpu")
    settings: dict[str, Any] = {"device": "cpu", "threads": 1, "memory": "4GB"}
    plan = plan_prediction(volume, model, folder / "x.zarr", **settings)
    started = cpu_seconds()
    tiled = in_tiles(plan)
    seconds = cpu_seconds() - started
    small = plan_prediction(volume, model, folder / "x.zarr", **settings, tile=PEER_TILE)
    return {
        "mvoxel_per_cpu_s": truth.size / seconds / 1e6,
        "psnr": psnr(tiled, truth, span),
        "seam": seam(small, in_tiles(small)),
    }


def in_tiles(plan: Plan) -> np.ndarray:
    """The whole volume, tile by tile, float32, in this process: what a worker computes."""
    denoiser = open_denoiser(plan.denoiser, plan.open_options)
    out = np.empty(plan.shape, np.float32)
    for block in plan.iterate():
        for tile in plan.tiles(block):
            values = plan.volume.read(0, 0, tile.data).astype(np.float32)
            out[tile.core.slices] = denoiser.denoise(
                values, Region(0, 0, tile.core, plan.shape)
            ).mean
    return out


def seam(plan: Plan, tiled: np.ndarray) -> float:
    """The largest difference from one pass over the whole volume, in its standard deviations."""
    denoiser = open_denoiser(plan.denoiser, plan.open_options)
    box = Box.whole(plan.shape)
    values = plan.volume.read(0, 0, box).astype(np.float32)
    whole = denoiser.denoise(values, Region(0, 0, box, plan.shape)).mean
    return float(np.abs(tiled - whole).max() / whole.std())


def cpu_seconds() -> float:
    """Of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
