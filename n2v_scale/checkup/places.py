"""Folders: the one for outputs, the temporary one, and the home directory."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from n2v_scale.checkup.check import Check, note, ok, problem
from n2v_scale.cluster_settings import home_folder
from n2v_scale.errors import ConfigError

GB = 1e9
LITTLE = 10 * GB
NONE_LEFT = 0.1 * GB
LITTLE_TEMPORARY = 1 * GB
SKEW_S = 5.0
"""A file's time may differ so much from this machine's clock."""
SLOW = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "davfs"}
"""Each file costs a trip over the network there."""


@dataclass(frozen=True)
class FolderSeen:
    """A folder, as files that were written into it and are gone again have shown it."""

    path: str
    refused: str = ""
    """Why nothing can be written there."""
    no_rename: str = ""
    """Why a file cannot take another's place in one step."""
    no_shard: str = ""
    """Why a sharded zarr array could not be written and read back."""
    sees_case: bool = True
    kind: str = ""
    """Of the file system, as in ``nfs4``; empty where unknown."""
    free: int = 0
    """Bytes."""
    skew_s: float = 0.0
    """A new file's time minus this machine's clock."""


def look_at_places(folder: str) -> list[Check]:
    """Where outputs go, where temporary files go, and the home directory."""
    return [*judge_folder(_look_at(Path(folder), shards=True)), *_temporary(), judge_home(_home())]


def judge_folder(seen: FolderSeen) -> list[Check]:
    """Whether outputs can be written there safely."""
    what = "folder"
    for failure, text, remedy in (
        (seen.refused, "cannot be written to", "name one of your own: n2v-scale doctor --folder …"),
        (seen.no_rename, "cannot replace a file in one step", "write outputs to another disk"),
        (seen.no_shard, "a zarr array did not come back", "write outputs to another disk"),
    ):
        if failure:
            return [problem(what, f"{seen.path} {text}: {failure}", remedy)]
    system = f" ({seen.kind})" if seen.kind else ""
    text = f"{seen.path}{system}: writes, renames in one step, {_gb(seen.free)} free"
    return [_judge_space(what, text, seen), *_oddities(seen)]


def _judge_space(what: str, text: str, seen: FolderSeen) -> Check:
    if seen.free < NONE_LEFT:
        return problem(what, text, "free some space, or name another folder")
    if seen.free < LITTLE:
        return note(what, text, "free some space (n2v-scale plan says how much a run writes)")
    return ok(what, text)


def _oddities(seen: FolderSeen) -> list[Check]:
    odd = []
    if not seen.sees_case:
        odd.append(
            note(
                "folder",
                f"{seen.path} takes A and a for the same name",
                "give outputs names that differ in more than capitals",
            )
        )
    if seen.kind in SLOW:
        odd.append(
            note(
                "folder",
                f"{seen.path} is on a network file system ({seen.kind}): each file costs a trip",
                "few large files are faster there: leave --shard as it is, or larger",
            )
        )
    if abs(seen.skew_s) > SKEW_S:
        odd.append(
            note(
                "clock",
                f"files in {seen.path} are dated {seen.skew_s:+.0f} s from this machine's clock",
                "have the clocks of this machine and the file server set (NTP)",
            )
        )
    return odd


def judge_temporary(seen: FolderSeen) -> Check:
    """Whether short-lived files have room."""
    if seen.refused:
        return problem(
            "temporary", f"{seen.path}: {seen.refused}", "set TMPDIR to a folder of your own"
        )
    text = f"{seen.path}, {_gb(seen.free)} free"
    if seen.free < LITTLE_TEMPORARY:
        return note("temporary", text, "set TMPDIR to a larger folder")
    return ok("temporary", text)


def judge_home(home: str | None) -> Check:
    """Where presets, and certificates for jobs, lie."""
    if home is None:
        return note("home", "HOME is not set, and this user has no entry", "set HOME")
    return ok("home", home)


def kind_of(path: Path, mounts: Iterable[str]) -> str:
    """The file system of ``path``, by the lines of ``/proc/mounts``; the deepest mount counts."""
    found = (0, "")
    for line in mounts:
        fields = line.split()
        if len(fields) < 3:
            continue
        mount = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(mount):
            found = max(found, (len(mount.parts), fields[2]), key=lambda one: one[0])
    return found[1]


def _home() -> str | None:
    try:
        return str(home_folder())
    except ConfigError:
        return None


def _temporary() -> list[Check]:
    try:
        folder = tempfile.gettempdir()
    except OSError as error:
        return [judge_temporary(FolderSeen("no folder", refused=str(error)))]
    return [judge_temporary(_look_at(Path(folder), shards=False))]


def _look_at(folder: Path, *, shards: bool) -> FolderSeen:
    """Write, rename, and look at what came of it, in a folder that is deleted again."""
    folder = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100 (keeps links)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # an output's folder is made when it is written
    if not folder.is_dir():
        return FolderSeen(str(folder), refused="it is a file")
    try:
        with tempfile.TemporaryDirectory(prefix=".n2v-scale-doctor-", dir=folder) as scratch:
            return _probed(folder, Path(scratch), shards=shards)
    except OSError as error:
        return FolderSeen(str(folder), refused=error.strerror or str(error))


def _probed(folder: Path, scratch: Path, *, shards: bool) -> FolderSeen:
    (scratch / "a").write_text("old")
    skew_s = (scratch / "a").stat().st_mtime - time.time()
    sees_case = not (scratch / "A").exists()
    return FolderSeen(
        str(folder),
        no_rename=_why(lambda: _replace(scratch)),
        no_shard=_why(lambda: _shard(scratch)) if shards else "",
        sees_case=sees_case,
        kind=_kind(folder),
        free=shutil.disk_usage(folder).free,
        skew_s=skew_s,
    )


def _replace(scratch: Path) -> None:
    (scratch / "b").write_text("new")
    (scratch / "b").replace(scratch / "a")
    if (scratch / "a").read_text() != "new":
        raise OSError("the old content is still there")


def _shard(scratch: Path) -> None:
    from zarr.storage import LocalStore

    from n2v_scale.checkup.codecs import through

    through(LocalStore(scratch / "probe.zarr"), "blosc-zstd", 3)


def _why(act: Callable[[], None]) -> str:
    try:
        act()
    except Exception as error:  # whatever it is, it is what was to be found out
        return f"{error}".splitlines()[0]
    return ""


def _kind(folder: Path) -> str:
    if sys.platform != "linux":
        return ""
    try:
        return kind_of(folder.resolve(), Path("/proc/mounts").read_text().splitlines())
    except OSError:
        return ""


def _gb(size: float) -> str:
    return f"{size / GB:,.1f} GB"
