"""Folders, from what files in them have shown; and real ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from n2v_scale.checkup import places
from n2v_scale.checkup.places import (
    FolderSeen,
    judge_folder,
    judge_home,
    judge_temporary,
    kind_of,
    look_at_places,
)

GB = 10**9
SEEN = FolderSeen("/data", kind="ext4", free=500 * GB)


def test_a_good_folder() -> None:
    (check,) = judge_folder(SEEN)
    assert (check.level, check.seen) == (
        "ok",
        "/data (ext4): writes, renames in one step, 500.0 GB free",
    )


@pytest.mark.parametrize(
    ("given", "level", "words"),
    [
        ({"refused": "Permission denied"}, "problem", "/data cannot be written to: Permission"),
        ({"no_rename": "in use"}, "problem", "cannot replace a file in one step: in use"),
        ({"no_shard": "other values"}, "problem", "a zarr array did not come back: other values"),
        ({"free": GB // 20}, "problem", "0.1 GB free"),
        ({"free": 5 * GB}, "note", "5.0 GB free"),
    ],
)
def test_a_bad_folder(given: dict[str, Any], level: str, words: str) -> None:
    (check,) = judge_folder(replace(SEEN, **given))
    assert check.level == level
    assert words in check.seen
    assert check.remedy


@pytest.mark.parametrize(
    ("given", "what", "words"),
    [
        ({"sees_case": False}, "folder", "takes A and a for the same name"),
        ({"kind": "nfs4"}, "folder", "on a network file system (nfs4)"),
        ({"skew_s": -42.0}, "clock", "files in /data are dated -42 s from this machine's clock"),
    ],
)
def test_an_odd_folder(given: dict[str, Any], what: str, words: str) -> None:
    first, odd = judge_folder(replace(SEEN, **given))
    assert (first.level, odd.level, odd.what) == ("ok", "note", what)
    assert words in odd.seen


def test_the_deepest_mount_counts() -> None:
    mounts = [
        "/dev/sda1 / ext4 rw 0 0",
        "server:/export /data nfs4 rw 0 0",
        r"//pc/share /mnt/my\040share cifs rw 0 0",
        "torn",
    ]
    assert kind_of(Path("/data/me"), mounts) == "nfs4"
    assert kind_of(Path("/database"), mounts) == "ext4"
    assert kind_of(Path("/mnt/my share/x"), mounts) == "cifs"
    assert kind_of(Path("/data"), []) == ""


def test_temporary_and_home() -> None:
    assert judge_temporary(SEEN).level == "ok"
    assert judge_temporary(replace(SEEN, free=GB // 2)).level == "note"
    assert judge_temporary(replace(SEEN, refused="Read-only")).level == "problem"
    assert judge_home("/home/me").level == "ok"
    assert judge_home(None).level == "note"


def test_a_real_folder_is_left_as_it_was(tmp_path: Path) -> None:
    folder, *_, home = look_at_places(str(tmp_path / "not" / "yet"))
    assert folder.level in ("ok", "note")  # little space is noted
    assert folder.seen.startswith(f"{tmp_path} ")
    assert "renames in one step" in folder.seen
    assert home.what == "home"
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "it is a file" in look_at_places(str(tmp_path / "file"))[0].seen


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    check = look_at_places(str(tmp_path))[0]
    assert (check.level, "Permission denied" in check.seen) == ("problem", True)


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(places.tempfile, "gettempdir", none)
    monkeypatch.setattr(places, "_look_at", lambda *_, **__: SEEN)
    temporary = look_at_places("/data")[1]
    assert (temporary.what, temporary.level) == ("temporary", "problem")
