"""What a processor is called: what a ledger compares between machines."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from n2v_scale import processors
from n2v_scale.processors import processor

X86 = "processor\t: {n}\nmodel name\t: {model}\nflags\t\t: fpu sse4_2 {flags}\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes{more}\nCPU part\t: 0xd40\n"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    processor.cache_clear()
    yield
    processor.cache_clear()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Pretend that Linux says this of its cores."""

    def pretend(text: str) -> None:
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(processors, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(platform, "processor", lambda: "")
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")

    return pretend


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx avx2 fma", "Some CPU @ 3 GHz (AVX2)"),
        ("avx avx2 avx512f", "Some CPU @ 3 GHz (AVX512)"),
        ("avx", "Some CPU @ 3 GHz (aarch64)"),
    ],
)
def test_x86(machine: Callable[[str], None], flags: str, expected: str) -> None:
    cores = [X86.format(n=n, model="Some CPU @ 3 GHz", flags=flags) for n in range(2)]
    machine("".join(cores))
    assert processor("cpu") == expected


def test_arm_has_no_model_name(machine: Callable[[str], None]) -> None:
    machine(ARM.format(more=""))
    assert processor("cpu") == "aarch64 (NEON)"
    processor.cache_clear()
    machine(ARM.format(more=" sve"))
    assert processor("cpu") == "aarch64 (SVE)"


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert processor("cpu") == "arm (arm64)"


def test_a_gpu_is_called_by_its_model(
    machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = SimpleNamespace(get_device_name=lambda device: f"NVIDIA H200 as {device}")
    monkeypatch.setattr("torch.cuda", cuda)
    assert processor("cuda:1") == "NVIDIA H200 as cuda:1"
    machine(X86.format(n=0, model="Apple M9", flags=""))
    assert processor("mps") == "mps of Apple M9"


def test_this_machine_has_one_name() -> None:
    assert processor("cpu") == processor("cpu")
    assert processor("cpu").count("(") >= 1
    assert platform.machine() in processor("cpu") or processor("cpu").endswith(
        tuple(f"({ours})" for _, ours in processors.VECTORS)
    )
