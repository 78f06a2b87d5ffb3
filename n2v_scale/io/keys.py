"""Keys of an output's store, a folder or a URL: set, read, listed and deleted.

Failures of a folder are OSErrors that name the file, failures behind a URL are OutputErrors that
name the key.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from n2v_scale.errors import OutputError
from n2v_scale.io.connections import gathered
from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.stores import is_url, output_store

PROVENANCE = "n2v_scale"
"""The subgroup that holds what the output was made from, and the ledger."""

_DOCUMENTS = {"zarr.json", ".zgroup", ".zattrs"}

PARTIAL = ".partial"
"""How the name of a file ends that a writer has not finished."""


@contextmanager
def naming(store: str, key: str = "") -> Iterator[None]:
    """Give an OSError of the file system, which may say "no space left" alone, the file's name."""
    try:
        yield
    except OSError as exc:
        if exc.filename is not None or exc.errno is None or is_url(store):
            raise
        raise OSError(exc.errno, exc.strerror, str(Path(store, key))) from exc


def put(store: str, key: str, data: bytes) -> None:
    """Set a key atomically."""
    with naming(store, key):
        sync(output_store(store).set(key, default_buffer_prototype().buffer.from_bytes(data)))


def put_if_absent(store: str, key: str, data: bytes) -> bool:
    """Whether the key was created: it is set, whole, only if there is none.

    In a folder this is atomic, over NFS too. On a file system without hard links the key is
    created atomically but seen empty until it is written. Behind a URL it is as good as the
    store: S3, Google and Azure decide it themselves; where a store knows no such condition, two
    callers at the same instant may both be told that they created the key. ``data`` should be the
    caller's alone: an answer that was lost on the way is asked for again, and whoever then finds
    its own bytes has created the key.
    """
    if is_url(store):
        target = output_store(store)
        return isinstance(target, RemoteStore) and sync(target.create(key, data))
    with naming(store, key):
        return _create_file(Path(store, key), data)


def _create_file(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        _write_new(draft, data)
        try:
            os.link(draft, path)
        except FileExistsError:
            return draft.stat().st_nlink == 2  # NFS: linked, but the answer was lost
        except OSError as exc:
            if exc.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return _create_unlinked(path, data)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _create_unlinked(path: Path, data: bytes) -> bool:
    try:
        _write_new(path, data)
    except FileExistsError:
        return False
    return True


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def get(store: str, key: str) -> bytes | None:
    """The value of a key, or None."""
    try:
        with naming(store, key):
            value = sync(output_store(store, read_only=True).get(key, default_buffer_prototype()))
    except FileNotFoundError:  # there is no store yet
        return None
    return None if value is None else value.to_bytes()


def keys_under(store: str, prefix: str) -> list[str]:
    """All keys that begin with ``prefix/``, in order; what a writer has not finished is no key."""
    return sorted(sizes_under(store, prefix))


def sizes_under(store: str, prefix: str) -> dict[str, int]:
    """Bytes of every key that begins with ``prefix/``: one listing, nothing is read.

    Behind a URL this is one request a thousand keys.
    """
    target = output_store(store, read_only=True)
    if isinstance(target, RemoteStore):
        return sync(target.sizes(prefix))
    with naming(store, prefix):
        return dict(_files(Path(store, prefix), f"{prefix}/" if prefix else ""))


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path), f"{prefix}{entry.name}/")
            elif not entry.name.endswith(PARTIAL):
                with suppress(FileNotFoundError):  # deleted since it was listed
                    yield f"{prefix}{entry.name}", entry.stat().st_size


def delete_keys(store: str, keys: Iterable[str]) -> None:
    """Delete keys; those that are gone already do not matter."""
    target = output_store(store)
    with naming(store):
        sync(gathered(target.delete(key) for key in keys))


def sweep_partial_files(store: str, *, older_than_s: float = 600) -> int:
    """Delete what writers that died left behind; returns how many files that were.

    What is younger than ``older_than_s`` may be of a writer that lives. Behind a URL there is
    nothing to sweep: an upload that was not completed is no key.
    """
    count = 0
    for path in () if is_url(store) else Path(store).rglob(f"*{PARTIAL}"):
        with suppress(FileNotFoundError):  # its writer was alive and has renamed it
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()
                count += 1
    return count


def names(store: str) -> set[str]:
    """What lies directly in the store; its own name where the place is a file."""
    target = output_store(store, read_only=True)
    if isinstance(target, RemoteStore):
        return set(sync(target.names()))
    path = Path(store)
    if path.is_dir():
        return {entry.name for entry in path.iterdir()}
    return {path.name} if path.exists() or path.is_symlink() else set()


def is_empty(store: str) -> bool:
    """Whether nothing is there; a file at the place counts as something."""
    return not names(store)


def remove_output(store: str, *, keep: str = "") -> None:
    """Delete an output that this package wrote, and nothing else.

    What says that it is ours goes last, so that a removal that was interrupted can be repeated.
    ``keep`` is a folder of it that stays, such as that of a lock which is held.

    Raises
    ------
    OutputError
        When the place is something else, or the root of a bucket.
    """
    if is_empty(store):
        return
    if is_url(store) and not store.partition("://")[2].strip("/").partition("/")[2]:
        raise OutputError(f"{store} is a whole bucket: it is not deleted; choose a name inside it")
    if get_attributes(store, PROVENANCE) is None:
        raise OutputError(
            f"{store} was not written by n2v-scale: it is not deleted; choose another name"
        )
    with naming(store):
        _remove_remote(store, keep) if is_url(store) else _remove_folder(Path(store), keep)


def _remove_remote(store: str, keep: str) -> None:
    ours = [f"{PROVENANCE}/{name}" for name in _DOCUMENTS]
    stays = f"{keep}/" if keep else None
    found = [key for key in keys_under(store, "") if not (stays and key.startswith(stays))]
    delete_keys(store, (key for key in found if key not in ours))
    delete_keys(store, ours)
    if not keep and not is_empty(store):
        raise OutputError(f"{store} cannot be deleted whole: {sorted(names(store))} is left")


def _remove_folder(store: Path, keep: str) -> None:
    above, _, kept = keep.partition("/")
    places = [(store, {PROVENANCE, above}), (store / PROVENANCE, _DOCUMENTS)]
    if keep:
        places.insert(1, (store / above, {kept}))
    for folder, last in places:
        for child in folder.iterdir():
            if child.name not in last:
                _remove(child)
    _remove(store / PROVENANCE if keep else store)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def set_attributes(store: str, path: str, attributes: dict[str, Any], ome_version: str) -> None:
    """Create the group ``path`` if need be and replace its attributes."""
    form: Literal[2, 3] = 3 if ome_version == "0.5" else 2
    with naming(store, path):
        group = zarr.open_group(output_store(store), path=path, mode="a", zarr_format=form)
        group.attrs.put(attributes)


def get_attributes(store: str, path: str) -> dict[str, Any] | None:
    """The attributes of the group ``path``, or None when there is none."""
    try:
        return dict(zarr.open_group(output_store(store, read_only=True), path=path, mode="r").attrs)
    except (FileNotFoundError, KeyError, ValueError):
        return None
