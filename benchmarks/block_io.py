"""What a block reads and writes: zarr-python, as this package uses it, against tensorstore.

Reads a box of 308³ voxels out of a 512³ volume (shards of 256³, chunks of 64³, uint16, blosc-zstd
level 3 with bitshuffle), and encodes and writes one shard. Every case has a process of its own,
and the cases take turns, so that what else the machine does falls on all of them. CPU seconds are
of the whole process; the files are in the page cache.

    python benchmarks/block_io.py --json block_io.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from scipy.ndimage import gaussian_filter
from zarr.core.sync import cleanup_resources

from n2v_scale.geometry import Box, Shape, as_shape, cells_touching
from n2v_scale.io.open import open_volume
from n2v_scale.io.writer import ArraySpec, create_array, read_output, write_box

LIBRARIES = ("zarr-python", "tensorstore")
TASKS = ("read", "write")
SHARD: Shape = (256, 256, 256)
READ = Box((102, 102, 102), (410, 410, 410))


@dataclass(frozen=True)
class Measured:
    """Medians over the runs of one case, in seconds."""

    task: str
    library: str
    threads: int
    cpu_s: float
    wall_s: float
    cpu_runs_s: list[float]


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        prepare(folder)
        measured = measure(folder, options.runs)
    print(table(measured))
    if options.json:
        facts = {"machine": machine(), "runs": options.runs}
        options.json.write_text(
            json.dumps({**facts, "cases": [asdict(m) for m in measured]}, indent=2) + "\n"
        )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="zarr-python against tensorstore.")
    parser.add_argument("--runs", type=int, default=7, help="runs of each case (default: 7)")
    parser.add_argument("--folder", help="where the volume is written (default: the system's)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def spec_at(folder: str, name: str, shape: tuple[int, ...]) -> ArraySpec:
    return ArraySpec(
        store=f"{folder}/{name}.zarr",
        path="0",
        axes=("z", "y", "x"),
        shape=shape,
        chunk=(64, 64, 64),
        shard=SHARD,
        dtype="uint16",
        codec="blosc-zstd",
        codec_level=3,
        ome_version="0.5",
    )


def shard_values() -> npt.NDArray[np.uint16]:
    """Blurred structure on a dark ground with photon and read noise, seeded."""
    rng = np.random.default_rng(0)
    structure = gaussian_filter(rng.standard_normal(SHARD).astype(np.float32), 6)
    photons = 5 + 400 * np.clip(structure / structure.std() - 1, 0, None)
    noisy = 100 + rng.poisson(photons) + rng.normal(0, 2, SHARD)
    rounded: npt.NDArray[np.uint16] = np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)
    return rounded


def prepare(folder: str) -> None:
    """The volume that is read, and what is written."""
    values = shard_values()
    np.save(f"{folder}/shard.npy", values)
    spec = spec_at(folder, "volume", (512, 512, 512))
    create_array(spec)
    whole = spec.spatial_shape
    for number, box in enumerate(cells_touching(Box.whole(whole), SHARD, whole)):
        write_box(spec, 0, 0, box, np.roll(values, number))


def measure(folder: str, runs: int) -> list[Measured]:
    cases = list(product(TASKS, (1, 2), LIBRARIES))
    spawn = multiprocessing.get_context("spawn")
    pools = {case: ProcessPoolExecutor(1, spawn) for case in cases}
    taken: dict[Any, list[tuple[float, float]]] = {case: [] for case in cases}
    try:
        for case in cases:
            pools[case].submit(run, folder, *case).result()  # imports, and warms the cache
        for _ in range(runs):
            for case in cases:
                taken[case].append(pools[case].submit(run, folder, *case).result())
    finally:
        for pool in pools.values():
            pool.shutdown()
    return [
        Measured(
            task,
            library,
            threads,
            statistics.median(cpu for cpu, _ in pairs),
            statistics.median(wall for _, wall in pairs),
            [cpu for cpu, _ in pairs],
        )
        for (task, threads, library), pairs in taken.items()
    ]


def run(folder: str, task: str, threads: int, library: str) -> tuple[float, float]:
    """CPU and wall seconds of one run, in a process that does nothing else."""
    act = {
        ("read", "zarr-python"): read_with_zarr,
        ("write", "zarr-python"): write_with_zarr,
        ("read", "tensorstore"): read_with_tensorstore,
        ("write", "tensorstore"): write_with_tensorstore,
    }[task, library]
    if library == "zarr-python" and zarr.config.get("threading.max_workers") != threads:
        cleanup_resources()
        zarr.config.set({"threading.max_workers": threads})
    with tempfile.TemporaryDirectory(dir=folder) as place:
        work, check = act(folder, place, threads)
        cpu, wall = time.process_time(), time.perf_counter()
        result = work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        check(result)
    return cpu, wall


Case = tuple[Callable[[], Any], Callable[[Any], None]]


def read_with_zarr(folder: str, place: str, threads: int) -> Case:
    del place, threads
    volume = open_volume(f"{folder}/volume.zarr/0")
    volume.read(0, 0, Box((0, 0, 0), (1, 1, 1)))  # opens the array
    return lambda: volume.read(0, 0, READ), check_read(folder)


def read_with_tensorstore(folder: str, place: str, threads: int) -> Case:
    del place
    array = opened(f"{folder}/volume.zarr/0", threads)
    return lambda: array[READ.slices].read().result(), check_read(folder)


def write_with_zarr(folder: str, place: str, threads: int) -> Case:
    del threads
    values = np.load(f"{folder}/shard.npy")
    spec = spec_at(place, "out", SHARD)
    create_array(spec)
    whole = Box.whole(spec.spatial_shape)
    return lambda: write_box(spec, 0, 0, whole, values), check_written(spec, values)


def write_with_tensorstore(folder: str, place: str, threads: int) -> Case:
    values = np.load(f"{folder}/shard.npy")
    spec = spec_at(place, "out", SHARD)
    create_array(spec)
    array = opened(f"{spec.store}/0", threads)
    return lambda: array.write(values).result(), check_written(spec, values)


def opened(path: str, threads: int) -> Any:
    import tensorstore

    limit = {"limit": threads}
    context = {"data_copy_concurrency": limit, "file_io_concurrency": limit}
    kvstore = {"driver": "file", "path": path}
    return tensorstore.open({"driver": "zarr3", "kvstore": kvstore, "context": context}).result()


def check_read(folder: str) -> Callable[[Any], None]:
    def check(result: Any) -> None:
        spec = spec_at(folder, "volume", (512, 512, 512))
        corner = Box(READ.start, as_shape([s + 4 for s in READ.start]))
        expected = read_output(spec, 0, 0, corner)
        if not np.array_equal(result[:4, :4, :4], expected) or result.shape != READ.shape:
            raise ValueError("what was read is not what was written")

    return check


def check_written(spec: ArraySpec, values: npt.NDArray[Any]) -> Callable[[Any], None]:
    def check(_: Any) -> None:
        if not np.array_equal(read_output(spec, 0, 0, Box.whole(spec.spatial_shape)), values):
            raise ValueError("what was written does not read back")

    return check


def table(measured: list[Measured]) -> str:
    rows = [
        "| task | threads | zarr-python CPU s | tensorstore CPU s | CPU ratio "
        "| zarr-python wall s | tensorstore wall s | wall ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found = {(m.task, m.threads, m.library): m for m in measured}
    for task, threads in product(TASKS, (1, 2)):
        a, b = (found[task, threads, library] for library in LIBRARIES)
        rows.append(
            f"| {task} | {threads} | {a.cpu_s:.2f} | {b.cpu_s:.2f} | {a.cpu_s / b.cpu_s:.2f} "
            f"| {a.wall_s:.2f} | {b.wall_s:.2f} | {a.wall_s / b.wall_s:.2f} |"
        )
    return "\n".join(rows)


def machine() -> dict[str, Any]:
    names = ("zarr", "tensorstore", "numcodecs", "numpy")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


if __name__ == "__main__":
    main()
