"""Whether N2V2 takes away the checkerboard of Noise2Void, where there is one.

    python benchmarks/checkerboard.py                      # the three, one after another
    python benchmarks/checkerboard.py --methods n2v n2v2 --steps 600 --electrons 2

Three ways to train the field's U-Net on the same very noisy simulated volume, from the same first
weights and with the same patches::

    residual  the network predicts what to add to its input, and a voxel may be replaced by itself:
              two of the causes that N2V2 does away with
    n2v       n2v --net unet: no such sum, and never by itself
    n2v2      blurred pooling, no skip at full resolution, replaced by the median

Printed of the whole volume's output: PSNR, the energy at the Nyquist frequencies of Y and X (mean
square per voxel, with that of the truth and of the noisy volume), how it stands out from the
frequencies beside them, the same along Z, and how many times less than of the first method.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality_measures import BAND, checkerboard
from torch import Tensor, nn

from n2v_scale.devices import torch_threads
from n2v_scale.masks import flat_index, site_cell, stratified_sites
from n2v_scale.methods.base import Example
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.metrics import psnr
from n2v_scale.nets.unet import UNet
from n2v_scale.network_config import UNetConfig
from n2v_scale.simulate import simulate_light_sheet
from n2v_scale.streams import Streams

SHAPE = (24, 128, 128)
VOXEL_UM = (2.0, 0.4, 0.4)
PATCH = (16, 32, 32)
Array = np.ndarray[Any, Any]


class Residual(nn.Module):
    """A network that predicts what is to be added to its input."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        return x + self.network(x)


@dataclass(frozen=True)
class WithCentre(Noise2Void):
    """Replacements from the whole window, the voxel itself among them."""

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """One site in sixteen voxels hidden, or left as it is where chance says so."""
        b, _, z, y, x = batch.shape
        shape, voxels = (z, y, x), batch.reshape(b, -1)
        sites = stratified_sites(b, shape, site_cell(shape, self.voxels_per_site), streams)
        extent = torch.tensor(shape)
        reach = torch.tensor(self.radius)
        low = (sites - reach).clamp_min(0)
        high = torch.minimum(sites + reach, extent - 1)
        draws = streams.rand(*sites.shape)
        taken = low + (draws * (high - low + 1)).long().minimum(high - low)
        at = flat_index(sites, extent.expand_as(sites))
        source = voxels.gather(1, flat_index(taken, extent.expand_as(taken)))
        weight = torch.zeros_like(voxels).scatter(1, at, 1.0)
        hidden = voxels.scatter(1, at, source)
        return Example(hidden.reshape(batch.shape), batch, weight.reshape(batch.shape))


def way(name: str, filters: int, seed: int) -> tuple[nn.Module, Noise2Void]:
    """A network with its first weights, and how it is trained."""
    plain = name != "n2v2"
    torch.manual_seed(seed)
    config = UNetConfig(
        filters=filters, pooled=(1, 2, 2), batch_norm=True, blur=not plain, top_skip=plain
    )
    network = UNet(config)
    if name == "residual":
        return Residual(network), WithCentre()
    return network, Noise2Void(replacement="uniform" if plain else "median", name=name)


def batches(values: Tensor, count: int, seed: int) -> Iterator[Tensor]:
    """So many patches, (b, 1, z, y, x), flipped at random along each axis; without end."""
    rng = np.random.default_rng(seed)
    while True:
        patches = []
        for _ in range(count):
            start = [rng.integers(n - p + 1) for n, p in zip(values.shape, PATCH, strict=True)]
            cut = values[tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))]
            patches.append(cut.flip([axis for axis in range(3) if rng.random() < 0.5]))
        yield torch.stack(patches)[:, None]


def trained(name: str, noisy: Array, given: argparse.Namespace) -> Array:
    """The output for the whole volume."""
    offset, scale = float(noisy.mean()), float(noisy.std())
    values = torch.from_numpy((noisy.astype(np.float32) - offset) / scale)
    network, method = way(name, given.filters, given.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=given.learning_rate)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, given.steps)
    network.train()
    patches = batches(values, given.batch, given.seed)
    for step in range(given.steps):
        batch = next(patches)
        example = method.prepare(batch, Streams([(given.seed, step, k) for k in range(len(batch))]))
        optimizer.zero_grad()
        method.loss(network(example.input), example).backward()
        optimizer.step()
        cosine.step()
    with torch.no_grad():
        out: Array = network.eval()(values[None, None])[0, 0].numpy()
    return out * scale + offset


def nyquist_energy(values: Array, axes: tuple[int, ...]) -> float:
    """At the Nyquist frequencies of some axes: their part of the mean square of a voxel."""
    power = np.abs(np.fft.fftn(values - values.mean(), norm="ortho")) ** 2
    most = np.zeros(values.shape)
    for axis in axes:
        shape = [1, 1, 1]
        shape[axis] = values.shape[axis]
        most = np.maximum(most, np.abs(np.fft.fftfreq(values.shape[axis])).reshape(shape))
    return float(power[most >= 0.5 - BAND].sum() / values.size)


def described(values: Array, truth: Array, span: float) -> dict[str, float]:
    """What is printed of one output."""
    error = values - truth
    return {
        "psnr": psnr(values, truth, span),
        "nyquist_yx": nyquist_energy(values, (1, 2)),
        "nyquist_z": nyquist_energy(values, (0,)),
        "error_yx": nyquist_energy(error, (1, 2)),
        "peak_db": checkerboard(values)[1],
    }


def main() -> None:
    """Train, measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["residual", "n2v", "n2v2"])
    parser.add_argument("--electrons", type=float, default=4.0, help="in a bright nucleus")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help=".npz of all outputs")
    given = parser.parse_args()
    made = simulate_light_sheet(SHAPE, seed=3, voxel_size=VOXEL_UM, photons=given.electrons)
    truth, span = made.clean.astype(np.float32), made.data_range
    outputs = {"truth": truth, "noisy": made.noisy.astype(np.float32)}
    print(f"{'':9}{'PSNR':>8}{'Nyquist YX':>12}{'of error':>10}{'Z':>8}{'peak, dB':>10}{'less':>8}")
    found: dict[str, dict[str, float]] = {}
    with torch_threads(given.threads):
        for name in ("truth", "noisy", *given.methods):
            started = time.process_time()
            if name not in outputs:
                outputs[name] = trained(name, made.noisy, given)
            row = described(outputs[name], truth, span)
            found[name] = row | {"cpu_s": round(time.process_time() - started, 1)}
            reference = found.get(given.methods[0])
            less = reference["nyquist_yx"] / row["nyquist_yx"] if reference else float("nan")
            print(
                f"{name:9}{row['psnr']:8.2f}{row['nyquist_yx']:12.5f}{row['error_yx']:10.5f}"
                f"{row['nyquist_z']:8.4f}{row['peak_db']:10.2f}{less:8.2f}",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps({"settings": str(vars(given)), "rows": found}) + "\n")
    if given.keep:
        np.savez_compressed(given.keep, **outputs)


if __name__ == "__main__":
    main()
