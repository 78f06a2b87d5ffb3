"""What a worker takes at its peak, beside what the plan says it takes at most.

    python benchmarks/memory.py                      # three shapes of volume, two networks
    python benchmarks/memory.py --json memory.json

A worker of each run is a fresh process; its peak of resident memory is what the system says
(VmHWM, Linux). The forecast must be no less, and no more than 1.5 times as much. Fast networks
that were not trained: memory does not depend on the weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from n2v_scale.api import forecast, plan_prediction, predict, train
from n2v_scale.local_cluster import local_client
from n2v_scale.prediction import CPU_TASKS

MB = 1_000_000
VOLUMES = {
    "a block of tissue": ((192, 256, 256), (64, 64, 64), "uint16", "2GB"),
    "a thin stack, stored in planes": ((24, 768, 768), (1, 768, 768), "uint8", "1500MB"),
    "a long one, float": ((640, 128, 160), (32, 64, 160), "float32", "1GB"),
}
"""Shape, chunk, dtype, and what a worker may take."""
LIMITS = (1.0, 1.5)
"""Of the forecast over the peak."""


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["filter-unet", "unet"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'volume':32}{'net':12}{'block':>14}{'tile':>14}{'forecast':>10}{'peak':>8}  ratio")
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as folder:
        for number, (name, described) in enumerate(VOLUMES.items()):
            for net in options.nets:
                place = Path(folder, f"{number}-{net}")
                place.mkdir()
                rows.append({"volume": name, "net": net, **measured(place, net, *described)})
                print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    outside = [row for row in rows if not LIMITS[0] <= row["ratio"] <= LIMITS[1]]
    raise SystemExit(f"{len(outside)} forecasts are off" if outside else 0)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    block, tile = ("x".join(map(str, row[name])) for name in ("block", "tile"))
    return (
        f"{row['volume']:32}{row['net']:12}{block:>14}{tile:>14}{row['forecast'] / MB:8.0f}MB"
        f"{row['peak'] / MB:6.0f}MB{row['ratio']:7.2f}"
    )


def measured(
    folder: Path, net: str, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: str, memory: str
) -> dict[str, Any]:
    """One prediction by one worker."""
    values = np.random.default_rng(0).poisson(100, shape).astype(dtype)
    volume, model = folder / "volume.zarr", folder / "model.n2v"
    zarr.create_array(str(volume), data=values, chunks=chunk)
    train(volume, model, net=net, steps=1, device="cpu")
    settings: dict[str, Any] = {"memory": memory, "workers": 1, "device": "cpu"}
    plan = plan_prediction(volume, model, folder / "out.zarr", **settings)
    expected = forecast(plan, speed=1.0, **settings).memory.total
    with local_client(1, threads=CPU_TASKS) as client:
        predict(volume, model, folder / "out.zarr", client=client, **settings)
        (peak,) = client.run(high_water_mark).values()
    return {
        "shape": shape,
        "block": plan.block,
        "tile": plan.tile,
        "blocks": plan.blocks,
        "forecast": expected,
        "peak": peak,
        "ratio": expected / peak,
    }


def high_water_mark() -> int:
    """The largest resident size of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(text.split()[1]) for text in lines if text.startswith("VmHWM"))


if __name__ == "__main__":
    main()
