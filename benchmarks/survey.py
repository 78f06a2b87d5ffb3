"""How long a sample of a volume takes, and how close it is, for volumes of 1, 16 and 64 GiB.

    python benchmarks/survey.py
    python benchmarks/survey.py --gib 1,16 --json survey.json

The chunks of a volume are links to 256 files, so that it takes no room on the disk; read, each is a
chunk like any other. Their levels follow a slow wave along every axis. The sample's mean and
standard deviation are compared with the exact ones, which are known from how the volume is made.
Beside it, in the same run: what one pass over the whole of the smallest volume takes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from n2v_scale.api import open_volume
from n2v_scale.geometry import Box
from n2v_scale.information import survey_of

CHUNK = 64
LEVELS = 256
DARK, RISE, NOISE = 200.0, 4.0, 20.0


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", default="1,16,64", help="sizes of uint16 volumes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = [int(part) for part in options.gib.split(",")]
    rows = []
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as folder:
        for gib in sizes:
            path = Path(folder) / f"{gib}.zarr"
            mean, std = write(path, gib)
            rows.append(measure(path, gib, mean, std))
        smallest = Path(folder) / f"{sizes[0]}.zarr"
        whole_s = whole_pass(smallest)
    base = rows[0]["seconds"]
    print("   GiB   sample s   ratio   error of mean (stated 95%)   error of std (stated 95%)")
    for row in rows:
        print(
            f"{row['gib']:6.0f}{row['seconds']:11.2f}{row['seconds'] / base:8.2f}"
            f"{row['mean_error']:12.3%} ({row['mean_stated']:.3%})"
            f"{row['std_error']:17.3%} ({row['std_stated']:.3%})"
        )
    print(f"one pass over all of {sizes[0]} GiB: {whole_s:.2f} s, {whole_s / base:.1f} times")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "whole_s": whole_s}, indent=2) + "\n")


def write(path: Path, gib: int) -> tuple[float, float]:
    """A volume whose chunks are links to few files; returns its mean and standard deviation.

    A chunk is noise about one of 256 levels, which follow a slow wave along every axis.
    """
    side = round((gib * 2**30 / 2) ** (1 / 3) / CHUNK)
    zarr.create_array(str(path), shape=(side * CHUNK,) * 3, chunks=(CHUNK,) * 3, dtype="uint16")
    wave = np.sin(2 * np.pi * np.arange(side) / side)
    waves = (wave[:, None, None] + wave[:, None] + wave) / 3
    levels = np.rint((waves + 1) / 2 * (LEVELS - 1)).astype(int)
    means, squares = write_levels(path.with_suffix(".levels"))
    for i in range(side):
        for j in range(side):
            folder = path / "c" / str(i) / str(j)
            folder.mkdir(parents=True)
            for k in range(side):
                level = path.with_suffix(".levels") / "c" / str(levels[i, j, k]) / "0" / "0"
                (folder / str(k)).hardlink_to(level)
    mean = float(means[levels].mean())
    return mean, float(np.sqrt(squares[levels].mean() - mean**2))


def write_levels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The chunks there are; returns the mean and the mean square of each."""
    array = zarr.create_array(
        str(path), shape=(LEVELS * CHUNK, CHUNK, CHUNK), chunks=(CHUNK,) * 3, dtype="uint16"
    )
    rng = np.random.default_rng(0)
    moments = []
    for level in range(LEVELS):
        values = np.rint(rng.normal(DARK + level * RISE, NOISE, (CHUNK,) * 3)).astype(np.uint16)
        array[level * CHUNK : (level + 1) * CHUNK] = values
        moments.append((values.mean(dtype=np.float64), np.square(values, dtype=np.float64).mean()))
    means, squares = np.transpose(moments)
    return means, squares


def measure(path: Path, gib: int, mean: float, std: float) -> dict[str, float]:
    """The sample's time, its errors, and those that it states, relative to the truth."""
    volume = open_volume(path)
    started = time.perf_counter()
    (channel,) = survey_of(volume).channels
    seconds = time.perf_counter() - started
    return {
        "gib": float(gib),
        "seconds": seconds,
        "mean_error": abs(channel.moments.mean / mean - 1),
        "mean_stated": channel.mean_error / mean,
        "std_error": abs(channel.moments.std / std - 1),
        "std_stated": channel.std_error / std,
    }


def whole_pass(path: Path) -> float:
    """Seconds for the mean and standard deviation of every voxel, slab by slab, in one thread."""
    volume: Any = open_volume(path)
    depth, height, width = volume.spatial_shape
    started = time.perf_counter()
    total = square = 0.0
    for z in range(0, depth, CHUNK):
        values = volume.read(0, 0, Box((z, 0, 0), (min(z + CHUNK, depth), height, width)))
        total += float(values.sum(dtype=np.float64))
        square += float(np.square(values, dtype=np.float64).sum())
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
