"""Small outputs to report on, made once, and what is read back from a page."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import n2v_scale
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.reporting import find_out
from n2v_scale.reporting.findings import Findings
from n2v_scale.reporting.page import page_text, slices_text
from n2v_scale.simulate import simulate_light_sheet

SHAPE = (20, 48, 64)
BLOCK = (16, 32, 32)
SIZES: dict[str, Any] = {"block": BLOCK, "tile": 16, "chunk": 16, "shard": BLOCK, "device": "cpu"}
SIZES = {name: (size,) * 3 if isinstance(size, int) else size for name, size in SIZES.items()}
NO_VALUE = 4095


class Page(HTMLParser):
    """Every tag of a page with its attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.within = tag
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts.append(data)
        elif self.within != "style" and data.strip():
            self.words.append(data.strip())

    def handle_endtag(self, _: str) -> None:
        self.within = ""


class Slices:
    """What the viewer reads."""

    def __init__(self, text: str) -> None:
        self.data: dict[str, Any] = json.loads(text)

    def plane(self, place: int, volume: str, name: str) -> np.ndarray:
        """The values that the page holds; NaN where it holds none."""
        data = self.data
        described = data["places"][place]
        low, step = data["scales"][str(described["c"])][:2]
        z, y, x = described["shape"]
        shape = {"xy": (y, x), "xz": (z, x), "yz": (z, y)}[name]
        raw = zlib.decompress(base64.b64decode(described["data"][volume][name]))
        low_bytes, high_bytes = np.frombuffer(raw, np.uint8).reshape(2, *shape).astype(int)
        codes = low_bytes + 256 * high_bytes
        return np.where(codes == NO_VALUE, np.nan, low + step * codes)


@dataclass
class Case:
    """A noisy volume, its output and what a report finds of it."""

    noisy: Volume
    output: Path
    found: Findings

    @cached_property
    def slices(self) -> Slices:
        """Those of the page, without its plots, which take longer."""
        return Slices(slices_text(self.found))

    @cached_property
    def page(self) -> Page:
        """As it is written."""
        return Page(page_text(self.found))


@pytest.fixture(scope="session")
def make_output(
    tmp_path_factory: pytest.TempPathFactory, client: Any, tiny_model: Path
) -> Callable[..., Path]:
    """A function that denoises a volume with a small model of random weights."""

    def make(
        noisy: Any, model: Path | None = None, output: Path | None = None, **settings: Any
    ) -> Path:
        path = output or tmp_path_factory.mktemp("output") / "denoised.zarr"
        options = {**SIZES, "client": client, "threads": 1, **settings}
        n2v_scale.predict(noisy, model or tiny_model, path, **options)
        return path

    return make


@pytest.fixture(scope="session")
def report_on() -> Callable[..., Case]:
    """A function that makes the page of an output."""

    def report(output: Path, select: dict[str, Any] | None = None, **options: Any) -> Case:
        found = find_out(open_volume(output, **(select or {})), **options)
        return Case(found.noisy, output, found)

    return report


@pytest.fixture(scope="session")
def sheet() -> Any:
    """A light sheet with its truth."""
    return simulate_light_sheet(SHAPE, seed=1)


@pytest.fixture(scope="session")
def noisy(sheet: Any, tmp_path_factory: pytest.TempPathFactory, write_volume: Any) -> Volume:
    """The light sheet, with voxels of 2 by 0.4 by 0.4 µm."""
    path = tmp_path_factory.mktemp("volume") / "noisy.zarr"
    return write_volume(path, sheet.noisy, chunk=(8, 16, 16), scale=(2, 0.4, 0.4))


@pytest.fixture(scope="session")
def linear(noisy: Volume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is trained on it."""
    folder = tmp_path_factory.mktemp("model") / "linear.n2v"
    n2v_scale.train(noisy, folder, method="linear", device="cpu", threads=1)
    return folder


@pytest.fixture(scope="session")
def case(noisy: Volume, linear: Path, make_output: Any, report_on: Any, sheet: Any) -> Case:
    """The whole way, with a reference and the camera."""
    output = make_output(noisy, linear, gain=2.2, offset=100.0, read_noise=3.52)
    clean = zarr.create_array(output.parent / "clean.zarr", data=sheet.clean)
    reference = open_volume(str(clean.store.root))
    return report_on(output, reference=reference, camera=(2.2, 100.0, 3.52))
