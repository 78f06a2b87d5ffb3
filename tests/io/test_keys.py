"""Keys of a store: the same in a folder and behind a URL, and what a folder alone has."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from n2v_scale.errors import OutputError
from n2v_scale.io import keys
from n2v_scale.io.keys import (
    delete_keys,
    get,
    get_attributes,
    is_empty,
    keys_under,
    names,
    put,
    put_if_absent,
    remove_output,
    set_attributes,
    sizes_under,
    sweep_partial_files,
)
from n2v_scale.io.stores import StorageOptions, output_store, remember


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An address where nothing is yet."""
    if request.param == "folder":
        return str(tmp_path / "out.zarr")
    if request.param == "memory":
        return f"memory://bucket/{uuid4().hex}/out.zarr"
    s3 = request.getfixturevalue("s3")
    url: str = s3.url("out.zarr")
    remember(url.rpartition("/")[0], StorageOptions.of(s3.options))
    return url


def test_keys(store: str) -> None:
    assert get(store, "a/b") is None
    assert keys_under(store, "a") == []
    put(store, "a/b", b"12")
    put(store, "a/c/d", b"3")
    put(store, "ab/e", b"4")
    put(store, "a/empty", b"")
    assert get(store, "a/b") == b"12"
    assert get(store, "a/empty") == b""
    assert get(store, "a") is None
    assert get(store, "a/b/c") is None
    put(store, "a/b", b"345")
    assert get(store, "a/b") == b"345"
    assert keys_under(store, "a") == ["a/b", "a/c/d", "a/empty"]
    assert sizes_under(store, "a") == {"a/b": 3, "a/c/d": 1, "a/empty": 0}
    assert keys_under(store, "") == ["a/b", "a/c/d", "a/empty", "ab/e"]
    assert keys_under(store, "q") == []
    assert names(store) == {"a", "ab"}


def test_what_another_process_does_is_seen_at_once(store: str, s3: Any) -> None:
    """No listing and no value is remembered; here the other one is a connection of its own."""
    put(store, "a/b", b"1")
    assert keys_under(store, "a") == ["a/b"]
    assert names(f"{store}/a") == {"b"}
    assert not put_if_absent(store, "a/b", b"2")
    other = output_store(store)
    if store.startswith("s3"):
        remember(store, StorageOptions.of(s3.options | {"config_kwargs.read_timeout": "17"}))
        other = output_store(store)
        remember(store, StorageOptions.of(s3.options))
        assert other.fs is not output_store(store).fs
    buffer = zarr.core.buffer.default_buffer_prototype().buffer
    zarr.core.sync.sync(other.set("a/c", buffer.from_bytes(b"23")))
    zarr.core.sync.sync(other.delete("a/b"))
    assert sizes_under(store, "a") == {"a/c": 2}
    assert names(f"{store}/a") == {"c"}
    assert get(store, "a/b") is None
    assert put_if_absent(store, "a/b", b"2")


def test_deleting(store: str) -> None:
    for n in range(70):
        put(store, f"a/{n}", b"x")
    put(store, "b", b"stays")
    delete_keys(store, [f"a/{n}" for n in range(90)])  # some are gone already
    assert keys_under(store, "") == ["b"]
    delete_keys(store, iter(["b"]))
    assert keys_under(store, "") == []


def test_a_name_is_no_pattern(store: str) -> None:
    for key in ("a/1", "a/2", "a/[12]", "a/*"):
        put(store, key, b"x")
    delete_keys(store, ["a/*", "a/[12]"])
    assert keys_under(store, "a") == ["a/1", "a/2"]


def test_a_key_is_created_once(store: str) -> None:
    assert put_if_absent(store, "lock/a", b"first")
    assert not put_if_absent(store, "lock/a", b"second")
    assert not put_if_absent(store, "lock/a", b"first")
    assert get(store, "lock/a") == b"first"
    assert keys_under(store, "lock") == ["lock/a"]
    delete_keys(store, ["lock/a"])
    assert put_if_absent(store, "lock/a", b"second")
    assert get(store, "lock/a") == b"second"


def test_of_many_at_once_one_creates_the_key(store: str) -> None:
    """A reader never sees a part of it."""
    ready, won, seen = threading.Barrier(8), [], []

    def attempt(n: int) -> None:
        content = bytes([n]) * 100_000
        ready.wait()
        if put_if_absent(store, "lock/a", content):
            won.append(content)
        seen.append(get(store, "lock/a"))

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert seen == won * 8
    assert keys_under(store, "lock") == ["lock/a"]


def test_whether_there_is_anything(store: str) -> None:
    assert is_empty(store)
    put(store, "a/b/c", b"1")
    assert not is_empty(store)
    assert names(f"{store}/a") == {"b"}
    assert not is_empty(f"{store}/a/b/c")  # a file, not a folder
    assert is_empty(f"{store}/a/b/c1")
    assert is_empty(store.removesuffix("t.zarr"))  # a beginning of a name is no place


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_attributes_are_replaced(store: str, version: str) -> None:
    assert get_attributes(store, "n2v_scale") is None
    set_attributes(store, "n2v_scale", {"a": 1, "b": {"c": [2]}}, version)
    set_attributes(store, "n2v_scale", {"b": {"c": [3]}}, version)
    assert get_attributes(store, "n2v_scale") == {"b": {"c": [3]}}


def ours(store: str, version: str = "0.5") -> None:
    set_attributes(store, "", {}, version)
    set_attributes(store, "n2v_scale", {"run": {}}, version)
    for key in ("0/c/0/0", "n2v_scale/ledger/0/1.json"):
        put(store, key, b"1")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_output_of_ours_is_removed(store: str, version: str) -> None:
    ours(store, version)
    put(store + "2", "neighbour", b"stays")
    remove_output(store)
    assert is_empty(store)
    assert get(store + "2", "neighbour") == b"stays"
    remove_output(store)  # nothing there: no matter


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_foreign_is_not_removed(store: str, version: str) -> None:
    form = 3 if version == "0.5" else 2
    zarr.create_array(output_store(store), name="0", data=np.ones((4, 4)), zarr_format=form)
    before = sizes_under(store, "")
    with pytest.raises(OutputError, match="not written by n2v-scale: it is not deleted"):
        remove_output(store)
    assert sizes_under(store, "") == before


def test_a_bucket_is_not_removed(s3: Any) -> None:
    for bucket in (f"s3://{s3.bucket}", f"s3://{s3.bucket}/", "memory://whole"):
        remember(bucket, StorageOptions.of(s3.options if bucket.startswith("s3") else None))
        ours(bucket)
        with pytest.raises(OutputError, match="is a whole bucket: it is not deleted"):
            remove_output(bucket)
        assert get(bucket, "0/c/0/0") == b"1"
        delete_keys(bucket, keys_under(bucket, ""))


def test_a_removal_that_was_interrupted_can_be_repeated(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours(store)
    last = {}

    def stop(original: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            last[original] = get_attributes(store, "n2v_scale"), names(store)
            return original(*args, **kwargs)

        return recorded

    monkeypatch.setattr(keys, "delete_keys", stop(keys.delete_keys))
    monkeypatch.setattr(keys.shutil, "rmtree", stop(keys.shutil.rmtree))
    remove_output(store)
    assert list(last.values()) == [({"run": {}}, {"n2v_scale"})]  # before the last deletion


def test_a_lock_that_is_held_stays(store: str) -> None:
    ours(store)
    held = ("0/n2v_scale.lock/holder.json", "0/n2v_scale.lock/after.json")
    for key in (*held, "0/c/1/0", "0/zarr.json", "1/zarr.json"):
        put(store, key, b"1")
    remove_output(store, keep="0/n2v_scale.lock")
    assert keys_under(store, "0") == sorted(held)
    assert names(store) == {"0"}


def test_what_is_left_is_said(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.url("out.zarr")
    remember(store, StorageOptions.of(s3.options))
    ours(store)
    monkeypatch.setattr(keys, "delete_keys", lambda *_: None)
    with pytest.raises(OutputError, match="cannot be deleted whole"):
        remove_output(store)


def test_a_file_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "stack.tif").write_bytes(b"II*\0")
    assert names(str(tmp_path / "stack.tif")) == {"stack.tif"}
    with pytest.raises(OutputError, match="not deleted"):
        remove_output(str(tmp_path / "stack.tif"))
    assert (tmp_path / "stack.tif").exists()


def test_a_folder_of_somebody_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(OutputError, match="not written by n2v-scale: it is not deleted"):
        remove_output(str(tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_a_link_in_an_output_is_removed_and_not_followed(tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    ours(str(store))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "data").write_text("stays")
    (store / "link").symlink_to(tmp_path / "elsewhere")
    remove_output(str(store))
    assert not store.exists()
    assert (tmp_path / "elsewhere" / "data").read_text() == "stays"


def test_what_dead_writers_left_is_swept_up(tmp_path: Path) -> None:
    store = str(tmp_path / "out.zarr")
    put(store, "0/c/0/0/1", b"whole")
    for place in ("0/c/0/0/0.8a3f.partial", "0/zarr.json.1.partial"):
        Path(store, place).write_bytes(b"half")
        os.utime(Path(store, place), (1, 1))
    Path(store, "0/c/0/0/1.5.partial").write_bytes(b"of a writer that lives")
    assert keys_under(store, "0") == ["0/c/0/0/1"]
    assert sweep_partial_files(store) == 2
    assert sweep_partial_files(store) == 0
    assert sweep_partial_files(store, older_than_s=-1) == 1
    assert sorted(Path(store, "0/c/0/0").iterdir()) == [Path(store, "0/c/0/0/1")]
    assert sweep_partial_files(str(tmp_path / "nothing")) == 0


def test_a_creation_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*lock/a"):
        put_if_absent(str(tmp_path), "lock/a", b"1")
    assert list((tmp_path / "lock").iterdir()) == []


def test_a_link_whose_answer_was_lost_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS repeats a request whose answer was lost, and then says that the name exists."""
    link = os.link

    def repeated(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    assert put_if_absent(str(tmp_path), "a", b"1")
    assert get(str(tmp_path), "a") == b"1"
    assert not put_if_absent(str(tmp_path), "a", b"2")
    assert names(str(tmp_path)) == {"a"}


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert put_if_absent(str(tmp_path), "a", b"1")
    assert not put_if_absent(str(tmp_path), "a", b"2")
    assert get(str(tmp_path), "a") == b"1"
    assert names(str(tmp_path)) == {"a"}


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("set", lambda store: put(store, "a/b", b"1")),
        ("get", lambda store: get(store, "a/b")),
        ("delete", lambda store: delete_keys(store, ["a/b"])),
        ("get", lambda store: set_attributes(store, "a", {}, "0.5")),
    ],
)
def test_a_failing_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[str], Any]
) -> None:
    async def full(self: LocalStore, *_: Any, **__: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(LocalStore, name, full)
    with pytest.raises(OSError, match=r"Disk quota exceeded.*out\.zarr") as caught:
        act(str(tmp_path / "out.zarr"))
    assert caught.value.errno == errno.EDQUOT
