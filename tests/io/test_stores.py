"""Addresses: what they lead to, and what lies inside what."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import zarr
from zarr.storage import FsspecStore

from n2v_scale.errors import InputError
from n2v_scale.geometry import Box
from n2v_scale.io import connections
from n2v_scale.io.open import open_volume
from n2v_scale.io.stores import Location, close_connections, inside, locate, normalise

DATA = np.arange(4 * 5 * 6, dtype="u2").reshape(4, 5, 6)


def test_paths_and_file_urls_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my image.zarr"
    zarr.create_array(str(path), data=DATA)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    addresses = [
        path, str(path), f"{path}/", "~/my image.zarr", "my image.zarr", "./x/../my image.zarr",
        path.as_uri(), f"file://{path}",
    ]  # fmt: skip
    assert {normalise(address) for address in addresses} == {str(path)}
    assert len({open_volume(address) for address in addresses}) == 1


def test_the_root_of_a_hierarchy_is_found_over_a_gap(tmp_path: Path) -> None:
    zarr.create_group(str(tmp_path / "g.zarr"), zarr_format=2)
    zarr.create_array(str(tmp_path / "g.zarr/a/b/c"), data=DATA, zarr_format=2)
    assert locate(str(tmp_path / "g.zarr/a/b/c")) == Location(str(tmp_path / "g.zarr"), "a/b/c")
    assert locate(str(tmp_path / "g.zarr")) == Location(str(tmp_path / "g.zarr"), "")
    assert locate(str(tmp_path)) == Location(str(tmp_path), "")


def test_inside(tmp_path: Path) -> None:
    outer = tmp_path / "a.zarr"
    outer.mkdir()
    (tmp_path / "link").symlink_to(outer)
    assert inside(outer, outer)
    assert inside(outer / "x" / "y", outer)
    assert inside(tmp_path / "link" / "x", outer)
    assert inside(outer / "x", tmp_path / "link")
    assert not inside(tmp_path / "a.zarr2", outer)
    assert not inside(tmp_path, outer)
    assert not inside(outer / ".." / "b", outer)
    assert inside("s3://b/a.zarr/x/", "s3://b/a.zarr")
    assert not inside("s3://b/a.zarr2", "s3://b/a.zarr/")
    assert not inside(outer, "s3://b/a.zarr")


@pytest.fixture
def remote() -> str:
    """A store that is reached through fsspec only."""
    pytest.importorskip("fsspec")
    url = "memory://bucket/image.zarr"
    scale = [{"type": "scale", "scale": [2.0, 1.0, 1.0]}]
    axes = [{"name": name} for name in "zyx"]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    store = FsspecStore.from_url(url)
    zarr.create_group(store, attributes={"ome": {"version": "0.5", "multiscales": [entry]}},
                      overwrite=True)  # fmt: skip
    zarr.create_array(store, name="0", data=DATA, chunks=(2, 5, 6))
    return url


def test_a_url_is_read_through_fsspec(remote: str) -> None:
    volume = open_volume(remote)
    assert (volume.address, volume.array_path) == (remote, "0")
    assert volume.voxel_size == (2.0, 1.0, 1.0)
    np.testing.assert_array_equal(volume.read(0, 0, Box.whole((4, 5, 6))), DATA)
    assert open_volume(f"{remote}/0") == volume
    assert volume.describe()["stored_bytes"] is None
    assert volume.identity() == open_volume(remote).identity()
    with pytest.raises(InputError, match="holds no zarr array or group"):
        open_volume("memory://bucket/nothing.zarr")


def test_the_identity_of_a_remote_volume_follows_its_sizes(remote: str) -> None:
    before = open_volume(remote).identity()
    store = FsspecStore.from_url(remote)
    array = zarr.open_array(store, path="0", mode="r+")
    array[:2] = np.random.default_rng(0).integers(0, 60000, (2, 5, 6))
    assert open_volume(remote).identity() != before


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address at which a web server of this process shows ``tmp_path``."""
    pytest.importorskip("aiohttp")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = partial(Quiet, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            close_connections()
            server.shutdown()
            thread.join()


def test_an_image_is_read_from_a_web_server(tmp_path: Path, served: str) -> None:
    zarr.create_array(str(tmp_path / "image.zarr"), data=DATA, chunks=(2, 5, 6))
    volume = open_volume(f"{served}/image.zarr", storage_options={"headers.x-token": "s3cr3t"})
    np.testing.assert_array_equal(volume.read(0, 0, Box.whole((4, 5, 6))), DATA)
    assert volume.identity() == open_volume(f"{served}/image.zarr").identity()
    close_connections()
    np.testing.assert_array_equal(volume.read(0, 0, Box.whole((4, 5, 6))), DATA)
    with pytest.raises(InputError, match="holds no zarr array or group"):
        open_volume(f"{served}/nothing.zarr")
    (tmp_path / "image.zarr" / "c" / "0" / "0" / "0").unlink()  # absent reads as zeros
    assert not volume.read(0, 0, Box((0, 0, 0), (2, 5, 6))).any()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(connections.importlib, "import_module", missing)
    with pytest.raises(InputError, match="needs s3fs: pip install s3fs"):
        open_volume("s3://bucket/image.zarr")
    with pytest.raises(InputError, match=r"needs 'fsspec\[http\]': pip install"):
        open_volume("https://host/image.zarr")


def test_an_unknown_protocol() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(InputError, match="nonsense://host/a cannot be opened"):
        open_volume("nonsense://host/a")
