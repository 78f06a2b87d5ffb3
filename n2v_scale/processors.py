"""The type of processor that computed something: another type gives other last digits."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
VECTORS = (("avx512f", "AVX512"), ("avx2", "AVX2"), ("sve", "SVE"), ("asimd", "NEON"))
"""Instruction sets that kernels are chosen by, the widest first; the kernel's name and ours."""


@lru_cache(maxsize=4)
def processor(device: str) -> str:
    """The device's model, such as ``AMD EPYC (AVX2)`` or ``NVIDIA H200``.

    ``device`` is ``cpu`` or torch's name of another one. It is no other after an update of a
    library.
    """
    if device == "cpu":
        return f"{_cpu('model name')} ({_vectors()})"
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{device} of {_cpu('model name')}"


def _cpu(name: str) -> str:
    """What Linux says of the first core; elsewhere, and where it says nothing, the machine."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return values[0] if values else platform.processor() or platform.machine()


def _vectors() -> str:
    known = {*_cpu("flags").split(), *_cpu("Features").split()}  # x86, Arm
    return next((ours for kernel, ours in VECTORS if kernel in known), platform.machine())
