"""A hundred thousand blocks through the real path: window, lock, ledger, reads, shards, markers.

The denoiser sleeps instead of computing, so what a block takes beside that is overhead. Two runs,
the second with sixteen times as many blocks, each in a process of its own; prints what a block
costs, the peaks of memory of the driver (with the scheduler) and of the workers, and the ratios.

    python benchmarks/scale.py                      # 6,250 and 100,000 blocks
    python benchmarks/scale.py --blocks 2000 --json scale.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr

import n2v_scale.blocks
from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import IDENTITY, Estimate, Identity
from n2v_scale.execution import run_plan
from n2v_scale.io.open import open_volume
from n2v_scale.local_cluster import local_client
from n2v_scale.memory import Budget
from n2v_scale.plan import make_plan

FACTOR = 16
EDGE = 16
"""Of a block."""
SIDE = 32
"""Blocks along Y and X."""
HALO = ((4, 4),) * 3


class Sleeper(Identity):
    """The identity, after a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__(HALO, (4, 4, 4))
        self.seconds = seconds

    def denoise(self, tile: Any, region: Any) -> Estimate:
        """The core of ``tile``, later."""
        time.sleep(self.seconds)
        return super().denoise(tile, region)


def write_volume(path: Path, blocks: int) -> None:
    """Noise, a chunk for 4 x 4 blocks."""
    layers = -(-blocks // SIDE**2)
    plane = SIDE * EDGE
    array = zarr.create_array(
        str(path),
        shape=(layers * EDGE, plane, plane),
        chunks=(EDGE, 4 * EDGE, 4 * EDGE),
        dtype="uint16",
        compressors=None,
    )
    rng = np.random.default_rng(0)
    for k in range(layers):
        array[k * EDGE : (k + 1) * EDGE] = rng.integers(0, 1000, (EDGE, plane, plane), np.uint16)


def drive(folder: Path, blocks: int, workers: int, sleep_s: float) -> dict[str, float]:
    """One run, here."""
    write_volume(folder / "volume.zarr", blocks)
    shape = (EDGE,) * 3
    settings = PredictSettings(block=shape, tile=shape, shard=shape, chunk=shape, codec="none")
    volume = open_volume(folder / "volume.zarr")
    plan = make_plan(
        volume,
        Sleeper(sleep_s),
        IDENTITY,
        str(folder / "out.zarr"),
        settings,
        normalisation=None,
        device="cpu",
        threads=1,
        identity=volume.identity(),
    )
    peaks: dict[str, int] = {}
    stop = threading.Event()
    with local_client(workers, threads=2) as client:
        client.run(install, sleep_s)
        watcher = threading.Thread(target=watch, args=(peaks, stop))
        watcher.start()
        started = time.perf_counter()
        summary = run_plan(plan, settings, Budget(), client=client, pyramid=False)
        seconds = time.perf_counter() - started
        stop.set()
        watcher.join()
    return {
        "blocks": summary.blocks,
        "seconds": seconds,
        "ms_a_block": 1000 * seconds / summary.blocks,
        "worker_ms_a_block": 1000 * (summary.read_s + summary.write_s) / summary.blocks,
        **peaks,
    }


def install(sleep_s: float) -> None:
    """In a worker: what it opens is the sleeper."""
    sleeper = Sleeper(sleep_s)
    n2v_scale.blocks.opened = lambda *_: sleeper  # type: ignore[assignment]


def watch(peaks: dict[str, int], stop: threading.Event) -> None:
    """The largest resident memory of this process and of its largest child."""
    me = psutil.Process()
    while not stop.wait(0.2):
        children = [resident(child) for child in me.children(recursive=True)]
        for name, size in (
            ("driver_peak", resident(me)),
            ("worker_peak", max(children, default=0)),
        ):
            peaks[name] = max(peaks.get(name, 0), size)


def resident(process: psutil.Process) -> int:
    """Bytes; 0 for a process that has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def in_a_process(blocks: int, workers: int, sleep_s: float) -> dict[str, float]:
    """:func:`drive` in a fresh process and a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as folder:
        command = [sys.executable, __file__, "--one", folder, "--blocks", str(blocks)]
        command += ["--workers", str(workers), "--sleep", str(sleep_s)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run both sizes and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sleep", type=float, default=0.0, help="seconds a tile")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(drive(options.one, options.blocks, options.workers, options.sleep)))
        return
    sizes = (options.blocks // FACTOR, options.blocks)
    few, many = (in_a_process(n, options.workers, options.sleep) for n in sizes)
    print(f"{'':24}{'few blocks':>14}{'16 times':>14}{'ratio':>8}")
    for name in few:
        scale = 2**20 if name.endswith("peak") else 1
        label = f"{name} (MiB)" if scale > 1 else name
        print(
            f"{label:24}{few[name] / scale:14,.2f}{many[name] / scale:14,.2f}"
            f"{many[name] / few[name]:8.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"few": few, "many": many}, indent=2) + "\n")


if __name__ == "__main__":
    main()
