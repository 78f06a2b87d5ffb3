"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pytest
import zarr
from distributed import Client

from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.local_cluster import thread_client

from .commands import Run, Said


def pytest_configure() -> None:
    """Ctrl-C works in the processes that tests start, also where a shell runs us in the background,
    which ignores it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


class S3(NamedTuple):
    """An S3 service on the loopback, with one bucket."""

    endpoint: str
    bucket: str
    options: dict[str, Any]

    def url(self, name: str) -> str:
        """An address that no other test has."""
        return f"s3://{self.bucket}/{uuid4().hex[:8]}/{name}"


TYPES = {"t": "time", "c": "channel"}


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real images; tests that need it carry the mark ``data``."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("N2V_SCALE_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is no folder (set N2V_SCALE_DATA)")
    return folder


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3 service, in a process of its own; the credentials are good for nothing else."""
    for package in ("moto", "s3fs"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'n2v-scale[test]'")
    from n2v_scale.io.stores import close_connections

    log = tmp_path_factory.mktemp("s3") / "server.log"
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            endpoint = served_at(server, log)
            options = {
                "key": "AKIDTESTTESTTEST",
                "secret": "test/S3CR3T+only",
                "endpoint_url": endpoint,
                "client_kwargs.region_name": "us-east-1",
            }
            bucket = urllib.request.Request(f"{endpoint}/images", method="PUT")
            urllib.request.urlopen(bucket).close()
            yield S3(endpoint, "images", options)
        finally:
            close_connections()
            server.terminate()


def served_at(server: subprocess.Popen[bytes], log: Path) -> str:
    """The address that a server has chosen and written to its log, as soon as it stands there."""
    while server.poll() is None:
        if found := re.search(r"Running on (http://[\d.]+:\d+)", log.read_text()):
            return found[1]
        time.sleep(0.05)
    pytest.fail(f"the S3 server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """Two threads of this process."""
    with thread_client(2) as made:
        yield made


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, client: Client) -> list[int]:
    """How many worker processes were asked for; threads of this one work instead."""
    asked: list[int] = []

    @contextmanager
    def threads_instead(count: int, **_: Any) -> Iterator[Client]:
        asked.append(count)
        yield client

    for module in ("cluster", "verification"):
        monkeypatch.setattr(f"n2v_scale.{module}.local_client", threads_instead)
    return asked


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    from n2v_scale import cli

    def call(*arguments: Any) -> Said:
        monkeypatch.setattr(sys, "argv", ["n2v-scale", *map(str, arguments)])
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as exit_info:
                cli.main()
        finally:
            signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Said(int(exit_info.value.code or 0), out, err)

    return call


@pytest.fixture(scope="session")
def write_volume() -> Callable[..., Volume]:
    """A function that writes a small OME-Zarr 0.5 and opens it."""

    def write(
        path: Path,
        data: np.ndarray,
        axes: str = "",
        *,
        chunk: Sequence[int] | None = None,
        scale: Sequence[float] | None = None,
        translation: Sequence[float] | None = None,
        multiscale: list[dict[str, Any]] | None = None,
        omero: dict[str, Any] | None = None,
        unit: str = "micrometer",
        **selection: Any,
    ) -> Volume:
        axes = axes or "tczyx"[-data.ndim :]
        described = [
            {"name": a, "type": TYPES.get(a, "space")} | ({"unit": unit} if a in "zyx" else {})
            for a in axes
        ]
        transforms: list[dict[str, Any]] = [
            {"type": "scale", "scale": list(scale or [1.0] * data.ndim)}
        ]
        if translation:
            transforms.append({"type": "translation", "translation": list(translation)})
        entry: dict[str, Any] = {
            "name": "image",
            "axes": described,
            "datasets": [{"path": "0", "coordinateTransformations": transforms}],
        }
        if multiscale:
            entry["coordinateTransformations"] = multiscale
        ome = {"version": "0.5", "multiscales": [entry]} | ({"omero": omero} if omero else {})
        zarr.create_group(str(path), attributes={"ome": ome})
        zarr.create_array(
            str(path / "0"),
            data=data,
            chunks=tuple(chunk) if chunk else data.shape,
            dimension_names=list(axes),
        )
        return open_volume(path, **selection)

    return write


@pytest.fixture(scope="session")
def write_model() -> Callable[..., Path]:
    """A function that writes a model folder with random weights."""
    import torch  # only where a model is needed: tests of reading do without

    from n2v_scale._version import __version__
    from n2v_scale.methods import method_to_dict
    from n2v_scale.methods.base import Method
    from n2v_scale.methods.linear import Linear
    from n2v_scale.methods.n2v import Noise2Void
    from n2v_scale.methods.ssdn import BlindSpot
    from n2v_scale.model import save_model
    from n2v_scale.model_card import ModelCard, TrainedOn
    from n2v_scale.nets import NetworkConfig, build_network, config_to_dict
    from n2v_scale.nets.receptive_field import measure_receptive_field
    from n2v_scale.network_config import NETWORK_CONFIGS, UNetConfig
    from n2v_scale.noise import NoiseModel

    blind = BlindSpot(NoiseModel(0.1, -1.0, 0.3))
    methods_of = {"filter": Linear(), "blind-unet": blind, "branch-unet": blind}

    def write(
        folder: Path,
        config: NetworkConfig | None = None,
        *,
        volume: Volume | None = None,
        offset: Sequence[float] = (100.0,),
        scale: Sequence[float] = (10.0,),
        seed: int = 0,
        method: Method | None = None,
        survey: list[dict[str, Any]] | None = None,
    ) -> Path:
        config = config or UNetConfig(depth=1, filters=2, pooled=(1, 1, 1))
        name = next(n for n, kind in NETWORK_CONFIGS.items() if isinstance(config, kind))
        method = method or methods_of.get(name, Noise2Void())
        network = build_network(name, config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():  # rather positive: no ReLU is dead
                draw = torch.rand(parameter.shape, generator=generator)
                kernel = parameter.ndim > 1
                spread = 2 / parameter[0].numel() ** 0.5 if kernel else 0.5
                parameter.copy_((draw - 0.35) * spread if kernel else 0.5 + draw * spread)
            for name_of, value in network.named_buffers():
                if "running" in name_of:  # statistics of batch normalisation
                    value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        trained_on = TrainedOn(
            address=volume.address if volume else "/nowhere",
            identity=volume.identity() if volume else "none",
            dtype=volume.dtype if volume else "uint16",
            shape=volume.shape if volume else (1, 1, 8, 8, 8),
            voxel_size=(1.0, 1.0, 1.0),
            unit="micrometer",
            channels=volume.channels if volume else tuple(range(len(offset))),
            offset=tuple(offset),
            scale=tuple(scale),
            survey=survey,
        )
        measured = measure_receptive_field(network, config.stride)
        z, y, x = ((a + r, b + r) for (a, b), r in zip(measured, method.reach, strict=True))
        card = ModelCard(
            package_version=__version__,
            method=method.name,
            method_config=method_to_dict(method),
            blind=method.blind,
            network=name,
            network_config=config_to_dict(config),
            receptive_field=(z, y, x),
            passes=method.passes,
            stride=config.stride,
            parameters=sum(p.numel() for p in network.parameters()),
            weights_sha256="",
            trained_on=trained_on,
            training={},
            history=[],
        )
        save_model(folder, card, network.state_dict())
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> Path:
    """The folder of a small filter U-Net with random weights; its volume is no volume at hand."""
    from n2v_scale.nets.filter_unet import FilterUNetConfig
    from n2v_scale.nets.unet import UNetConfig

    unet = UNetConfig(in_channels=2, depth=1, filters=2, pooled=(1, 1, 1))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_model(folder, FilterUNetConfig((3, 3, 3), unet))
