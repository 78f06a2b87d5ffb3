"""Who holds a lock, and whether that process lives."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from n2v_scale import holder as module
from n2v_scale.holder import HELD, Holder, process_space

ME = Holder.this_process(60)
NOBODY = 2**31 - 1  # above any limit on process numbers


@pytest.fixture(params=[sys.platform, "other"])
def _platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of asking for a process: the kernel's file, where there is one, and psutil."""
    monkeypatch.setattr(module.sys, "platform", request.param)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def holder_of(process: subprocess.Popen[bytes]) -> Holder:
    start = module._start_of(process.pid)
    assert start is not None
    return ME.model_copy(update={"pid": process.pid, "process_start": start})


def test_a_holder_survives_its_encoding() -> None:
    assert Holder.decode(ME.encode()) == ME
    assert ME.pid == os.getpid()
    assert ME.lease_s == 60
    assert getpass.getuser() in str(ME)
    assert str(os.getpid()) in str(ME)


def test_every_token_is_another() -> None:
    assert len({Holder.this_process(1).token for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "change",
    [
        {"token": "../../image"},
        {"token": "A" * 32},
        {"token": "0" * 32 + "\n"},
        {"pid": 0},
        {"pid": -1},
        {"pid": 2**31},
        {"lease_s": 0},
        {"lease_s": 1e9},
        {"lease_s": float("nan")},
        {"space": None},
    ],
)
def test_what_no_holder_wrote_is_not_read(change: dict[str, object]) -> None:
    assert (
        Holder.decode(ME.model_copy(update=change).model_dump_json(warnings=False).encode()) is None
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b"[]", b"{}"])
def test_what_is_torn_is_not_read(content: bytes) -> None:
    assert Holder.decode(content) is None


def test_a_later_version_may_say_more() -> None:
    assert Holder.decode(ME.encode()[:-1] + b',"more":1}') == ME


@pytest.mark.usefixtures("_platform")
def test_a_process_lives_until_it_ends(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child)
    assert holder.alive() is True
    child.kill()
    child.wait()
    assert holder.alive() is False


@pytest.mark.usefixtures("_platform")
def test_a_zombie_is_dead(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it ended, and nobody fetched it
    assert holder.alive() is False


def test_a_stopped_process_lives(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    assert holder_of(child).alive() is True


@pytest.mark.usefixtures("_platform")
def test_a_number_that_went_to_another_process_is_dead(child: subprocess.Popen[bytes]) -> None:
    assert holder_of(child).model_copy(update={"process_start": "1"}).alive() is False


def test_a_number_that_no_process_has_is_dead() -> None:
    assert ME.model_copy(update={"pid": NOBODY}).alive() is False


def test_a_process_elsewhere_cannot_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder.this_process(60)
    monkeypatch.setattr(module, "process_space", lambda: "elsewhere")
    assert holder.alive() is None


@pytest.mark.parametrize("seen", ["yes", "no"])
def test_a_hidden_process_cannot_be_judged(monkeypatch: pytest.MonkeyPatch, seen: str) -> None:
    """/proc may hide other users' processes; a signal to them is then refused."""

    def hidden(pid: int) -> str:
        raise FileNotFoundError(pid)

    def refused(pid: int, number: int) -> None:
        raise PermissionError(pid) if seen == "yes" else ProcessLookupError(pid)

    monkeypatch.setattr(module, "_start_on_linux", hidden)
    monkeypatch.setattr(module, "_start_elsewhere", hidden)
    monkeypatch.setattr(module.os, "kill", refused)
    assert ME.alive() is {"yes": None, "no": False}[seen]


def test_of_this_process_the_tokens_in_use_live() -> None:
    holder = Holder.this_process(60)
    assert holder.alive() is False
    HELD.add(holder.token)
    try:
        assert holder.alive() is True
    finally:
        HELD.discard(holder.token)


def test_the_space_is_the_same_in_another_process() -> None:
    code = "from n2v_scale.holder import process_space; print(process_space())"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert output.stdout.strip() == process_space()


def test_without_a_name_of_its_space_a_machine_goes_by_its_network_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    named = process_space()
    monkeypatch.setattr(module.Path, "read_text", missing)
    monkeypatch.setattr(module.uuid, "getnode", lambda: 0xABC)
    assert process_space() == f"{ME.host} abc" != named


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(module.getpass, "getuser", nameless)
    assert Holder.this_process(1).user == f"user {os.getuid()}"
