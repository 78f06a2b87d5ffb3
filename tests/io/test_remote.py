"""Images and outputs in an S3 bucket: the same as in a folder, and nobody sees a credential."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from n2v_scale.errors import InputError, N2VScaleError, OutputError
from n2v_scale.geometry import Box, cells_touching
from n2v_scale.information import information_text
from n2v_scale.io import connections
from n2v_scale.io.open import open_volume
from n2v_scale.io.remote import RemoteStore
from n2v_scale.io.stores import StorageOptions, locate, open_store, output_store, remember
from n2v_scale.io.volume import Volume
from n2v_scale.io.writer import (
    ArraySpec,
    Stored,
    array_exists,
    create_array,
    delete_keys,
    get,
    get_attributes,
    is_empty,
    keys_under,
    put,
    put_if_absent,
    read_output,
    set_attributes,
    sizes_under,
    stored_checksum,
    stored_size,
    sweep_partial_files,
    write_box,
)

pytest.importorskip("moto", reason="moto is not installed: pip install 'n2v-scale[test]'")
pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'n2v-scale[s3]'")

DATA = np.random.default_rng(0).integers(1, 60000, (6, 8, 8)).astype("u2")


def image(s3: Any, **options: Any) -> str:
    """An OME-Zarr 0.5 in the bucket, by zarr alone."""
    url: str = s3.url("image.zarr")
    storage = StorageOptions.of(s3.options).keywords()
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    store = output_store_of(url, storage)
    zarr.create_group(store, attributes={"ome": {"version": "0.5", "multiscales": [entry]}})
    zarr.create_array(store, name="0", data=DATA, **({"chunks": (3, 4, 4)} | options))
    return url


def output_store_of(url: str, storage: dict[str, Any]) -> RemoteStore:
    remember(url, StorageOptions.of(storage))
    return RemoteStore(url, error=OutputError)


def spec_of(s3: Any, **changes: Any) -> ArraySpec:
    """z, y, x; shards of 4 chunks that do not fit the shape."""
    usual: dict[str, Any] = {
        "store": s3.url("out.zarr"),
        "path": "0",
        "axes": ("z", "y", "x"),
        "shape": (10, 13, 9),
        "chunk": (4, 4, 8),
        "shard": (8, 8, 8),
        "dtype": "uint16",
        "codec": "blosc-zstd",
        "codec_level": 3,
        "ome_version": "0.5",
    } | changes
    if usual["ome_version"] == "0.4":
        usual["shard"] = usual["chunk"]
    remember(usual["store"], StorageOptions.of(s3.options))
    return ArraySpec(**usual)


def values_for(spec: ArraySpec) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 250, spec.shape).astype(spec.dtype)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the S3 service: the operation and the key."""
    import s3fs

    made: list[tuple[str, str]] = []
    original = s3fs.S3FileSystem._call_s3

    async def recorded(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        made.append((method, kwargs.get("Key") or kwargs.get("Prefix") or ""))
        return await original(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", recorded)
    return made


# Reading


@pytest.mark.parametrize("options", [{}, {"shards": (6, 8, 8)}, {"zarr_format": 2}], ids=str)
def test_an_image_is_read(s3: Any, options: dict[str, Any]) -> None:
    if "zarr_format" in options:
        url = s3.url("plain.zarr")
        zarr.create_array(output_store_of(url, s3.options), data=DATA, chunks=(3, 4, 4), **options)
        volume = open_volume(url, storage_options=s3.options)
    else:
        url = image(s3, **options)
        volume = open_volume(url, storage_options=s3.options)
        assert volume.voxel_size == (2.0, 0.5, 0.5)
        assert volume.address == url
        assert open_volume(f"{url}/0", storage_options=s3.options) == volume
    assert volume.shape == (1, 1, 6, 8, 8)
    np.testing.assert_array_equal(volume.read(0, 0, Box((1, 2, 3), (5, 8, 8))), DATA[1:5, 2:, 3:])
    assert "6 × 8 × 8" in information_text(volume)


def test_the_options_reach_the_root_that_the_address_lies_in(s3: Any) -> None:
    """No address above is known; options come with the address of the array alone."""
    url = image(s3)
    connections._registry.pop(url)
    volume = open_volume(f"{url}/0", storage_options=s3.options)
    assert volume.address == url
    assert volume.storage == StorageOptions.of(s3.options)
    np.testing.assert_array_equal(volume.read(0, 0, Box.whole((6, 8, 8))), DATA)


def test_what_was_remembered_goes_along(s3: Any) -> None:
    url = image(s3)
    connections._registry.pop(url)
    with pytest.raises(InputError):
        open_volume(url, storage_options={"anon": "true", "endpoint_url": "http://127.0.0.1:1",
                                          "config_kwargs.retries.max_attempts": "0"})  # fmt: skip
    connections._registry.pop(url)
    remember(url.rpartition("/")[0], StorageOptions.of(s3.options))
    volume = open_volume(url)
    assert volume.storage == StorageOptions.of(s3.options)


def test_a_pickled_volume_is_read_by_another_process(s3: Any, tmp_path: Path) -> None:
    volume = open_volume(image(s3), storage_options=s3.options)
    (tmp_path / "volume").write_bytes(pickle.dumps(volume))
    program = (
        "import pickle, sys, pathlib\n"
        "from n2v_scale.geometry import Box\n"
        "volume = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "print(volume.identity(), volume.read(0, 0, Box.whole((6, 8, 8))).sum())\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path / "volume")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == [volume.identity(), str(DATA.sum())], run.stderr
    assert run.stderr == ""  # nothing was left open


def test_a_volume_brings_its_options_along(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = open_volume(image(s3), storage_options=s3.options)
    box = Box.whole((6, 8, 8))
    for act in (volume.identity, lambda: volume.read(0, 0, box).sum()):
        expected = act()
        monkeypatch.setattr(connections, "_registry", {})
        assert act() == expected


def test_the_identity_follows_an_object(s3: Any) -> None:
    url = image(s3)
    volume = open_volume(url, storage_options=s3.options)
    seen = [volume.identity(), volume.identity()]
    assert seen[0] == seen[1]
    store = output_store(url)
    value = sync(store.get("0/c/1/1/1", default_buffer_prototype()))
    flipped = value.to_bytes()[:-1] + bytes([value.to_bytes()[-1] ^ 1])  # the size stays
    put(url, "0/c/1/1/1", flipped)
    seen.append(volume.identity())
    delete_keys(url, ["0/c/0/0/0"])
    seen.append(volume.identity())
    assert len(set(seen)) == 3


def test_other_options_open_the_array_again(s3: Any) -> None:
    volume = open_volume(image(s3), storage_options=s3.options)
    volume.read(0, 0, Box.whole((6, 8, 8)))
    nowhere = {**s3.options, "endpoint_url": "http://127.0.0.1:1"}
    remember(
        volume.address, StorageOptions.of({**nowhere, "config_kwargs.retries.max_attempts": 0})
    )
    object.__setattr__(volume, "storage", StorageOptions())
    with pytest.raises(InputError, match="cannot be reached"):
        volume.read(0, 0, Box.whole((6, 8, 8)))


def test_the_root_is_found_in_one_round(s3: Any, requests: list[tuple[str, str]]) -> None:
    url = image(s3)
    remember(url.rpartition("/")[0], StorageOptions.of(s3.options))
    requests.clear()
    assert str(locate(f"{url}/0")) == f"{url}/0"
    looked = [key.rpartition("/")[2] for method, key in requests if method == "head_object"]
    assert sorted(looked) == sorted([".zarray", ".zgroup", "zarr.json"] * 4)  # array to bucket


def test_what_was_closed_is_opened_again(s3: Any) -> None:
    volume = open_volume(image(s3), storage_options=s3.options)
    for _ in range(2):
        assert volume.read(0, 0, Box.whole((6, 8, 8))).sum() == DATA.sum()
        connections.close_connections()


def test_a_key_is_got_by_one_request(s3: Any, requests: list[tuple[str, str]]) -> None:
    store = spec_of(s3).store
    for content in (b"some", b""):
        put(store, "a/b", content)
        requests.clear()
        assert get(store, "a/b") == content
        assert get(store, "a/c") is None
        assert [method for method, _ in requests] == ["get_object"] * 2


# Writing


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("codec", ["blosc-zstd", "none"])
def test_round_trip(s3: Any, version: str, codec: str) -> None:
    spec = spec_of(s3, ome_version=version, codec=codec)
    assert is_empty(spec.store)
    assert not array_exists(spec)
    set_attributes(spec.store, "", {"a": [1]}, version)
    create_array(spec)
    assert array_exists(spec)
    assert get_attributes(spec.store, "") == {"a": [1]}
    values = values_for(spec)
    for shard in cells_touching(
        Box.whole(spec.spatial_shape), spec.spatial_shard, spec.spatial_shape
    ):
        write_box(spec, 0, 0, shard, values[shard.slices])
    box = Box((3, 2, 1), (9, 13, 9))
    np.testing.assert_array_equal(read_output(spec, 0, 0, box), values[box.slices])
    plain = FsspecStore.from_url(
        spec.store, StorageOptions.of(s3.options).keywords(), read_only=True
    )
    array = zarr.open_array(plain, path="0", mode="r")
    np.testing.assert_array_equal(array[...], values)
    sync(connections._close(plain.fs))
    assert sweep_partial_files(spec.store) == 0


def test_a_shard_is_the_same_as_in_a_folder(s3: Any, tmp_path: Path) -> None:
    far, near = spec_of(s3), spec_of(s3, store=str(tmp_path / "out.zarr"))
    values, box = values_for(far), Box.whole((10, 13, 9))
    values[:8, :8, 8:] = 0
    for spec in (far, near):
        create_array(spec)
    assert write_box(far, 0, 0, box, values) == write_box(near, 0, 0, box, values)
    assert keys_under(far.store, "") == keys_under(near.store, "")
    assert all(get(far.store, key) == get(near.store, key) for key in keys_under(near.store, ""))
    assert sizes_under(far.store, "0") == sizes_under(near.store, "0")


def test_a_shard_is_one_request(s3: Any, requests: list[tuple[str, str]]) -> None:
    """Nothing is read, and nothing deleted."""
    spec = spec_of(s3)
    create_array(spec)
    requests.clear()
    write_box(spec, 0, 0, Box.whole((10, 13, 9)), values_for(spec))
    prefix = spec.store.removeprefix(f"s3://{s3.bucket}/")
    expected = [f"{prefix}/0/c/{z}/{y}/{x}" for z, y, x in itertools.product(range(2), repeat=3)]
    assert requests == [("put_object", key) for key in expected]


FIRST = Box((0, 0, 0), (8, 8, 8))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_empty_shard_is_absent(s3: Any, version: str, requests: list[tuple[str, str]]) -> None:
    spec = spec_of(s3, ome_version=version, chunk=(8, 8, 8))
    create_array(spec)
    documents = keys_under(spec.store, "0")
    zeros = np.zeros(FIRST.shape, np.uint16)
    assert write_box(spec, 0, 0, FIRST, zeros) == Stored(0, 0)  # nothing there: no matter
    written = write_box(spec, 0, 0, FIRST, zeros + 5)
    assert stored_size(spec, 0, 0, FIRST) == written.size > 0
    requests.clear()
    assert write_box(spec, 0, 0, FIRST, zeros) == Stored(0, 0)
    assert [method for method, _ in requests] == ["delete_object"]
    assert keys_under(spec.store, "0") == documents
    assert stored_size(spec, 0, 0, FIRST) == 0
    assert stored_checksum(spec, 0, 0, FIRST) == Stored(0, 0)
    assert not read_output(spec, 0, 0, FIRST).any()


@pytest.mark.parametrize("left", [0, 1, -5])
def test_a_torn_shard_is_simply_replaced(s3: Any, left: int) -> None:
    spec = spec_of(s3)
    create_array(spec)
    values = values_for(spec)[FIRST.slices]
    written = write_box(spec, 0, 0, FIRST, values)
    content = get(spec.store, "0/c/0/0/0") or b""
    put(spec.store, "0/c/0/0/0", content[:left])
    assert stored_size(spec, 0, 0, FIRST) == len(content[:left]) != written.size
    assert stored_checksum(spec, 0, 0, FIRST) != written
    assert write_box(spec, 0, 0, FIRST, values) == written
    np.testing.assert_array_equal(read_output(spec, 0, 0, FIRST), values)


def test_sizes_are_asked_for_and_not_read(s3: Any, requests: list[tuple[str, str]]) -> None:
    spec = spec_of(s3)
    create_array(spec)
    box = Box.whole((10, 13, 9))
    written = write_box(spec, 0, 0, box, values_for(spec))
    requests.clear()
    assert stored_size(spec, 0, 0, box) == written.size
    assert [method for method, _ in requests] == ["head_object"] * 8
    requests.clear()
    sizes = sizes_under(spec.store, "0")
    assert [method for method, _ in requests] == ["list_objects_v2"]
    assert stored_size(spec, 0, 0, box, sizes=sizes) == written.size
    assert len(requests) == 1
    assert stored_checksum(spec, 0, 0, box) == written


def test_a_store_without_conditions_does_what_it_can(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    original = s3fs.S3FileSystem._pipe_file

    async def old(self: Any, path: str, data: bytes, mode: str = "overwrite") -> Any:
        if mode == "create":
            raise OSError(38, "A header you provided implies functionality that is not implemented")
        return await original(self, path, data)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", old)
    store = spec_of(s3).store
    assert put_if_absent(store, "lock", b"1")
    assert not put_if_absent(store, "lock", b"2")
    assert get(store, "lock") == b"1"


def test_a_creation_whose_answer_was_lost_counts(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is repeated, and then finds that the key is there."""
    import s3fs

    original = s3fs.S3FileSystem._pipe_file

    async def twice(self: Any, path: str, data: bytes, mode: str = "overwrite") -> Any:
        await original(self, path, data, mode=mode)
        return await original(self, path, data, mode=mode)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", twice)
    store = spec_of(s3).store
    assert put_if_absent(store, "lock", b"1")
    assert not put_if_absent(store, "lock", b"2")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/out.zarr", "https://127.0.0.1:1/out.zarr"])
def test_what_cannot_be_written_to_is_refused(url: str) -> None:
    with pytest.raises(OutputError, match="cannot replace a file in one step"):
        put(url, "a", b"1")


# Failures


def failures(s3: Any, url: str) -> list[tuple[type[N2VScaleError], Any]]:
    """Everything that reads or writes at ``url``, and what it raises."""
    spec = spec_of(s3, store=url)
    zeros = np.zeros(FIRST.shape, np.uint16)
    return [
        (InputError, lambda: open_volume(url)),
        (InputError, lambda: sync(open_store(url).get("zarr.json", default_buffer_prototype()))),
        (OutputError, lambda: create_array(spec)),
        (OutputError, lambda: array_exists(spec)),
        (OutputError, lambda: read_output(spec, 0, 0, FIRST)),
        (OutputError, lambda: write_box(spec, 0, 0, FIRST, zeros)),
        (OutputError, lambda: write_box(spec, 0, 0, FIRST, zeros + 1)),
        (OutputError, lambda: stored_size(spec, 0, 0, FIRST)),
        (OutputError, lambda: stored_checksum(spec, 0, 0, FIRST)),
        (OutputError, lambda: set_attributes(url, "a", {}, "0.5")),
        (OutputError, lambda: get_attributes(url, "a")),
        (OutputError, lambda: put(url, "a", b"1")),
        (OutputError, lambda: put_if_absent(url, "a", b"1")),
        (OutputError, lambda: get(url, "a")),
        (OutputError, lambda: keys_under(url, "a")),
        (OutputError, lambda: delete_keys(url, ["a"])),
        (OutputError, lambda: is_empty(url)),
    ]


def check_failures(s3: Any, url: str, said: str, secrets: list[str]) -> None:
    for error, act in failures(s3, url):
        with pytest.raises(error) as caught:
            act()
        shown = "".join(traceback.format_exception(caught.value))
        assert said in str(caught.value)
        assert url in str(caught.value)
        assert not any(secret in shown or secret in repr(caught.value) for secret in secrets)


@pytest.fixture
def impatient(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same service, and nothing is tried twice."""
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    once = {"config_kwargs.retries.max_attempts": 0, "config_kwargs.connect_timeout": 2}
    return s3._replace(options=s3.options | once)


def test_a_bucket_that_does_not_exist(impatient: Any) -> None:
    secrets = [impatient.options["key"], impatient.options["secret"]]
    check_failures(impatient, "s3://no-such-bucket/out.zarr", "bucket does not exist", secrets)


def test_an_endpoint_that_does_not_answer(impatient: Any) -> None:
    """Its address holds a password, which the package behind repeats in what it raises."""
    nowhere = impatient._replace(
        options=impatient.options | {"endpoint_url": "http://me:pa55w0rd@127.0.0.1:1"}
    )
    secrets = [impatient.options["key"], impatient.options["secret"], "pa55w0rd"]
    check_failures(nowhere, nowhere.url("out.zarr"), "check the network and endpoint_url", secrets)


def refusing(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    import s3fs

    async def refused(self: Any, *args: Any, **kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refused)


class NoCredentialsError(Exception):
    """As botocore names it; the real one needs a machine without any."""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (PermissionError("Access Denied"), "check key, secret, token and the bucket's policy"),
        (PermissionError("The key AKIDTESTTESTTEST is not known"), "access is denied"),
        (NoCredentialsError("Unable to locate credentials"), "give key and secret, or anon=true"),
        (OSError(28, "No space left on device"), "make room or raise the quota"),
        (OSError(5, "XMinioStorageFull: test/S3CR3T+only"), "make room or raise the quota"),
        (ConnectionResetError("reset by peer"), "cannot be reached"),
        (TimeoutError("timed out"), "cannot be reached"),
        (RuntimeError("whatever with test/S3CR3T+only"), "RuntimeError: whatever with ***"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_a_store_raises_says_what_to_do(
    impatient: Any, monkeypatch: pytest.MonkeyPatch, raised: BaseException, said: str
) -> None:
    refusing(monkeypatch, raised)
    secrets = [impatient.options["key"], impatient.options["secret"]]
    check_failures(impatient, impatient.url("out.zarr"), said, secrets)


def test_a_read_that_fails_is_an_input_error(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = open_volume(image(s3), storage_options=s3.options)
    refusing(monkeypatch, PermissionError(f"no {s3.options['secret']}"))
    for act in (lambda: volume.read(0, 0, Box.whole((6, 8, 8))), volume.identity):
        with pytest.raises(InputError, match="access is denied") as caught:
            act()
        assert volume.address in str(caught.value)
        assert s3.options["secret"] not in "".join(traceback.format_exception(caught.value))


def test_a_shard_that_is_garbage_names_its_box(s3: Any) -> None:
    url = image(s3)
    volume = open_volume(url, storage_options=s3.options)
    put(url, "0/c/0/0/0", b"garbage")
    with pytest.raises(InputError, match=r"cannot read box \(0, 0, 0\) to \(1, 1, 1\)"):
        volume.read(0, 0, Box((0, 0, 0), (1, 1, 1)))
    np.testing.assert_array_equal(volume.read(0, 0, Box((3, 4, 4), (6, 8, 8))), DATA[3:, 4:, 4:])


# Credentials


def test_a_volume_shows_no_credential(s3: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "n2v_scale")
    url = image(s3)
    volume = open_volume(url, storage_options=s3.options)
    plain = open_volume(url)
    volume.read(0, 0, Box.whole((6, 8, 8)))
    with pytest.raises(InputError) as missing:
        open_volume(f"{url}/nothing", storage_options=s3.options)
    spec = spec_of(s3)
    create_array(spec)
    write_box(spec, 0, 0, FIRST, values_for(spec)[FIRST.slices])
    again = pickle.loads(pickle.dumps(volume))
    assert again.storage == volume.storage == StorageOptions.of(s3.options)
    assert (again, hash(again)) == (volume, hash(volume)) == (plain, hash(plain))
    assert "storage" not in Volume.__repr__(volume)
    texts = [repr(volume), str(volume), repr(again), repr(again.storage), volume.identity()]
    texts += [json.dumps(volume.describe()), information_text(volume), str(missing.value)]
    texts += [repr(open_store(url)), str(open_store(url)), repr(output_store(url)), caplog.text]
    texts += [repr(spec), *map(str, sizes_under(spec.store, "").items())]
    texts += [(get(spec.store, key) or b"").decode(errors="replace")
              for key in keys_under(spec.store, "")]  # fmt: skip
    for text in texts:
        assert s3.options["key"] not in text
        assert s3.options["secret"] not in text
