"""Which device to compute on, and how exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from n2v_scale.errors import ConfigError

log = logging.getLogger(__name__)


def choose_device(wanted: str) -> str:
    """``auto`` becomes cuda, mps or cpu, in this order; another word must be available.

    Raises
    ------
    ConfigError
        When the wanted device is not there; the message says what is.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": _mps_works(), "cpu": True}
    if wanted == "auto":
        return next(name for name, there in available.items() if there)
    if not available.get(wanted, False):
        there = ", ".join(name for name, yes in available.items() if yes)
        raise ConfigError(f"device {wanted} is not available here; available: {there}")
    return wanted


def _mps_works() -> bool:
    """Whether Apple's device runs 3D pooling and upsampling, which older torch lacks there."""
    if not torch.backends.mps.is_available():
        return False
    try:
        probe = torch.ones(1, 1, 2, 2, 2, device="mps", requires_grad=True)
        F.interpolate(F.max_pool3d(probe, 2), scale_factor=2.0).sum().backward()
    except (NotImplementedError, RuntimeError) as error:
        log.warning("this torch cannot run 3D networks on MPS (%s): a newer one can", error)
        return False
    return True


def compute_exactly() -> None:
    """Full float32 on CUDA: with TF32, tiles of different shape differ by 1e-3."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def device_count() -> int:
    """How many GPUs this process sees; at least 1."""
    return max(1, torch.cuda.device_count())


def device_memory() -> int | None:
    """Bytes of the first GPU's memory; None where there is none."""
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def channels_last(network: nn.Module) -> None:
    """Store 3D convolutions channels-last, which is an eighth faster on a CPU."""
    for parameter in network.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Compute on so many threads, and leave the number as it was found; None changes nothing."""
    before = torch.get_num_threads()
    if threads is None or threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
