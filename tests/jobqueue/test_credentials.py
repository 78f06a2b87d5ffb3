"""Keys of one run: for nobody else, and for no longer."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from n2v_scale.cluster import shared_folder
from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.jobqueue.credentials import temporary_credentials


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def dead_pid() -> int:
    """Of a process that has ended and been waited for."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_only_the_user_reads_them(tmp_path: Path) -> None:
    before = os.umask(0)  # the widest there is
    try:
        with temporary_credentials(tmp_path / "shared") as made:
            (own,) = (tmp_path / "shared").iterdir()
            assert mode(own) == 0o700
            assert sorted(path.name for path in own.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
            assert {mode(path) for path in own.iterdir()} == {0o600}
            assert made.options == [
                *("--tls-ca-file", str(own / "ca.pem")),
                *("--tls-cert", str(own / "cert.pem")),
                *("--tls-key", str(own / "key.pem")),
            ]
    finally:
        os.umask(before)
    assert list((tmp_path / "shared").iterdir()) == []


def test_the_files_are_those_of_this_process(tmp_path: Path) -> None:
    with temporary_credentials(tmp_path) as made:
        held = made.security.get_tls_config_for_role("worker")
        assert made.ca.read_text() == held["ca_file"]
        assert made.cert.read_text() == held["cert"]
        assert made.key.read_text() == held["key"]
        assert "PRIVATE KEY" in made.key.read_text()


def test_they_go_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken with 1"), temporary_credentials(tmp_path):
        raise ValueError(f"broken with {len(list(tmp_path.iterdir()))}")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_run_is_not_taken_for_one_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), temporary_credentials(tmp_path):
        raise OSError("disk")


def test_two_runs_have_their_own(tmp_path: Path) -> None:
    with temporary_credentials(tmp_path) as one, temporary_credentials(tmp_path) as other:
        assert one.key.parent != other.key.parent
        assert one.key.read_text() != other.key.read_text()


def test_those_of_killed_runs_go(tmp_path: Path) -> None:
    host, dead = socket.gethostname(), dead_pid()
    left = tmp_path / f"keys-{host}-{dead}-abc"
    kept = [
        tmp_path / f"keys-{host}-{os.getpid()}-abc",  # runs
        tmp_path / f"keys-elsewhere-{dead}-abc",  # who knows
        tmp_path / f"keys-{host}-2-{dead}-abc",  # of the host whose name is ours and -2
        tmp_path / "keys-mine",
        tmp_path / "logs",
    ]
    for folder in (left, *kept):
        folder.mkdir()
        (folder / "key.pem").write_text("old")
    with temporary_credentials(tmp_path):
        assert not left.exists()
        assert all((folder / "key.pem").exists() for folder in kept)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = r"file/shared cannot be written \(Not a directory\), .* set shared = … in the cluster"
    with (
        pytest.raises(ClusterError, match=message),
        temporary_credentials(tmp_path / "file" / "shared"),
    ):
        pytest.fail("there are no keys")


def test_the_shared_folder_is_named_as_in_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WORK", "/work")
    for given, meant in (
        (None, tmp_path / ".n2v-scale"),
        ("~/runs", tmp_path / "runs"),
        ("$WORK/runs", Path("/work/runs")),
        ("runs", Path.cwd() / "runs"),
    ):
        assert shared_folder(ClusterSettings(system="slurm", shared=given)) == meant
    monkeypatch.delenv("WORK")
    with pytest.raises(ConfigError, match=r"'\$WORK/runs' names a variable that is not set"):
        shared_folder(ClusterSettings(system="slurm", shared="$WORK/runs"))
