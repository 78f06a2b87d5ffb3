"""Command lines on a scheduler that somebody else has started, with certificates and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from n2v_scale.jobqueue.credentials import Credentials, temporary_credentials

from ..commands import Start
from .conftest import Scene


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Credentials]:
    with temporary_credentials(tmp_path / "shared") as made:
        yield made


@pytest.fixture
def address(keys: Credentials) -> Iterator[str]:
    """Of a scheduler with TLS and two workers."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        protocol="tls://",
        security=keys.security,
        dashboard_address=None,
    ) as cluster:
        yield cluster.scheduler_address


def tls(keys: Credentials) -> list[str]:
    return [f"--tls-ca={keys.ca}", f"--tls-cert={keys.cert}", f"--tls-key={keys.key}"]


def arguments(scene: Scene, output: Path, cluster: str, *more: str) -> list[str]:
    every = scene.arguments(output, f"--cluster={cluster}", *more)
    return [argument for argument in every if not argument.startswith("--workers")]


def test_by_its_address(
    scene: Scene, start: Start, tmp_path: Path, keys: Credentials, address: str
) -> None:
    run = start(*arguments(scene, tmp_path / "o.zarr", address, *tls(keys))).end()
    assert run.returncode == 0, run.stderr
    scene.check_whole(tmp_path / "o.zarr")


def test_by_its_file(
    scene: Scene, start: Start, tmp_path: Path, keys: Credentials, address: str
) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": address}))
    run = start(*arguments(scene, tmp_path / "o.zarr", str(file), *tls(keys), "--only=0")).end()
    assert run.returncode == 0, run.stderr
    # Without the certificates nobody is let in.
    run = start(*arguments(scene, tmp_path / "p.zarr", str(file), "--only=0")).end()
    assert run.returncode == 1
    assert "needs --tls-ca" in run.stderr
    assert not (tmp_path / "p.zarr").exists()


def test_without_tls_it_must_be_meant(scene: Scene, start: Start, tmp_path: Path) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        where = cluster.scheduler_address
        run = start(*arguments(scene, tmp_path / "o.zarr", where, "--only=0")).end()
        assert run.returncode == 1
        assert "has no TLS" in run.stderr
        assert "--insecure" in run.stderr
        run = start(*arguments(scene, tmp_path / "o.zarr", where, "--only=0", "--insecure")).end()
        assert run.returncode == 0, run.stderr
    run = start(*arguments(scene, tmp_path / "o.zarr", where, "--insecure")).end()
    assert run.returncode == 1
    assert "does not answer" in run.stderr
