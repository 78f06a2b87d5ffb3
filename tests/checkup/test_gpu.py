"""Which GPU torch can use, and why not: from what is seen, without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2v_scale.checkup.check import Level
from n2v_scale.checkup.gpu import (
    CardsSeen,
    TorchSeen,
    _on_the_bus,
    judge_gpus,
    judge_torch,
    look_at_gpus,
    read_answer,
)

A100 = "NVIDIA A100-SXM4-80GB"
CPU = TorchSeen("2.13.0+cpu", threads=8, built_for=None)
CUDA = TorchSeen("2.13.0", threads=1, built_for="CUDA 13.0")
CARD = CardsSeen(names=(A100,), driver="535.104", on_the_bus=True)


@pytest.mark.parametrize(
    ("torch", "cards", "level", "words"),
    [
        (CPU, CardsSeen(), "ok", "none: training and prediction compute on the CPU"),
        (CPU, CARD, "note", f"{A100}, and torch 2.13.0+cpu is a build for CPUs"),
        (CUDA, CARD, "note", "torch for CUDA 13.0 cannot use it with driver 535.104"),
        (
            TorchSeen("2.13.0", 1, "CUDA 13.0", failure="driver too old (found version 12020)"),
            CARD,
            "note",
            "driver 535.104 (driver too old (found version 12020))",
        ),
        (
            CUDA,
            CardsSeen((A100, A100), "535.104", visible=""),
            "note",
            f"CUDA_VISIBLE_DEVICES='' hides 2 × {A100}",
        ),
        (CPU, CardsSeen(failure="couldn't communicate"), "note", "nvidia-smi fails: couldn't"),
        (CUDA, CardsSeen(on_the_bus=True), "note", "an NVIDIA card without a driver"),
        (TorchSeen("2.13.0", 1, None, mps=True), CardsSeen(), "ok", "Apple's (MPS)"),
        (
            TorchSeen("2.13.0", 1, "CUDA 12.6", (A100, A100), ("float16", "bfloat16")),
            CARD,
            "ok",
            f"2 × {A100}; driver 535.104; half precision works (float16 and bfloat16)",
        ),
        (
            TorchSeen("2.13.0", 1, "CUDA 12.6", (A100, "Tesla P4")),
            CardsSeen(),
            "ok",
            f"{A100}, Tesla P4; no half precision",
        ),
        (
            TorchSeen("2.13.0", 1, "CUDA 13.0", ("Tesla K80",), failure="no kernel image"),
            CARD,
            "problem",
            "Tesla K80, and computing on it fails: no kernel image",
        ),
    ],
)
def test_why_there_is_no_gpu(torch: TorchSeen, cards: CardsSeen, level: Level, words: str) -> None:
    check = judge_gpus(torch, cards)
    assert (check.what, check.level) == ("gpu", level)
    assert words in check.seen
    assert bool(check.remedy) == (level != "ok")


def test_what_torch_is_built_for() -> None:
    assert judge_torch(CPU).seen == "2.13.0+cpu, a build for CPUs; 8 threads here"
    assert judge_torch(CUDA).seen == "2.13.0, a build for CUDA 13.0; 1 thread here"


def test_what_nvidia_smi_says() -> None:
    two = read_answer(0, "NVIDIA A100, 535.104\nTesla P4, 535.104\n", "")
    assert (two.names, two.driver, two.failure) == (("NVIDIA A100", "Tesla P4"), "535.104", "")
    failed = read_answer(9, "\nNVIDIA-SMI has failed because of it\n", "", visible="0")
    assert failed.failure == "NVIDIA-SMI has failed because of it"
    assert (failed.names, failed.visible) == ((), "0")
    assert read_answer(6, "", "").failure == "exit code 6"
    assert read_answer(0, "No devices were found\n", "").names == ()


@pytest.mark.parametrize(
    ("vendor", "kind", "there"),
    [("0x10de", "0x030200", True), ("0x10de", "0x020000", False), ("0x8086", "0x030000", False)],
)
def test_a_card_on_the_bus(tmp_path: Path, vendor: str, kind: str, there: bool) -> None:
    assert not _on_the_bus(tmp_path / "none")
    device = tmp_path / "0000:00:01.0"
    device.mkdir()
    assert not _on_the_bus(tmp_path)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    assert _on_the_bus(tmp_path) is there


def test_this_torch_can_be_looked_at() -> None:
    torch, gpu = look_at_gpus()
    assert (torch.what, torch.level, gpu.what) == ("torch", "ok", "gpu")


def test_a_torch_that_cannot_be_loaded_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> TorchSeen:
        raise OSError("libcudart.so.13: cannot open shared object file\nand more")

    monkeypatch.setattr("n2v_scale.checkup.gpu._look_at_torch", fail)
    (check,) = look_at_gpus()
    assert check.level == "problem"
    assert check.seen == "cannot be loaded: libcudart.so.13: cannot open shared object file"
