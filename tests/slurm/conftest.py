"""Runs on a real SLURM: its commands, and command lines of ours that are watched from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from n2v_scale.api import predict
from n2v_scale.local_cluster import local_client
from n2v_scale.network_config import FilterUNetConfig, UNetConfig

from .. import commands
from ..commands import DEADLINE_S, Start, commands_in

NETWORK = FilterUNetConfig((3, 3, 3), UNetConfig(2, depth=1, filters=16, pooled=(1, 1, 1)))
SIZES: dict[str, Any] = {
    "block": (16, 32, 32),
    "tile": (8, 16, 16),
    "chunk": (8, 16, 16),
    "shard": (16, 32, 32),
    "device": "cpu",
    "threads": 2,
}
CONFIG = """
[cluster]
partition = "{partition}"
memory = "1500MB"
cpus = 2
walltime = "{walltime}"
shared = "{shared}"
{more}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = shutil.which("sbatch") is None or "SLURM_CONF" not in os.environ
    why = "no SLURM runs: tests/slurm/with-slurm.sh COMMAND starts one"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.timeout(600))
            if absent:
                item.add_marker(pytest.mark.skip(reason=why))


def slurm(*command: str) -> str:
    """What a command of SLURM's prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@dataclass(frozen=True)
class Queued:
    """A job as the queue sees it."""

    number: str
    state: str
    node: str
    name: str


def queue(*states: str) -> list[Queued]:
    """The jobs in the queue, all or those in these states."""
    said = slurm("squeue", "-h", "-t", ",".join(states) or "all", "-o", "%i|%T|%N|%j")
    return [Queued(*line.split("|")) for line in said.splitlines()]


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> Any:
    return commands.until(condition, what, seconds, seen=queue)


@dataclass
class Scene:
    """A volume, a model, and what an undisturbed local run of the same plan stores."""

    folder: Path
    volume: str
    model: str
    expected: dict[str, bytes]
    blocks: int

    def config(self, *, partition: str = "main", walltime: str = "10min", more: str = "") -> Path:
        """A cluster's TOML."""
        file = self.folder / f"{abs(hash((partition, walltime, more)))}.toml"
        shared = self.folder / "shared"
        file.write_text(
            CONFIG.format(partition=partition, walltime=walltime, shared=shared, more=more)
        )
        return file

    def arguments(self, output: Path, config: Path, jobs: int = 2, *more: str) -> list[str]:
        sizes = [f"--{k}={str(v).strip('()').replace(' ', '')}" for k, v in SIZES.items()]
        where = ["--cluster=slurm", f"--jobs={jobs}", f"--cluster-config={config}"]
        return ["predict", self.volume, self.model, str(output), *sizes, *where, *more]

    def check(self, output: Path) -> None:
        """Every byte is that of the undisturbed run."""
        found = stored(output)
        assert found.keys() == self.expected.keys()
        assert [key for key in found if found[key] != self.expected[key]] == []


def stored(output: Path) -> dict[str, bytes]:
    """The shards of all levels."""
    return {
        str(file.relative_to(output)): file.read_bytes()
        for file in output.rglob("*")
        if file.is_file() and "c" in file.relative_to(output).parts
    }


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory, write_volume: Any, write_model: Any) -> Scene:
    """36 blocks."""
    folder = tmp_path_factory.mktemp("slurm")
    image = np.random.default_rng(0).normal(100, 10, (32, 96, 192)).astype(np.uint16)
    volume = write_volume(folder / "v.zarr", image, chunk=(16, 32, 32))
    model = write_model(folder / "model", NETWORK, volume=volume, offset=[90.0], scale=[12.0])
    with local_client(2, threads=2) as client:
        summary = predict(volume, model, folder / "expected.zarr", client=client, **SIZES)
    return Scene(
        folder, volume.address, str(model), stored(folder / "expected.zarr"), summary.blocks
    )


@pytest.fixture
def start(tmp_path: Path, scene: Scene) -> Iterator[Start]:
    """Starts command lines; what is left of them and of their jobs is ended."""
    with commands_in(tmp_path) as made:
        yield made
    cancel_all()


def cancel_all() -> None:
    left = [job.number for job in queue("PENDING", "RUNNING", "COMPLETING", "SUSPENDED")]
    if left:
        subprocess.run(["scancel", *left], check=False, capture_output=True)
        until(lambda: not queue("PENDING", "RUNNING", "COMPLETING"), "an empty queue", 60)
