"""The tool in one command: simulate with known truth, train, predict, evaluate, report."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from distributed.system import MEMORY_LIMIT

from n2v_scale.api import evaluate, import_volume, open_volume, predict, report, train
from n2v_scale.config import TrainSettings, read_settings
from n2v_scale.errors import ConfigError, OutputError
from n2v_scale.evaluation import reference_range
from n2v_scale.geometry import Box, Shape
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.metrics import best_gaussian
from n2v_scale.progress import NoProgress, Progress, clock
from n2v_scale.reporting import check_ready
from n2v_scale.simulate import simulate_light_sheet
from n2v_scale.slices import draw_slices

BYTES_A_VOXEL = 6
"""Of memory, while a volume is simulated."""


@dataclass(frozen=True)
class DemoResult:
    """PSNR in dB against the truth."""

    noisy: float
    gaussian: float
    """The best of all Gaussian filters, chosen by looking at the truth."""
    gaussian_sigma: tuple[float, float, float]
    denoised: float
    ssim_noisy: float | None
    ssim_denoised: float | None
    seconds: float
    picture: str
    report: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def text(self) -> str:
        """For the terminal."""
        sigma = ", ".join(f"{s:.2g}" for s in self.gaussian_sigma)
        return (
            f"noisy          {self.noisy:5.2f} dB   SSIM {self.ssim_noisy:.3f}\n"
            f"best Gaussian  {self.gaussian:5.2f} dB   "
            f"(sigma {sigma} voxels, found by looking at the truth)\n"
            f"n2v-scale      {self.denoised:5.2f} dB   SSIM {self.ssim_denoised:.3f}   "
            f"{self.denoised - self.noisy:+.2f} over noisy, "
            f"{self.denoised - self.gaussian:+.2f} over the best Gaussian\n"
            f"picture        {self.picture}\n"
            f"report         {self.report} (open it in a browser)\n"
            f"took           {clock(self.seconds)}"
        )


def simulate_volumes(
    noisy: str | Path,
    clean: str | Path | None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **parameters: Any,
) -> None:
    """Write a simulated light-sheet volume, and its truth where ``clean`` is given.

    ``parameters`` are those of :func:`n2v_scale.simulate.simulate_light_sheet`.
    """
    progress = progress or NoProgress()
    for output in (noisy, clean):
        if output is not None and Path(output).exists() and not overwrite:
            raise OutputError(f"{output} exists: choose another name, or --overwrite")
    _check_memory(parameters.get("shape", ()))
    progress.say("simulating")
    volume = simulate_light_sheet(**parameters)
    voxel_size = volume.parameters.voxel_size
    written: list[tuple[str | Path | None, npt.NDArray[Any]]] = [
        (noisy, volume.noisy),
        (clean, volume.clean),
    ]
    for output, values in written:
        if output is not None:
            _write(values, output, voxel_size, overwrite=overwrite, progress=progress)


def _check_memory(shape: tuple[int, ...]) -> None:
    """A simulated volume is made at once, unlike everything else here."""
    needed = BYTES_A_VOXEL * prod(shape)
    if needed > MEMORY_LIMIT:
        raise ConfigError(
            f"simulating {' x '.join(map(str, shape))} voxels needs {needed / 1e9:.3g} GB of "
            f"memory and there are {MEMORY_LIMIT / 1e9:.3g} GB: choose a smaller --shape"
        )


def _write(
    values: npt.NDArray[Any],
    output: str | Path,
    voxel_size: tuple[float, float, float],
    *,
    overwrite: bool,
    progress: Progress,
) -> None:
    """Through a TIFF, the way a microscope's data comes in."""
    beside = Path(normalise(output)).parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as folder:
        stack = Path(folder) / f"{Path(output).stem}.tif"
        tifffile.imwrite(stack, values, photometric="minisblack", metadata={"axes": "ZYX"})
        source = open_volume(stack, voxel_size=voxel_size)
        import_volume(source, output, overwrite=overwrite, progress=progress)


def run_demo(
    folder: Path,
    *,
    minutes: float = 5.0,
    shape: Shape = (64, 256, 256),
    seed: int = 0,
    progress: Progress | None = None,
) -> DemoResult:
    """Everything from a simulated volume to a report in ``folder``, replacing earlier results."""
    started = perf_counter()
    progress = progress or NoProgress()
    read_settings(TrainSettings, None, minutes=minutes, seed=seed)  # what is wrong is said at once
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / "slices.png", folder / "report.html"
    check_ready(page)
    paths = {name: folder / f"{name}.zarr" for name in ("noisy", "denoised", "clean")}
    simulate_volumes(
        paths["noisy"], paths["clean"], overwrite=True, progress=progress, shape=shape, seed=seed
    )
    model = folder / "model.n2v"
    train(paths["noisy"], model, minutes=minutes, seed=seed, overwrite=True, progress=progress)
    predict(paths["noisy"], model, paths["denoised"], overwrite=True, progress=progress)
    volumes = {name: open_volume(path) for name, path in paths.items()}
    before = evaluate(volumes["noisy"], volumes["clean"])
    after = evaluate(volumes["denoised"], volumes["clean"])
    progress.say("searching the best Gaussian filter")
    arrays = {name: _whole(volume) for name, volume in volumes.items()}
    peak = reference_range(volumes["clean"])
    sigma, gaussian = best_gaussian(arrays["noisy"], arrays["clean"], peak)
    draw_slices(picture, arrays, volumes["noisy"].voxel_size)
    report(volumes["denoised"], page, reference=volumes["clean"], progress=progress)
    result = DemoResult(
        before.psnr,
        gaussian,
        sigma,
        after.psnr,
        before.ssim,
        after.ssim,
        perf_counter() - started,
        os.fspath(picture),
        os.fspath(page),
    )
    (folder / "demo.json").write_text(json.dumps(result.to_dict(), indent=2) + "\n")
    return result


def _whole(volume: Volume) -> npt.NDArray[np.float32]:
    return volume.read(0, 0, Box.whole(volume.spatial_shape)).astype(np.float32)
