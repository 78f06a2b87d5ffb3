"""One worker, and whether it has what a run needs: a look before sixteen jobs wait for a night."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from n2v_scale._version import __version__
from n2v_scale.cluster import open_client
from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.cores import available_cores
from n2v_scale.crew import Crew
from n2v_scale.denoiser import open_denoiser
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.window import run_window


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    seen: str


def check_cluster(
    settings: ClusterSettings,
    *,
    volume: str | None = None,
    model: str | None = None,
    say: Callable[[str], None],
) -> list[Finding]:
    """Start one worker, ask it for the package, the data, the model and the GPU, and stop it.

    Raises
    ------
    ClusterError
        When no worker comes.
    """
    started = perf_counter()
    with open_client(settings, workers=1, tasks=1, say=say) as client:
        crew = Crew(client)
        crew.watch.need(1)
        look = partial(look_around, gpus=settings.gpus, scratch=settings.scratch)
        (outcome,) = run_window(client, look, [(volume, model)], crew=crew)
        if outcome.error is not None:
            raise outcome.error
        found: list[Finding] = outcome.result
    took = f"{perf_counter() - started:.0f} s"
    return [Finding("worker", True, f"came and answered within {took}"), *found]


def look_around(
    addresses: tuple[str | None, str | None], *, gpus: int, scratch: str | None
) -> list[Finding]:
    """On a worker: what there is."""
    volume, model = addresses
    found = [
        Finding("node", True, f"{socket.gethostname()}, {available_cores()} cores"),
        Finding("package", True, f"n2v-scale {__version__}, Python {platform.python_version()}"),
        _tried("torch", _torch),
        _gpu(gpus),
        _tried("scratch", partial(_scratch, scratch)),
    ]
    if volume is not None:
        found.append(_tried("volume", partial(_volume, volume)))
    if model is not None:
        found.append(_tried("model", partial(_model, model)))
    return found


def _tried(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except Exception as error:  # whatever it is, it is what was to be found out
        return Finding(what, False, f"{type(error).__name__}: {error}")


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads unless told otherwise"


def _gpu(wanted: int) -> Finding:
    try:
        import torch

        seen = torch.cuda.device_count()
        names = [torch.cuda.get_device_name(n) for n in range(seen)]
    except (ImportError, RuntimeError, AssertionError) as error:
        return Finding("gpu", not wanted, f"{error}")
    if not wanted:
        return Finding("gpu", True, "none was asked for")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    told = ", ".join(names) or f"torch sees none (CUDA_VISIBLE_DEVICES is {visible})"
    return Finding("gpu", seen >= wanted, told)


def _scratch(folder: str | None) -> str:
    place = Path(os.path.expandvars(folder) if folder else os.environ.get("TMPDIR", "/tmp"))
    free = shutil.disk_usage(place).free
    return f"{place}, {free / 1e9:.1f} GB free"


def _volume(address: str) -> str:
    opened = open_volume(address)
    z, y, x = (n // 2 for n in opened.spatial_shape)
    opened.read(0, 0, Box((z, y, x), (z + 1, y + 1, x + 1)))
    return f"{address} opens, {' x '.join(map(str, opened.spatial_shape))} voxels, and can be read"


def _model(address: str) -> str:
    return f"{address} opens: {open_denoiser(address).key[:12]}"
