"""What pages say, and a small world in which it runs: volumes, a model, no cluster.

Whatever differs from what a reader has: small volumes (:class:`World`), short trainings
(:func:`small`), threads instead of worker processes (:func:`here`), and the few words that
test_pages.py adds.
"""

from __future__ import annotations

import inspect
import io
import json
import re
import shutil
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile
from distributed import Client

import n2v_scale
from n2v_scale import config
from n2v_scale.cli import main
from n2v_scale.io.messages import InputWarning
from n2v_scale.io.open import open_volume
from n2v_scale.simulate import simulate_light_sheet

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "workflows" / "README.md",
    ROOT / "benchmarks" / "RESULTS.md",
]
SHAPE = (24, 64, 64)
VOXEL_UM = (2.0, 0.4, 0.4)
STEPS = 2
"""Of every training, whatever was asked for."""
FILTERS = 4
"""Of every U-Net that nothing was asked of."""
PROGRAMS = {"sbatch": "echo Submitted batch job 4711"}
"""Of a batch system that takes every job and runs none."""
GPU_TOML = 'system = "slurm"\npartition = "gpu"\ngpus = 1\nmemory = "64GB"\n'
BLIND = [[0, 0, -1], [0, 0, 1], [0, 1, 0]]


class Block(NamedTuple):
    """One fenced block."""

    language: str
    text: str
    line: int
    """Of the page, at which its text begins."""


class Section(NamedTuple):
    """What stands between two titles."""

    title: str
    blocks: list[Block]


class Page(NamedTuple):
    """One page of the documentation."""

    name: str
    text: str

    def sections(self) -> list[Section]:
        """Fenced blocks by section, in order."""
        found = [Section("", [])]
        fence, start, lines = "", 0, self.text.splitlines()
        for number, line in enumerate(lines, 1):
            if fence and line.strip() == "```":
                body = "\n".join(lines[start : number - 1]) + "\n"
                found[-1].blocks.append(Block(fence.removeprefix("```"), body, start + 1))
                fence = ""
            elif not fence and line.lstrip().startswith("```"):
                fence, start = line.strip(), number
            elif not fence and line.startswith("#"):
                found.append(Section(line.lstrip("# "), []))
        assert not fence, f"{self.name}:{start}: a block without an end"
        return found

    def prose(self) -> str:
        """Everything outside blocks."""
        return re.sub(r"^[ ]*```.*?^[ ]*```$", "", self.text, flags=re.DOTALL | re.MULTILINE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for ``page`` runs once for every page that there is."""
    if "page" in metafunc.fixturenames:
        pages = [Page(str(path.relative_to(ROOT)), path.read_text()) for path in PAGES]
        metafunc.parametrize("page", pages, ids=[page.name for page in pages])


@pytest.fixture(scope="session")
def pages() -> list[Page]:
    return [Page(str(path.relative_to(ROOT)), path.read_text()) for path in PAGES]


class Said(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


NAMES = {
    "stack.tif": "stack",
    "clean.tif": "truth",
    "planes": "planes",
    "clean.zarr": "clean",
    "volume.zarr": "volume",
    "other.zarr": "capture",
    "first.zarr": "capture",
    "second.zarr": "capture",
    "monday.zarr": "capture",
    "tuesday.zarr": "capture",
    "foreground.zarr": "mask",
    "mask.zarr": "mask",
    "mask.json": "offsets",
    "model.n2v": "model",
    "denoised.zarr": "denoised",
    "gpu.toml": "cluster",
}
"""What there is, and what each is made by."""


class World:
    """Volumes and a model under the names that pages use, each made when it is first needed."""

    def __init__(self, folder: Path, client: Client) -> None:
        self.folder, self.client = folder, client
        self.noisy = simulate_light_sheet(SHAPE, seed=3)

    @property
    def names(self) -> list[str]:
        return list(NAMES)

    def give(self, name: str, folder: Path) -> None:
        """Put what has this name into a folder, unless it is there."""
        made, wanted = self.folder / name, folder / name
        if not made.exists():
            getattr(self, f"_{NAMES[name]}")(made)
        if not wanted.exists():
            (shutil.copytree if made.is_dir() else shutil.copyfile)(made, wanted)

    def _stack(self, path: Path) -> None:
        tifffile.imwrite(path, self.noisy.noisy, metadata={"axes": "ZYX"})

    def _truth(self, path: Path) -> None:
        tifffile.imwrite(path, self.noisy.clean, metadata={"axes": "ZYX"})

    def _planes(self, path: Path) -> None:
        path.mkdir()
        for z, plane in enumerate(self.noisy.noisy):
            tifffile.imwrite(path / f"plane_{z:04}.tif", plane)

    def _clean(self, path: Path) -> None:
        self._write(path, self.noisy.clean)

    def _volume(self, path: Path) -> None:
        self._write(path, self.noisy.noisy)

    def _capture(self, path: Path) -> None:
        seed = sum(path.name.encode())
        self._write(path, self.noisy.parameters.camera.expose(self.noisy.clean, seed))

    def _mask(self, path: Path) -> None:
        self._write(path, (self.noisy.clean > np.median(self.noisy.clean)).astype(np.uint8))

    def _offsets(self, path: Path) -> None:
        path.write_text(json.dumps(BLIND))

    def _cluster(self, path: Path) -> None:
        path.write_text(GPU_TOML)

    def _model(self, path: Path) -> None:
        self.give("volume.zarr", self.folder)
        n2v_scale.train(self.folder / "volume.zarr", path, method="linear")

    def _denoised(self, path: Path) -> None:
        self.give("model.n2v", self.folder)
        model = self.folder / "model.n2v"
        n2v_scale.predict(self.folder / "volume.zarr", model, path, client=self.client)

    def _write(self, path: Path, values: np.ndarray) -> None:
        source = path.with_suffix(".tif")
        tifffile.imwrite(source, values, metadata={"axes": "ZYX"})
        with_size = open_volume(source, voxel_size=VOXEL_UM)
        n2v_scale.import_volume(with_size, path, client=self.client)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Every training takes two steps of a narrow network, whatever was asked for."""
    whole = config.TrainSettings.resolved

    def resolved(settings: Any) -> Any:
        chosen = whole(settings)
        narrow = chosen.filters is None and chosen.net in ("filter-unet", "unet")
        filters = FILTERS if narrow else chosen.filters
        return chosen.model_copy(update={"steps": STEPS, "minutes": None, "filters": filters})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.TrainSettings, "resolved", resolved)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, client: Client, small: None) -> World:
    return World(tmp_path_factory.mktemp("world"), client)


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Client, small: None
) -> Iterator[Path]:
    """A reader's folder and home; threads of this process in the place of worker processes."""

    @contextmanager
    def threads_instead(*_: Any, **__: Any) -> Iterator[Client]:
        yield client

    for module in ("cluster", "verification"):
        monkeypatch.setattr(f"n2v_scale.{module}.local_client", threads_instead)
    import matplotlib as mpl

    monkeypatch.setenv("MPLCONFIGDIR", mpl.get_configdir())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    for name, line in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    folder = tmp_path / "folder"
    folder.mkdir()
    for shared in ("workflows", "benchmarks"):  # pages name scripts from the repository's root
        (folder / shared).symlink_to(ROOT / shared)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """The command line, in this process, with what it says and its exit code."""

    def call(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["n2v-scale", *words])
        before, shown = signal.getsignal(signal.SIGTERM), warnings.showwarning
        out, err = io.StringIO(), io.StringIO()
        try:
            with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
                warnings.simplefilter("default", InputWarning)
                with pytest.raises(SystemExit) as ended:
                    main()
        finally:
            signal.signal(signal.SIGTERM, before)
            warnings.showwarning = shown
        return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    return call


@pytest.fixture
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that makes ``s3://bucket`` with a volume, and gives the service's address."""

    def serve(world: World) -> str:
        import s3fs

        service = request.getfixturevalue("s3")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", service.options["key"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", service.options["secret"])
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        world.give("volume.zarr", world.folder)
        files = s3fs.S3FileSystem(endpoint_url=service.endpoint, skip_instance_cache=True)
        if not files.exists("bucket"):
            files.mkdir("bucket")
        files.put(str(world.folder / "volume.zarr"), "bucket/volume.zarr", recursive=True)
        endpoint: str = service.endpoint
        return endpoint

    return serve


@pytest.fixture(scope="session")
def verbs() -> dict[str, inspect.Signature]:
    """The package's public functions."""
    functions = {name: getattr(n2v_scale, name) for name in n2v_scale.__all__}
    return {n: inspect.signature(f) for n, f in functions.items() if inspect.isfunction(f)}
