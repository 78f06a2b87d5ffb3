"""torch, the cards of this machine, and whether the one can use the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from n2v_scale.checkup.check import REINSTALL, Check, note, ok, problem

ASK_TIMEOUT_S = 5.0
NVIDIA = "0x10de"
DISPLAY = "0x03"
"""The class of display controllers on the PCI bus."""
BUILDS = "install the build of torch for it, as https://pytorch.org says"
HIDDEN = ("", "-1", "NoDevFiles")


@dataclass(frozen=True)
class TorchSeen:
    """A torch that could be loaded."""

    version: str
    threads: int
    built_for: str | None
    """``CUDA 12.6`` or ``ROCm 6.2``; None for a build for CPUs alone."""
    gpus: tuple[str, ...] = ()
    """Names of those that it can use."""
    halves: tuple[str, ...] = ()
    """Half precisions in which a 3D convolution ran on the first of them."""
    failure: str = ""
    """What it said when it looked for GPUs, or computed on one."""
    mps: bool = False
    """Whether Apple's GPU is there."""


@dataclass(frozen=True)
class CardsSeen:
    """NVIDIA's cards, as the driver sees them."""

    names: tuple[str, ...] = ()
    driver: str | None = None
    failure: str = ""
    """What ``nvidia-smi`` said when it could not answer."""
    on_the_bus: bool = False
    """Whether there is a card at all, with a driver or without."""
    visible: str | None = None
    """``CUDA_VISIBLE_DEVICES``."""


def look_at_gpus() -> list[Check]:
    """torch, and what it can compute on."""
    try:
        seen = _look_at_torch()
    except (ImportError, OSError, AttributeError) as error:
        return [problem("torch", f"cannot be loaded: {str(error).splitlines()[0]}", REINSTALL)]
    return [judge_torch(seen), judge_gpus(seen, _look_at_cards())]


def judge_torch(seen: TorchSeen) -> Check:
    """What it is a build for."""
    build = f"for {seen.built_for}" if seen.built_for else "for CPUs"
    return ok("torch", f"{seen.version}, a build {build}; {_threads(seen.threads)} here")


def judge_gpus(seen: TorchSeen, cards: CardsSeen) -> Check:
    """Whether there is a GPU that torch can use, and if not, why."""
    if seen.gpus and not seen.failure:
        driver = f"; driver {cards.driver}" if cards.driver else ""
        halves = " and ".join(seen.halves)
        half = f"half precision works ({halves})" if halves else "no half precision"
        return ok("gpu", f"{_counted(seen.gpus)}{driver}; {half}")
    if seen.gpus:
        return problem(
            "gpu",
            f"{_counted(seen.gpus)}, and computing on it fails: {seen.failure}",
            f"{BUILDS}, or compute with --device cpu",
        )
    if seen.mps:
        return ok("gpu", "Apple's (MPS)")
    return _why_none(seen, cards)


def _why_none(seen: TorchSeen, cards: CardsSeen) -> Check:
    """The first reason that explains why torch sees no GPU."""
    driver = f"driver {cards.driver}"
    if cards.names and cards.visible in HIDDEN:
        hidden = f"CUDA_VISIBLE_DEVICES={cards.visible!r} hides {_counted(cards.names)}"
        return note("gpu", hidden, "unset CUDA_VISIBLE_DEVICES to compute on it")
    if cards.names and seen.built_for is None:
        return note(
            "gpu",
            f"{_counted(cards.names)}, and torch {seen.version} is a build for CPUs: runs take "
            "many times as long",
            BUILDS,
        )
    if cards.names:
        said = f" ({seen.failure})" if seen.failure else ""
        return note(
            "gpu",
            f"{_counted(cards.names)}, and torch for {seen.built_for} cannot use it with "
            f"{driver}{said}",
            "install a newer driver, or a torch for an older CUDA, as https://pytorch.org says",
        )
    if cards.failure:
        return note(
            "gpu",
            f"nvidia-smi fails: {cards.failure}",
            "restart the machine if the driver was updated; else have the driver installed",
        )
    if cards.on_the_bus:
        return note("gpu", "an NVIDIA card without a driver", "have NVIDIA's driver installed")
    return ok("gpu", "none: training and prediction compute on the CPU")


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number != 1 else ''}"


def _counted(names: Sequence[str]) -> str:
    """``2 × NVIDIA A100``, or the names where they differ."""
    if len(set(names)) == 1 and len(names) > 1:
        return f"{len(names)} × {names[0]}"
    return ", ".join(names)


def _look_at_torch() -> TorchSeen:
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = tuple(torch.cuda.get_device_name(number) for number in range(count))
    hip: str | None = getattr(torch.version, "hip", None)
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else hip and f"ROCm {hip}"
    halves, failure = _computed() if names else ((), "")
    warned = str(said[-1].message).splitlines()[0] if said and not names else ""
    return TorchSeen(
        version=torch.__version__,
        threads=torch.get_num_threads(),
        built_for=built,
        gpus=names,
        halves=halves,
        failure=failure or warned,
        mps=torch.backends.mps.is_available(),
    )


def _computed() -> tuple[tuple[str, ...], str]:
    """The half precisions in which the first GPU convolves, or why it does not at all."""
    import torch

    halves, failure = [], ""
    for name in ("float32", "float16", "bfloat16"):
        try:
            kind = getattr(torch, name)
            image = torch.ones(1, 1, 4, 4, 4, device="cuda", dtype=kind)
            kernel = torch.ones(1, 1, 3, 3, 3, device="cuda", dtype=kind)
            right = float(torch.nn.functional.conv3d(image, kernel)[0, 0, 0, 0, 0]) == 27.0
        except RuntimeError as error:
            right, text = False, str(error).splitlines()[0]
        else:
            text = "a convolution gives wrong numbers"
        if name == "float32" and not right:
            failure = text
            break
        if right and name != "float32":
            halves.append(name)
    return tuple(halves), failure


def _look_at_cards() -> CardsSeen:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    bus = _on_the_bus(Path("/sys/bus/pci/devices"))
    program = shutil.which("nvidia-smi") or shutil.which("/usr/lib/wsl/lib/nvidia-smi")
    if program is None:
        return CardsSeen(on_the_bus=bus, visible=visible)
    asked = [program, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            asked,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return CardsSeen(failure=str(error), on_the_bus=bus, visible=visible)
    return read_answer(done.returncode, done.stdout, done.stderr, on_the_bus=bus, visible=visible)


def read_answer(
    code: int, out: str, err: str, *, on_the_bus: bool = False, visible: str | None = None
) -> CardsSeen:
    """What ``nvidia-smi --query-gpu=name,driver_version`` has said."""
    if code != 0:
        said = [line for line in (*out.splitlines(), *err.splitlines()) if line.strip()]
        failure = said[0].strip() if said else f"exit code {code}"
        return CardsSeen(failure=failure, on_the_bus=on_the_bus, visible=visible)
    rows = [[cell.strip() for cell in line.split(",")] for line in out.splitlines() if "," in line]
    return CardsSeen(
        names=tuple(row[0] for row in rows),
        driver=rows[0][1] if rows else None,
        on_the_bus=on_the_bus,
        visible=visible,
    )


def _on_the_bus(devices: Path) -> bool:
    """Whether an NVIDIA display controller is plugged in."""
    for device in devices.glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == NVIDIA and kind.startswith(DISPLAY):
            return True
    return False
