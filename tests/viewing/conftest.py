"""Small volumes that are looked at, and a server of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pytest

import n2v_scale
from n2v_scale.viewing.choice import chosen_volumes
from n2v_scale.viewing.server import Server, Viewing

SHAPE = (20, 96, 80)


class Pair(NamedTuple):
    """A noisy volume and what was made of it."""

    noisy: Path
    denoised: Path


class Served(NamedTuple):
    """A server that runs."""

    server: Server
    viewing: Viewing

    def ask(self, path: str, method: str = "GET", **headers: str) -> Any:
        """The answer to one request, below the token; its body is read."""
        connection = HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=60)
        connection.request(method, f"/{self.viewing.token}/{path}", headers=headers)
        answer = connection.getresponse()
        answer.body = answer.read()
        connection.close()
        return answer


def values(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A ramp with noise, no two slices alike."""
    ramp = np.indices(shape).sum(axis=0) * 7 + 100
    return (ramp + np.random.default_rng(seed).integers(0, 90, shape)).astype(np.uint16)


@pytest.fixture(scope="session")
def pair(tmp_path_factory, write_volume, tiny_model, client) -> Pair:
    """Denoised in OME-Zarr 0.5, sharded, with lower resolutions."""
    folder = tmp_path_factory.mktemp("pair")
    noisy = write_volume(folder / "noisy.zarr", values(), chunk=(8, 32, 32), scale=(2, 0.4, 0.4))
    n2v_scale.predict(
        noisy, tiny_model, folder / "denoised.zarr", client=client, chunk=(8, 32, 32),
        shard=(16, 64, 64),
    )  # fmt: skip
    return Pair(folder / "noisy.zarr", folder / "denoised.zarr")


@pytest.fixture
def moved(pair: Pair, tmp_path: Path) -> Callable[..., Path]:
    """A function that copies the denoised volume elsewhere, and the noisy one only if asked."""

    def move(*, noisy: bool) -> Path:
        shutil.copytree(pair.denoised, tmp_path / "denoised.zarr")
        if noisy:
            shutil.copytree(pair.noisy, tmp_path / "noisy.zarr")
        return tmp_path / "denoised.zarr"

    return move


@contextmanager
def serving(*addresses: Any, **options: Any) -> Iterator[Served]:
    """A server of volumes, in a thread."""
    viewing = Viewing(chosen_volumes([str(a) for a in addresses], **options).volumes)
    with Server(viewing) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Served(server, viewing)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def served(pair: Pair) -> Iterator[Served]:
    """The pair."""
    with serving(pair.denoised) as running:
        yield running
