"""How fast the networks are and what they take, a forward pass at a time.

    python benchmarks/network.py                              # both networks, tiles of usual size
    python benchmarks/network.py --nets unet --cores 64x64x64 1x512x512 --threads 2
    python benchmarks/network.py --layers                     # where the time goes
    python benchmarks/network.py --compile                    # the trained network, torch.compile
    python benchmarks/network.py --batch 8 --cores 16x16x16   # tiles together, or one by one
    python benchmarks/network.py --device cuda --precision float16

Useful voxels a CPU second (a second, on a device) of an interior tile, median of some passes; the
multiplications over those without a halo; the peak of memory as forecast and as measured, in a
fresh process each (Linux). The weights are random: they change neither.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from n2v_scale.denoiser import Normalisation, OpenOptions, Region, tile_boxes
from n2v_scale.devices import torch_threads
from n2v_scale.forward_work import overhead
from n2v_scale.geometry import Box, Shape, align_halo, as_shape
from n2v_scale.model import Model, save_model
from n2v_scale.model_card import ModelCard, TrainedOn
from n2v_scale.nets import build_network, config_to_dict, convolution
from n2v_scale.nets.receptive_field import measure_receptive_field
from n2v_scale.network_config import FilterUNetConfig, NetworkConfig, UNetConfig

CORES = ["64x64x64", "96x128x128", "128x128x128", "32x256x256", "1x512x512"]
MIB = 2**20


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=["unet", "filter-unet"])
    parser.add_argument("--cores", nargs="+", type=shape, default=[shape(c) for c in CORES])
    parser.add_argument("--filters", type=int, help="32 for unet, 16 for filter-unet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(
        f"{'net':12} {'core':>12} {'Mvoxel/s':>9} {'overhead':>8} {'forecast':>9} {'measured':>9}"
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="n2v-scale-") as folder:
        for net in options.nets:
            for core in options.cores:
                model = write_model(Path(folder), net, core, options.filters)
                rows.append(in_a_fresh_process(model, core, options))
                print(line(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def shape(text: str) -> Shape:
    """``64x128x128`` as numbers."""
    return as_shape([int(part) for part in text.split("x")])


def line(row: dict[str, Any]) -> str:
    """A row of the table, and of its layers."""
    core = "x".join(map(str, row["core"]))
    text = f"{row['net']:12} {core:>12} {row['mvoxel_per_s']:9.3f} {row['overhead']:8.2f} "
    text += f"{row['forecast_MiB']:9.0f} {row['measured_MiB']:9.0f}  ratio {row['ratio']:.3f}"
    for name, value in {**row.get("compiled", {}), **row.get("batched", {})}.items():
        text += f"\n    {name} {value}"
    for name, (seconds, products) in row.get("layers", {}).items():
        text += f"\n    {name:40} {seconds:7.3f} s {products / seconds / 1e9:6.1f} G products/s"
    return text


def config_of(net: str, core: Shape, filters: int | None) -> NetworkConfig:
    """The network that is trained by default, for images without depth where there is one plane."""
    flat = core[0] == 1
    shapes: dict[str, Any] = {"kernel": (1, 3, 3), "pooled": (0, 2, 2)} if flat else {}
    if net == "unet":
        return UNetConfig(filters=filters or 32, batch_norm=True, **shapes)
    unet = UNetConfig(in_channels=2, filters=filters or 16, **shapes)
    return FilterUNetConfig((1, 5, 5) if flat else (5, 5, 5), unet)


def write_model(folder: Path, net: str, core: Shape, filters: int | None) -> Path:
    """A model folder with random weights."""
    config = config_of(net, core, filters)
    path = folder / f"{net}-{'flat' if core[0] == 1 else 'deep'}"
    if path.exists():
        return path
    torch.manual_seed(0)
    network = build_network(net, config)
    for weight in network.parameters():
        fan = weight[0].numel() if weight.ndim > 1 else 10
        torch.nn.init.normal_(weight, 0, (2 / fan) ** 0.5)
    card = ModelCard(
        package_version="0",
        method="n2v",
        method_config={},
        network=net,
        network_config=config_to_dict(config),
        receptive_field=measure_receptive_field(network, config.stride),
        stride=config.stride,
        parameters=sum(p.numel() for p in network.parameters()),
        weights_sha256="",
        trained_on=TrainedOn(
            address="/nowhere",
            identity="none",
            dtype="float32",
            shape=(1, 1, *core),
            voxel_size=(1.0, 1.0, 1.0),
            unit=None,
            channels=(0,),
            offset=(0.0,),
            scale=(1.0,),
        ),
        training={},
        history=[],
    )
    save_model(path, card, network.state_dict())
    return path


def in_a_fresh_process(model: Path, core: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """A row of the table."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(in_a_thread, (model, core, options))


def in_a_thread(model: Path, core: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """As Dask's workers run their tasks: memory of a thread comes from a heap of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(measured, model, core, options).result()


def measured(folder: Path, core: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """Speed and memory of one tile, in this process."""
    opened = OpenOptions(
        Normalisation((0.0,), (1.0,)), options.device, options.threads, options.precision
    )
    model = Model(folder, opened)
    warm_up(model)
    values, region = interior_tile(model, core)
    before = reset_peak(options.device)
    seconds = [timed(model, values, region, options.device) for _ in range(options.repeats)]
    peak = peak_bytes(options.device) - before
    forecast = model.memory_bytes(core)
    config = model.network.config
    row: dict[str, Any] = {
        "net": model.card.network,
        "core": core,
        "threads": options.threads,
        "precision": options.precision,
        "seconds": seconds,
        "mvoxel_per_s": prod(core) / statistics.median(seconds) / 1e6,
        "overhead": overhead(config, core, align_halo(model.halo, model.stride)),
        "forecast_MiB": forecast / MIB,
        "measured_MiB": peak / MIB,
        "ratio": forecast / peak,
        "base_MiB": before / MIB,
        "base_forecast_MiB": model.base_bytes / MIB,
    }
    if options.compile:
        row["compiled"] = compiled(model, values, region)
    if options.batch > 1:
        row["batched"] = batched(model, values, region, options)
    if options.layers:
        row["layers"] = layers(model, values, region)
    return row


def warm_up(model: Model) -> None:
    """A tile of a few voxels, once."""
    tiny = Box.whole(model.stride)
    model.denoise(np.zeros(tiny.shape, np.float32), Region(0, 0, tiny, tiny.shape))


def interior_tile(model: Model, core: Shape) -> tuple[np.ndarray, Region]:
    """A tile with its halo all round (along axes of more than one voxel)."""
    start = as_shape([0 if n == 1 else n for n in core])
    box = Box(start, as_shape([a + n for a, n in zip(start, core, strict=True)]))
    volume = as_shape([1 if n == 1 else 3 * n for n in core])
    data = tile_boxes(box, model.halo, model.stride, volume).data
    values = np.random.default_rng(0).standard_normal(data.shape, np.float32)
    return values, Region(0, 0, box, volume)


def timed(model: Model, values: np.ndarray, region: Region, device: str) -> float:
    """Seconds of the processor, or on a device by the clock."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    model.denoise(values, region)
    return clock() - started


def reset_peak(device: str) -> int:
    """What is held now; the peak is counted from here."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak_bytes(device: str) -> int:
    """The most that was held since."""
    return torch.cuda.max_memory_reserved() if device == "cuda" else status("VmHWM")


def status(name: str) -> int:
    """A line of ``/proc/self/status``, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(text.split()[1]) for text in lines if text.startswith(name))


def compiled(model: Model, values: np.ndarray, region: Region) -> dict[str, str]:
    """The trained network through torch.compile, beside what is used."""
    usual = model.denoise(values, region).mean
    vars(model)["inference"] = torch.compile(model.network)
    with torch_freezing():
        first = timed(model, values, region, "cpu")
        again = timed(model, values, region, "cpu")
    found = model.denoise(values, region).mean
    return {
        "torch.compile, first pass": f"{first:.1f} CPU s",
        "torch.compile, second": f"{prod(region.core.shape) / again / 1e6:.3f} Mvoxel/s",
        "torch.compile, difference": f"{np.abs(found - usual).max() / usual.std():.1e}",
    }


def batched(
    model: Model, values: np.ndarray, region: Region, options: argparse.Namespace
) -> dict[str, str]:
    """So many tiles in one pass, and the same tiles one after the other, in turns."""
    boxes = tile_boxes(region.core, model.halo, model.stride, region.shape)
    sides = (boxes.padded.start, boxes.aligned.start, boxes.aligned.stop, boxes.padded.stop)
    z, y, x = ((b - a, d - c) for a, b, c, d in zip(*sides, strict=True))
    tile = torch.from_numpy(values)[None, None]
    together = tile.repeat(options.batch, 1, 1, 1, 1)
    seconds = {1: 0.0, options.batch: 0.0}
    with torch.inference_mode(), torch_threads(options.threads):
        for _ in range(options.repeats + 1):
            for count in seconds:
                given = tile if count == 1 else together
                started = time.process_time()
                for _ in range(options.batch // count):
                    model.inference(given.to(options.device), (z, y, x), None)
                seconds[count] += time.process_time() - started
    voxels = (options.repeats + 1) * options.batch * prod(region.core.shape)
    speeds = {count: voxels / spent / 1e6 for count, spent in seconds.items()}
    return {
        f"one at a time {speeds[1]:.3f} Mvoxel/s, {options.batch} in a pass": (
            f"{speeds[options.batch]:.3f}, ratio {speeds[options.batch] / speeds[1]:.2f}"
        )
    }


def torch_freezing() -> Any:
    """Weights as constants: the fastest that torch.compile offers on a CPU."""
    from torch._inductor import config

    return config.patch(freezing=True)


def layers(model: Model, values: np.ndarray, region: Region) -> dict[str, tuple[float, int]]:
    """CPU seconds and multiplications of every kind of convolution."""
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    plain = convolution.convolve

    def watched(x: Any, weight: Any, bias: Any, padding: Any) -> Any:
        started = time.process_time()
        out = plain(x, weight, bias, padding)
        outputs, inputs, *kernel = weight.shape
        name = f"{inputs:3} to {outputs:3}, {'x'.join(map(str, kernel))}, {max(x.shape[2:])} wide"
        found[name][0] += time.process_time() - started
        found[name][1] += out.numel() * weight[0].numel()
        return out

    convolution.convolve = watched
    whole = timed(model, values, region, "cpu")
    convolution.convolve = plain
    table = {name: (s, int(n)) for name, (s, n) in found.items()}
    table["everything"] = (whole, sum(n for _, n in table.values()))
    return dict(sorted(table.items(), key=lambda entry: -entry[1][0]))


if __name__ == "__main__":
    main()
