"""CAREamics 0.3.5, BM3D and BM4D in environments of their own: installed on first use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

PACKAGES = ("torch==2.13.0", "torchvision==0.28.0", "careamics==0.3.5")
NEEDS = (
    "bioimageio-core>=0.9.0,<=0.11.0",
    "lightning<=2.6.1",
    "matplotlib",
    "microssim<=0.0.5",
    "numpy<=2.4.6",
    "pillow",
    "psutil",
    "pydantic<=2.14.1",
    "pyyaml",
    "scikit-image",
    "tifffile",
    "torchmetrics<1.9.0",
    "zarr<4",
)
BM_PACKAGES = ("bm3d==4.0.3", "bm4d==4.2.5")


def run_peer(environment: Path, noisy: Path, out: Path, *options: str) -> dict[str, float]:
    """CAREamics on ``noisy`` (.npy); writes into ``out``, and returns what it measured."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, PACKAGES[0]], check=True)
        subprocess.run([*pip, "--no-deps", *PACKAGES[1:]], check=True)
        subprocess.run([*pip, *PACKAGES[:2], *NEEDS], check=True)
    script = Path(__file__).with_name("careamics_run.py")
    out.mkdir(exist_ok=True)
    command = [python, script, noisy, out, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_bm(
    environment: Path, noisy: np.ndarray, folder: Path, method: str, noise: float
) -> np.ndarray:
    """``noisy`` after ``bm3d`` or ``bm4d``: see bm_run.py."""
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *BM_PACKAGES], check=True)
    source, out = folder / "bm_in.npy", folder / "bm_out.npy"
    np.save(source, noisy)
    script = Path(__file__).with_name("bm_run.py")
    subprocess.run([python, script, source, out, method, str(noise)], check=True)
    result: np.ndarray = np.load(out)
    return result
