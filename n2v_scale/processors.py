"""The type of processor that computed something: another type gives other last digits."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=4)
def processor(device: str) -> str:
    """The device's model, such as ``AMD EPYC (AVX2)`` or ``NVIDIA H200``.

    ``device`` is ``cpu`` or torch's name of another one.
    """
    if device == "cpu":
        return f"{_cpu_model()} ({_vector_instructions()})"
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{device} of {_cpu_model()}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _vector_instructions() -> str:
    """The widest that numpy found; torch chooses its kernels alike."""
    from numpy.lib import introspect

    features = introspect.opt_func_info(func_name="^add$", signature="float32")
    targets = {
        kind["current"] for kinds in features.values() for kind in kinds.values() if kind["current"]
    }
    return ", ".join(sorted(targets)) or platform.machine()
