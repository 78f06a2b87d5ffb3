"""The rows of quality.py: ways to a denoised volume.

Ours, trained by ``train`` and applied by ``predict``; our classical filters, which find their
parameter on the noisy volume; the best Gaussian, found by looking at the truth; BM3D and BM4D with
the true noise; and CAREamics, trained for as many minutes. ``+posterior`` is what ``predict`` does
by default where a method is blind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import zarr
from peer import run_bm, run_peer
from quality_columns import IMAGE_NOISE, Array, Case
from scipy.ndimage import gaussian_filter

from n2v_scale.api import baseline, diagnose, estimate_error, open_volume, predict, train
from n2v_scale.classical import FILTERS
from n2v_scale.cores import available_cores
from n2v_scale.errors import ConfigError
from n2v_scale.filter_card import read_filter_card
from n2v_scale.geometry import Box, round_up
from n2v_scale.io.volume import Volume
from n2v_scale.metrics import best_gaussian
from n2v_scale.model_card import read_card

AXES = "tzyx"
CHUNK = 64
FAR = "x:4"
"""The blind mask of ``structn2v-x4``."""


@dataclass(frozen=True)
class Row:
    """One way, and the kinds of columns that it is for."""

    how: str
    """``truth``, ``noisy``, ``oracle``, ``filter``, ``bm3d``, ``bm4d``, ``careamics``, ``ours``."""
    options: dict[str, Any] = field(default_factory=dict)
    kinds: str = "simulated atlas lines images real"

    @property
    def trains(self) -> bool:
        """Whether it takes the minutes that are given."""
        return self.how in ("ours", "careamics") and self.options.get("method") != "linear"


VOLUMES = "simulated atlas lines real"
KNOWN = "simulated atlas lines images"
ROWS: dict[str, Row] = {
    "truth": Row("truth", kinds=KNOWN),
    "noisy": Row("noisy"),
    "gaussian-oracle": Row("oracle", kinds=KNOWN),
    **{name: Row("filter", {"filter": name}) for name in FILTERS},
    "bm3d": Row("bm3d", kinds="images"),
    "bm4d": Row("bm4d", kinds="atlas"),
    "careamics-n2v": Row("careamics"),
    "careamics-n2v2": Row("careamics", {"n2v2": True}),
    **{name: Row("ours", {"method": name}) for name in ("linear", "n2v", "n2v2", "n2s")},
    "n2s-3x3x3": Row("ours", {"method": "n2s", "partition": (3, 3, 3)}, VOLUMES),
    "ssdn": Row("ours", {"method": "ssdn"}),
    "structn2v": Row("ours", {"method": "structn2v", "blind_mask": "x:1"}, VOLUMES),
    "structn2v-auto": Row("ours", {"method": "structn2v", "blind_mask": "auto"}, "lines real"),
    "structn2v-x4": Row("ours", {"method": "structn2v", "blind_mask": FAR}, "lines real"),
    "n2n": Row("ours", {"method": "n2n"}, KNOWN),
    "supervised": Row("ours", {"method": "supervised"}, KNOWN),
}


def row_named(name: str) -> Row:
    """One of the rows; ``n2s-1x4x4`` is n2s with that partition.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    if name in ROWS:
        return ROWS[name]
    cell = re.fullmatch(r"n2s-(\d+)x(\d+)x(\d+)", name)
    if cell is None:
        raise ConfigError(f"there is no row {name!r}: choose of {', '.join(ROWS)}")
    partition = tuple(int(n) for n in cell.groups())
    kinds = VOLUMES if partition[0] > 1 else f"{VOLUMES} images"
    return Row("ours", {"method": "n2s", "partition": partition}, kinds)


@dataclass(frozen=True)
class Means:
    """What a row may use."""

    folder: Path
    """For what is written on the way."""
    minutes: float
    seed: int
    device: str
    peer: Path | None
    bm: Path | None


@dataclass(frozen=True)
class Output:
    """One result of a row, (t, z, y, x), and what is known of it."""

    name: str
    """``plain`` or ``posterior``."""
    values: Array
    facts: dict[str, Any]
    first: int = 0
    """Plane of the volume that it begins with, where it is a part of it."""


def outputs(row: Row, case: Case, means: Means) -> Iterator[Output]:
    """The results of a row; ``facts`` hold seconds and settings, also those of the training."""
    started = perf_counter()
    if row.how == "ours":
        yield from _ours(row, case, means)
    elif row.how == "filter":
        written = means.folder / "filtered.zarr"
        noisy = _written(case.noisy, case, means.folder / "noisy.zarr")
        baseline(noisy, written, dtype="float32", pyramid=False, **row.options)
        seconds = perf_counter() - started
        value = read_filter_card(means.folder / "filtered.zarr.filter").values[0]
        yield Output("plain", _read(written), {"predict_s": seconds, "parameter": value})
    elif row.how == "careamics":
        yield _careamics(row, case, means)
    else:
        values, facts = _simple(row.how, case, means)
        first = case.slab.start if row.how == "bm4d" else 0
        yield Output("plain", values, {"predict_s": perf_counter() - started, **facts}, first)


def _simple(how: str, case: Case, means: Means) -> tuple[Array, dict[str, Any]]:
    if how == "noisy":
        return case.noisy, {}
    if how == "truth":
        assert case.truth is not None
        return case.truth, {}
    if how == "oracle":
        return _oracle(case)
    assert means.bm is not None
    if how == "bm3d":
        images = case.noisy[:, 0]
        return run_bm(means.bm, images, means.folder, "bm3d", IMAGE_NOISE)[:, None], {}
    assert case.read_noise is not None
    planes = case.noisy[0, case.slab]
    return run_bm(means.bm, planes, means.folder, "bm4d", case.read_noise)[None], {}


def _oracle(case: Case) -> tuple[Array, dict[str, Any]]:
    """Each image, or the volume, smoothed by the Gaussian that comes closest to the truth."""
    assert case.truth is not None
    results, sigmas = [], []
    for noisy, truth in zip(case.noisy, case.truth, strict=True):
        sigma, _ = best_gaussian(noisy, truth, case.span)
        results.append(gaussian_filter(noisy, sigma, output=np.float32))
        sigmas.append(sigma)
    return np.stack(results), {"sigma_zyx": np.mean(sigmas, axis=0).tolist()}


def _careamics(row: Row, case: Case, means: Means) -> Output:
    assert means.peer is not None
    path = means.folder / "noisy.npy"
    np.save(path, (case.noisy[:, 0] if case.flat else case.noisy[0]).astype(np.float32))
    given = ["--minutes", str(means.minutes), "--threads", str(available_cores())]
    given += ["--seed", str(means.seed + 1), "--accelerator", means.device]
    given += ["--n2v2"] if row.options.get("n2v2") else []
    given += ["--axes", "SYX"] if case.flat else []
    depth = round_up(min(CHUNK, case.noisy.shape[1]), 4)
    given += ["--tile", str(depth), "128", "128"]
    given += ["--overlap", "16" if depth < case.noisy.shape[1] else "0", "48", "48"]
    measured = run_peer(means.peer, path, means.folder / "peer", *given)
    values = np.load(means.folder / "peer" / "tiled.npy").reshape(case.noisy.shape)
    facts = {"train_s": measured["train_s"], "steps": int(measured["steps"])}
    return Output("plain", values, facts | {"predict_s": measured["tiled_s"]})


def _ours(row: Row, case: Case, means: Means) -> Iterator[Output]:
    """A training, and its predictions."""
    folder = means.folder
    noisy = _written(case.noisy, case, folder / "noisy.zarr")
    options = dict(row.options)
    facts: dict[str, Any] = {}
    if options.get("blind_mask") == "auto":
        found = diagnose(noisy).recommendation.mask  # none is refused by ``auto``
        options["blind_mask"] = facts["blind_mask"] = found or "x:1"
    if options["method"] == "n2n":
        options["pair"] = _written(case.other, case, folder / "other.zarr").address
    if options["method"] == "supervised":
        options["target"] = _written(case.truth, case, folder / "clean.zarr").address
    if row.trains:
        options["minutes"] = means.minutes
    model = folder / "model"
    started = perf_counter()
    train(noisy, model, seed=means.seed, device=means.device, **options)
    card = read_card(model)
    facts |= {"train_s": perf_counter() - started, "steps": card.training["steps_done"]}
    plain = None
    for name in ("plain", "posterior") if card.blind else ("plain",):
        asked = {"posterior": False} if card.blind and name == "plain" else {}
        out = folder / f"{name}.zarr"
        started = perf_counter()
        predict(noisy, model, out, dtype="float32", pyramid=False, device=means.device, **asked)
        seconds = perf_counter() - started
        values = _read(out)
        if plain is not None and np.array_equal(values, plain):
            return  # the noise is not to be trusted here, and predict leaves the posterior out
        plain = values
        estimated = _estimate(out, noisy, case) if case.truth is None else {}
        yield Output(name, values, {**facts, "predict_s": seconds, **estimated})


def _estimate(out: Path, noisy: Volume, case: Case) -> dict[str, Any]:
    """The PSNR as the noisy volume tells it, with its interval at 95%."""
    found = estimate_error(out, noisy, data_range=case.span).to_dict()
    return {f"estimated_{name}": found[name] for name in ("psnr", "psnr_low", "psnr_high")}


def _written(values: Array | None, case: Case, path: Path) -> Volume:
    """As a zarr array, opened with the voxels' size."""
    assert values is not None
    chunks = tuple(min(CHUNK if n else 1, size) for n, size in enumerate(values.shape))
    if not path.exists():
        zarr.create_array(str(path), data=values, chunks=chunks, dimension_names=list(AXES))
    return open_volume(path, voxel_size=case.voxel_size)


def _read(path: Path) -> Array:
    volume = open_volume(path)
    whole = Box.whole(volume.spatial_shape)
    return np.stack([volume.read(t, 0, whole) for t in range(volume.shape[0])])
