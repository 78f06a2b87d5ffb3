"""How good a model is after a given time, and how busy training keeps the device, in one run.

    python benchmarks/train.py --clean mousebrain_atlas_clean.tif               # ours
    python benchmarks/train.py --clean mousebrain_atlas_clean.tif --peer .peer  # beside CAREamics
    python benchmarks/train.py --only speed

Quality: the clean volume's crop [60:156, 0:192, 8:264] at 40 electrons (99.9th percentile), with
Poisson noise and read noise of 2.5 electrons; PSNR with a range of 40. Every time budget is a
training of its own, everything counted from the command on. Without ``--clean`` the volume is a
simulated one.

Speed: steps with batches streamed from a sharded zarr over the same steps with batches that lie in
memory, in turns; and the bytes that were decoded for a byte of patches, regions being whole chunks.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import zarr
from peer import run_peer

from n2v_scale.api import open_volume, train
from n2v_scale.architecture import design_for
from n2v_scale.batches import batches_of
from n2v_scale.budget import Budget
from n2v_scale.config import TrainSettings
from n2v_scale.cores import available_cores
from n2v_scale.denoiser import Region
from n2v_scale.devices import channels_last, choose_device, compute_exactly, torch_threads
from n2v_scale.geometry import Box
from n2v_scale.local_cluster import thread_client
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.metrics import psnr
from n2v_scale.nets import build_network
from n2v_scale.nets.filter_unet import FilterUNet
from n2v_scale.patches import PatchSampler
from n2v_scale.run import Run
from n2v_scale.simulate import simulate_light_sheet
from n2v_scale.sources import common_noise, open_sources
from n2v_scale.step import take_step
from n2v_scale.training import READERS
from n2v_scale.weights import Weights

CROP = (slice(60, 156), slice(0, 192), slice(8, 264))
ELECTRONS = 40.0
READ_NOISE = 2.5
ROUNDS = 6
SETTLE = 40
"""Steps after which the pools are full."""
PEER_STEPS = 30


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clean", type=Path, help="TIFF (z, y, x) without noise")
    parser.add_argument("--minutes", type=floats, default=(1.0, 3.0, 10.0))
    parser.add_argument("--peer", type=Path, help="folder of CAREamics's environment; made")
    parser.add_argument("--only", choices=["speed", "quality"])
    parser.add_argument("--net", default="filter-unet", choices=["filter-unet", "unet"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=40, help="of one round of the speed")
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON, of the training")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as folder:
        if options.only in (None, "speed"):
            found["speed"] = speed(Path(folder), options)
        if options.only in (None, "quality"):
            found["quality"] = quality(Path(folder), options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def floats(text: str) -> tuple[float, ...]:
    """``1,3,10`` as numbers."""
    return tuple(float(part) for part in text.split(","))


def cpu_seconds() -> float:
    """Of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Remembered:
    """The batches of a sampler, read once and given again and again."""

    def __init__(self, sampler: PatchSampler, count: int) -> None:
        self.batches = [sampler.next_batch() for _ in range(count)]
        self.given = 0

    def next_batch(self) -> np.ndarray:
        """The next one."""
        self.given += 1
        return self.batches[self.given % len(self.batches)]

    def state(self) -> dict[str, Any]:
        """None to speak of."""
        return {}


def speed(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Patches a second from a sharded zarr over those from memory; busy share; voxels a CPU s."""
    values = np.random.default_rng(0).poisson(100, (256, 512, 512)).astype(np.uint16)
    path = folder / "stream.zarr"
    zarr.create_array(str(path), data=values, chunks=(64,) * 3, shards=(256,) * 3)
    volume = open_volume(path)
    settings = TrainSettings(net=options.net, steps=10**6, device=options.device)
    design = design_for(settings, volume.spatial_shape, volume.voxel_size)
    device = torch.device(choose_device(options.device))
    compute_exactly()
    with ExitStack() as stack:
        client = stack.enter_context(thread_client(READERS))
        stack.enter_context(torch_threads(available_cores()))
        sources = open_sources([volume], design.patch, client)
        sampler = PatchSampler(sources, client, patch=design.patch, batch=design.batch)
        network = build_network(design.network, design.network_config)
        if isinstance(network, FilterUNet):
            network.initialise(torch.from_numpy(p)[None, None] for p in sampler.initial(16))
        channels_last(network.to(device))
        run = Run(
            settings,
            design,
            Noise2Void(settings.voxels_per_site, design.radius, common_noise(sources)),
            sampler,
            Budget(settings.steps, None),
            device,
        )
        weights = Weights(network, 1e-3)
        remembered = Remembered(sampler, SETTLE)
        both = {
            "streamed": stack.enter_context(batches_of(sampler, device)),
            "from memory": stack.enter_context(batches_of(remembered, device)),
        }
        spent = dict.fromkeys(both, 0.0)
        cpu = dict.fromkeys(both, 0.0)
        for batches in both.values():
            steps(run, weights, network, batches, 5)
        waited, decoded = both["streamed"].waited_s, sampler.bytes_read
        for _ in range(ROUNDS):
            for name, batches in both.items():
                started, used = time.perf_counter(), cpu_seconds()
                steps(run, weights, network, batches, options.steps)
                spent[name] += time.perf_counter() - started
                cpu[name] += cpu_seconds() - used
    patches = ROUNDS * options.steps * design.batch
    voxels = patches * int(np.prod(design.patch))
    decoded = sampler.bytes_read - decoded
    row = {
        "streamed patches/s": patches / spent["streamed"],
        "from memory patches/s": patches / spent["from memory"],
        "ratio": spent["from memory"] / spent["streamed"],
        "busy": 1 - (both["streamed"].waited_s - waited) / spent["streamed"],
        "decoded/patch bytes": decoded / (voxels * values.itemsize),
        "Mvoxel/CPU s": voxels / cpu["streamed"] / 1e6,
    }
    print(f"speed, {options.net}, {device.type}, batch {design.batch} of {design.patch}")
    for name, value in row.items():
        print(f"  {name:24}{value:9.3f}")
    if options.peer:
        np.save(folder / "values.npy", values[:64, :256, :256].astype(np.float32))
        given = ["--steps", str(PEER_STEPS), "--threads", str(available_cores())]
        peer = run_peer(options.peer, folder / "values.npy", folder / "peer_speed", *given)
        theirs = peer["voxels"] / peer["train_cpu_s"] / 1e6
        row["CAREamics Mvoxel/CPU s"] = theirs
        print(f"  CAREamics Mvoxel/CPU s  {theirs:9.3f}  ratio {row['Mvoxel/CPU s'] / theirs:.2f}")
    return {name: float(value) for name, value in row.items()}


def steps(run: Run, weights: Weights, network: Any, batches: Any, count: int) -> None:
    """So many steps, finished."""
    for _ in range(count):
        loss = take_step(run, weights, network, batches)
        weights.follow(run.budget.step)
        run.budget.advance()
    float(loss)


def volumes(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, float]:
    """Noisy, clean, and the range of the PSNR."""
    if options.clean is None:
        simulated = simulate_light_sheet(shape=(96, 192, 256))
        span = float(np.percentile(simulated.clean, 99.9) - simulated.clean.min())
        return simulated.noisy.astype(np.float32), simulated.clean, span
    raw = np.maximum(tifffile.imread(options.clean).astype(np.float64), 0)
    clean = (raw * ELECTRONS / np.percentile(raw, 99.9))[CROP]
    rng = np.random.default_rng(0)
    noisy = rng.poisson(clean) + rng.normal(0, READ_NOISE, clean.shape)
    return noisy.astype(np.float32), clean.astype(np.float32), ELECTRONS


def quality(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """PSNR after so many minutes of training, ours and the peer's."""
    noisy, clean, span = volumes(options)
    np.save(folder / "noisy.npy", noisy)
    path = folder / "noisy.zarr"
    zarr.create_array(str(path), data=noisy, chunks=(64,) * 3, shards=(128, 192, 256))
    print(f"\nquality, {noisy.shape}, noisy {psnr(noisy, clean, span):.2f} dB; {options.settings}")
    rows: dict[str, dict[str, float]] = {}
    for minutes in options.minutes:
        row = rows[f"{minutes:g} min"] = ours(path, noisy, clean, span, minutes, options)
        text = f"  {minutes:4g} min  ours {row['psnr']:6.2f} dB ({row['steps']:.0f} steps)"
        if options.peer:
            given = ["--minutes", str(minutes), "--threads", str(available_cores())]
            out = folder / f"peer-{minutes:g}"
            run_peer(options.peer, folder / "noisy.npy", out, *given)
            row["peer_psnr"] = psnr(np.load(out / "tiled.npy"), clean, span)
            text += f"  CAREamics {row['peer_psnr']:6.2f} dB"
        print(text, flush=True)
    return rows


def ours(
    path: Path,
    noisy: np.ndarray,
    clean: np.ndarray,
    span: float,
    minutes: float,
    options: argparse.Namespace,
) -> dict[str, float]:
    """One training and its PSNR."""
    started = time.perf_counter()
    model = train(
        path,
        path.with_name(f"ours-{minutes:g}.n2v"),
        net=options.net,
        device=options.device,
        minutes=minutes,
        **options.settings,
    )
    seconds = time.perf_counter() - started
    whole = Box.whole(noisy.shape)
    estimate = model.denoise(noisy, Region(0, 0, whole, noisy.shape)).mean
    return {
        "psnr": psnr(estimate, clean, span),
        "steps": float(model.card.training["steps_done"]),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
