"""The pictures of docs/methods.md, from our own simulation, training and prediction.

    python docs/pictures/make.py              # all: about a quarter of an hour of one core
    python docs/pictures/make.py lines light  # some

Volumes, models and results are kept in --work, and what is there is not made again. Everything
is seeded, counted in steps and computed by one thread, so the pictures come out the same on a
slower machine. The PSNR of whole volumes is printed; its range is that of `n2v-scale evaluate`.
Drawing needs matplotlib, which `.[report]` installs.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from panels import Plane, Row, draw, error_row, grey_row

from n2v_scale.api import baseline, estimate_error, predict, train
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.local_cluster import thread_client
from n2v_scale.metrics import psnr
from n2v_scale.simulate import LightSheetVolume, simulate_light_sheet

HERE = Path(__file__).parent
SHAPE = (24, 128, 128)
VOXEL_UM = (2.0, 0.4, 0.4)
SEED = 3
COMMON: dict[str, Any] = {"steps": 300, "patch": (16, 32, 32), "batch": 2, "threads": 1}
UNET: dict[str, Any] = {"net": "unet", "filters": 16}
LINES = 3
"""Voxels along X that share their noise: correlations of 0.67 and 0.33."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scene:
    """A simulated volume, and what is made of it."""

    simulation: dict[str, Any]
    trainings: dict[str, dict[str, Any]]
    results: dict[str, tuple[str, dict[str, Any]]]
    """Title → the model, and how it is applied; the model ``gaussian`` is the calibrated filter."""
    lines: bool = False
    """Whether the noise is alike along X."""


@dataclass(frozen=True)
class Made:
    """All volumes of a scene by title, ``noisy`` first and ``truth`` last."""

    volumes: dict[str, Array]
    data_range: float

    def plane(self, z: int, y: int, x: int, size: int) -> dict[str, Plane]:
        """The same window of every volume."""
        at = (z, slice(y, y + size), slice(x, x + size))
        return {title: values[at].astype(np.float32) for title, values in self.volumes.items()}

    def scores(self) -> dict[str, str]:
        """PSNR of the whole volumes."""
        truth = self.volumes["truth"]
        return {
            title: "" if title == "truth" else f"{psnr(values, truth, self.data_range):.1f} dB"
            for title, values in self.volumes.items()
        }


OWN: dict[str, Any] = {"posterior": True}
LIGHT_TRAININGS = {
    "linear": {"method": "linear", "steps": None, "patch": None, "batch": None},
    "n2s": {"method": "n2s"},
}
LIGHT_RESULTS = {
    "gaussian": ("gaussian", dict[str, Any]()),
    "linear": ("linear", OWN),
    "n2s": ("n2s", OWN),
}
SCENES = {
    "texture": Scene(
        {"psf_sigma": (0.0, 0.0, 0.0), "photons": 100.0},
        {"n2v": {"method": "n2v"}, "n2s": {"method": "n2s"}},
        {
            "n2v": ("n2v", {}),
            "n2s, blind": ("n2s", {"posterior": False}),
            "n2s with posterior": ("n2s", OWN),
        },
    ),
    "lines": Scene(
        {"photons": 40.0},
        {
            "n2v": {"method": "n2v"},
            "structn2v": {"method": "structn2v", "blind_mask": f"x:{LINES - 1}"},
        },
        {"n2v": ("n2v", {}), f"structn2v, x:{LINES - 1}": ("structn2v", {})},
        lines=True,
    ),
    "weak": Scene(
        {"photons": 8.0},
        LIGHT_TRAININGS,
        LIGHT_RESULTS,
    ),
    "bright": Scene(
        {"photons": 200.0},
        LIGHT_TRAININGS,
        LIGHT_RESULTS,
    ),
    "grain": Scene(
        {"photons": 4.0},
        {
            "n2v": {"method": "n2v"},
            "n2v-unet": {"method": "n2v", **UNET},
            "n2v2": {"method": "n2v2", **UNET},
        },
        {"n2v": ("n2v", {}), "n2v --net unet": ("n2v-unet", {}), "n2v2": ("n2v2", {})},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"one of {', '.join(PICTURES)}; all by default")
    parser.add_argument("--work", type=Path, default=Path("build/pictures"), help="a folder")
    parser.add_argument("--afresh", action="store_true", help="make what is there again")
    given = parser.parse_args()
    for name in given.names or PICTURES:
        scenes, rows, zoom = PICTURES[name]
        made = [make(scene, given.work / scene, afresh=given.afresh) for scene in scenes]
        draw(HERE / f"{name}.png", rows(*made), zoom=zoom, voxel_um=VOXEL_UM[2])


def make(name: str, folder: Path, *, afresh: bool) -> Made:
    """Simulate, train and predict what is not there yet."""
    scene = SCENES[name]
    if afresh:
        shutil.rmtree(folder, ignore_errors=True)
    simulated = simulate_light_sheet(SHAPE, seed=SEED, voxel_size=VOXEL_UM, **scene.simulation)
    camera = simulated.parameters.camera
    told = {
        "gain": camera.gain,
        "offset": camera.offset,
        "read_noise": camera.gain * camera.read_noise,
    }
    noisy = written(folder / "noisy.zarr", lines(simulated) if scene.lines else simulated.noisy)
    for model, settings in scene.trainings.items():
        print(f"{name}: training {model}", flush=True)
        train(noisy, folder / model, **{**COMMON, **settings})
    volumes = {"noisy": read(noisy)}
    with thread_client(1) as client:
        for title, (model, settings) in scene.results.items():
            out = folder / result_name(title)
            usual = {"dtype": "float32", "pyramid": False, "client": client}
            if model == "gaussian":
                baseline(noisy, out, filter="gaussian", **usual)
            else:
                chosen = settings | (told if settings.get("posterior") else {})
                predict(noisy, folder / model, out, threads=1, **usual, **chosen)
            volumes[title] = read(open_volume(out))
    made = Made(volumes | {"truth": simulated.clean}, simulated.data_range)
    for title, score in made.scores().items():
        print(f"{name:<14}{title:<22}{score}", end="")
        if scene.results.get(title, ("gaussian",))[0] != "gaussian":
            out = folder / result_name(title)
            print("   estimated", estimated(out, noisy, made, told), end="")
        print(flush=True)
    return made


def result_name(title: str) -> str:
    return f"{title.replace(' ', '_')}.zarr"


def estimated(out: Path, noisy: Volume, made: Made, told: dict[str, float]) -> str:
    """What `n2v-scale evaluate --noisy` says of a result, which does not see the truth."""
    found = estimate_error(out, noisy, data_range=made.data_range, **told)
    alike = max(lags[0] for lags in found.residual.values())
    between = f"{found.psnr_low:.1f} to {found.psnr_high:.1f}"
    return f"{found.psnr:.1f} dB ({between}), residual alike by {alike:.2f}"


def lines(simulated: LightSheetVolume) -> Array:
    """The truth with noise of the camera's variance that neighbours along X share."""
    camera = simulated.parameters.camera
    z, y, x = simulated.clean.shape
    white = np.random.default_rng(SEED).standard_normal((z, y, x + LINES - 1))
    alike = sum(white[..., k : k + x] for k in range(LINES)) / np.sqrt(LINES)
    deviation = camera.gain * np.sqrt(simulated.electrons + camera.read_noise**2)
    return np.asarray(simulated.clean + deviation * alike, np.float32)


def written(path: Path, values: Array) -> Volume:
    """The volume, stored unless it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        chunks = tuple(min(64, n) for n in values.shape)
        zarr.create_array(str(path), data=values, chunks=chunks)
    return open_volume(path, voxel_size=VOXEL_UM)


def read(volume: Volume) -> Array:
    return volume.read(0, 0, Box.whole(SHAPE)).astype(np.float32)


def texture(made: Made) -> list[Row]:
    planes = made.plane(12, 40, 40, 48)
    return [grey_row(planes, made.scores()), error_row(planes)]


def along_x(made: Made) -> list[Row]:
    return [grey_row(made.plane(12, 32, 32, 64), made.scores())]


def light(weak: Made, bright: Made) -> list[Row]:
    planes = bright.plane(12, 32, 32, 64)
    return [
        grey_row(weak.plane(12, 32, 32, 64), weak.scores(), label="8 electrons"),
        grey_row(planes, bright.scores(), label="200 electrons", titled=False),
        error_row(planes),
    ]


def grain(made: Made) -> list[Row]:
    return [grey_row(made.plane(12, 32, 40, 48), made.scores(), brightest=96)]


PICTURES: dict[str, tuple[tuple[str, ...], Callable[..., list[Row]], int]] = {
    "texture": (("texture",), texture, 4),
    "lines": (("lines",), along_x, 4),
    "light": (("weak", "bright"), light, 3),
    "grain": (("grain",), grain, 4),
}
"""Its scenes, its rows, and how many pixels a voxel has."""


if __name__ == "__main__":
    main()
