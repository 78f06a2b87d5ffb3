"""CAREamics on one volume: train, predict in tiles and whole, and say how fast and how well.

Run by predict.py and train.py in an environment of its own; prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

# CAREamics imports torchvision, whose CUDA build does not load beside a CPU build of torch unless
# these two operators, which nobody calls here, are declared.
LIBRARY = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from careamics import CAREamist  # noqa: E402
from careamics.config.factories import create_advanced_n2v_config  # noqa: E402


def cpu_seconds() -> float:
    """Of this process and the children that have ended."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def accelerator(device: str) -> str:
    """Lightning's word for it."""
    return {"cuda": "gpu"}.get(device, device)


def main() -> None:
    """Train for so many steps, then predict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("noisy", help=".npy, (z, y, x), float32; images (n, y, x) with --axes SYX")
    parser.add_argument("out", help="folder for tiled.npy and whole.npy")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, help="train for so long instead")
    parser.add_argument("--tile", type=int, nargs=3, default=[64, 128, 128])
    parser.add_argument("--overlap", type=int, nargs=3, default=[0, 48, 48])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--axes", choices=["ZYX", "SYX"], default="ZYX")
    parser.add_argument("--n2v2", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--accelerator", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    noisy = np.load(options.noisy)
    flat = options.axes == "SYX"
    patch, batch = ([64, 64], 32) if flat else ([16 if len(noisy) >= 16 else 8, 64, 64], 2)
    patches = int(np.prod([n // p for n, p in zip(noisy.shape[flat:], patch, strict=True)]))
    limit = {} if options.steps else {"max_time": timedelta(minutes=options.minutes)}
    config = create_advanced_n2v_config(
        experiment_name="peer",
        data_type="array",
        axes=options.axes,
        patch_size=patch,
        batch_size=batch,
        num_epochs=1 if options.steps else 10_000,
        num_steps=options.steps,
        num_workers=0,
        n_val_patches=max(1, min(8, patches // 4)),
        trainer_params={"accelerator": accelerator(options.accelerator), "devices": 1} | limit,
        model_params={"depth": 2, "num_channels_init": 32},
        use_n2v2=options.n2v2,
        seed=options.seed,
    )
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        peer = CAREamist(config, work_dir=folder, enable_progress_bar=False)
        started, clock = cpu_seconds(), perf_counter()
        peer.train(train_data=noisy)
        result["train_cpu_s"] = cpu_seconds() - started
        result["train_s"] = perf_counter() - clock
        result["steps"] = peer.trainer.global_step
        result["voxels"] = result["steps"] * batch * int(np.prod(patch))
        for name, tile, overlap in (
            ("tiled", options.tile, options.overlap),
            ("whole", list(noisy.shape), [0, 0, 0]),
        )[: 2 if options.steps else 1]:
            started, clock = cpu_seconds(), perf_counter()
            predicted, _ = peer.predict(
                noisy,
                batch_size=1,
                tile_size=tuple(tile[flat:]),
                tile_overlap=tuple(overlap[flat:]),
                num_workers=0,
            )
            result[f"{name}_cpu_s"] = cpu_seconds() - started
            result[f"{name}_s"] = perf_counter() - clock
            np.save(Path(options.out, f"{name}.npy"), np.squeeze(predicted[0]).astype(np.float32))
    print(json.dumps(result))


main()
