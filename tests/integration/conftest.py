"""Runs that are disturbed: real processes, real signals, and an account of what they left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from n2v_scale.api import plan_prediction, predict
from n2v_scale.execution import Summary
from n2v_scale.io.volume import Volume
from n2v_scale.ledger import LEDGER_FOLDER, Ledger
from n2v_scale.local_cluster import local_client
from n2v_scale.network_config import FilterUNetConfig, UNetConfig
from n2v_scale.recovery import Level, levels_of

from ..commands import Start, commands_in

OPTIONS: dict[str, Any] = {
    "block": (16, 16, 16),
    "tile": (8, 8, 8),
    "chunk": (8, 8, 8),
    "shard": (16, 16, 8),  # two a block: it can be written in part
    "device": "cpu",
    "threads": 1,
    "workers": 2,
    "nodata": 0,
}
NETWORK = FilterUNetConfig((3, 3, 3), UNetConfig(2, depth=1, filters=2, pooled=(1, 1, 1)))

Versions = dict[tuple[str, int], tuple[Any, ...]]  # inodes and times, by level and block


@dataclass
class Output:
    """What lies on the disk of an output, read from outside."""

    path: Path
    levels: dict[str, Level]

    def marked(self, level: str = "0") -> set[int]:
        """Blocks that count as done: folded into a segment, or marked by a worker."""
        ledger = Ledger(str(self.path), "0.5")
        folded = ledger.done(level, len(self.levels[level].grid)).nonzero()[0].tolist()
        fresh = self.path.glob(f"{level}/{LEDGER_FOLDER}/blocks/*.json")
        return {*folded, *(int(file.stem) for file in fresh)}

    def shards(self, number: int, level: str = "0") -> list[Path]:
        """The files of a block; one that is all zero is not there."""
        spec, block = self.levels[level].spec, self.levels[level].grid.at(number)
        return [self.path / spec.key(0, 0, shard) for shard in spec.shards_in(block.write)]

    def stored(self) -> dict[str, bytes]:
        """Every file in the folders of the levels but for the ledger."""
        files = [f for level in self.levels for f in (self.path / level).rglob("*") if f.is_file()]
        ours = [file for file in files if LEDGER_FOLDER not in file.parts]
        return {str(file.relative_to(self.path)): file.read_bytes() for file in ours}

    def versions(self) -> Versions:
        return {
            (path, number): tuple(_version(file) for file in self.shards(number, path))
            for path, level in self.levels.items()
            for number in range(len(level.grid))
        }

    def rewritten(self, before: Versions, level: str = "0") -> set[int]:
        """Blocks with files that were written since ``versions()`` was ``before``."""
        changed = self.versions().items() - before.items()
        return {number for (path, number), _ in changed if path == level}


def _version(file: Path) -> tuple[int, int] | None:
    return (file.stat().st_ino, file.stat().st_mtime_ns) if file.exists() else None


@dataclass
class Scene:
    """A volume, a model, and every byte that an undisturbed run makes of them."""

    volume: Volume
    model: Path
    client: Client
    options: dict[str, Any]

    def predict(self, path: Path, **more: Any) -> Summary:
        """The run, in this process, on workers that nobody disturbs."""
        options = {"client": self.client, **self.options, **more}
        if options["client"] is not None:
            options.pop("workers", None)  # it has those that it has
        return predict(self.volume, self.model, path, **options)

    def arguments(self, path: Path, *more: str) -> list[str]:
        """The run as a command line."""
        texts = {k: str(v).strip("()").replace(" ", "") for k, v in self.options.items()}
        options = [f"--{name}={text}" for name, text in texts.items()]
        return ["predict", self.volume.address, str(self.model), str(path), *options, *more]

    def output(self, path: Path) -> Output:
        plan = plan_prediction(self.volume, self.model, path, **self.options)
        return Output(path, {level.spec.path: level for level in levels_of(plan)})

    @cached_property
    def undisturbed(self) -> Path:
        """A finished output."""
        path = self.model.parent / "undisturbed.zarr"
        assert self.predict(path).missing == 0
        return path

    @cached_property
    def expected(self) -> dict[str, bytes]:
        """What an undisturbed run stores."""
        return self.output(self.undisturbed).stored()

    def check_marks(self, path: Path) -> set[int]:
        """The blocks that count as done, after each one was found whole, at every level."""
        output = self.output(path)
        for level in output.levels:
            for number in output.marked(level):
                for file in output.shards(number, level):
                    found = file.read_bytes() if file.exists() else None
                    assert found == self.expected.get(str(file.relative_to(path))), file
        return output.marked()

    def check_whole(self, path: Path) -> None:
        """Every byte is there, every block is in the ledger, and nothing else is left."""
        output = self.output(path)
        found = output.stored()
        assert found.keys() == self.expected.keys()
        assert [key for key in found if found[key] != self.expected[key]] == []
        assert list(path.rglob("*.partial")) == []
        for level, described in output.levels.items():
            assert output.marked(level) == set(range(len(described.grid)))
        assert (Ledger(str(path), "0.5").record() or {})["complete"]


@pytest.fixture(scope="session")
def processes() -> Iterator[Client]:
    """Two worker processes that nobody disturbs."""
    with local_client(2) as client:
        yield client


@pytest.fixture(scope="session")
def make_scene(processes: Client, write_volume: Any, write_model: Any) -> Callable[..., Scene]:
    """A function that writes an image and a model; the same image gives the same output."""

    def make(folder: Path, image: np.ndarray, stored: Sequence[int], **options: Any) -> Scene:
        volume = write_volume(folder / "v.zarr", image, chunk=stored)
        known = {"volume": volume, "offset": [90.0], "scale": [12.0]}
        model = write_model(folder / "model", NETWORK, **known)
        return Scene(volume, model, processes, {**OPTIONS, **options})

    return make


@pytest.fixture(scope="session")
def scene(make_scene: Callable[..., Scene], tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """40 blocks of noise; six of them hold no data, and no shard of them is stored."""
    image = np.random.default_rng(0).normal(100, 10, (16, 32, 320)).astype(np.uint16)
    image[:, :, 96:144] = 0
    return make_scene(tmp_path_factory.mktemp("scene"), image, (16, 16, 32))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts command lines; what is left of them is ended after the test."""
    with commands_in(tmp_path) as made:
        yield made
