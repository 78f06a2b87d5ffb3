"""Whole runs on real worker processes: failures are named, the rest goes on, kills are survived."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client

from n2v_scale.api import plan_prediction, predict
from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import IncompleteError, InputError, OutputError, PlanError
from n2v_scale.execution import Summary
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.ledger import Ledger
from n2v_scale.local_cluster import local_client

SHAPE = (8, 24, 96)
OPTIONS: dict[str, Any] = {
    "block": (8, 24, 16),
    "tile": (8, 8, 8),
    "chunk": (8, 8, 8),
    "device": "cpu",
}


@pytest.fixture(scope="module")
def processes() -> Iterator[Client]:
    with local_client(2) as client:
        yield client


@dataclass(frozen=True)
class Case:
    """A volume, the model that was trained on it, and the undisturbed result."""

    volume: Volume
    model: Path
    summary: Summary
    expected: dict[str, bytes]


def image_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.uint16)


def done(path: Path, blocks: int) -> set[int]:
    return set(Ledger(str(path), "0.5").done("0", blocks).nonzero()[0].tolist())


def voxels(path: Path | str) -> dict[str, bytes]:
    """All stored bytes of the levels, which are named 0, 1, 2 …"""
    files = [f for level in Path(path).glob("[0-9]*") for f in level.rglob("*") if f.is_file()]
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in files
        if "journal" not in file.parts
    }


@pytest.fixture(scope="module")
def case(
    processes: Client,
    tmp_path_factory: pytest.TempPathFactory,
    write_volume: Callable[..., Volume],
    write_model: Callable[..., Path],
) -> Case:
    folder = tmp_path_factory.mktemp("case")
    volume = write_volume(folder / "v.zarr", image_of(SHAPE), chunk=(8, 24, 16))
    model = write_model(folder / "model", volume=volume, offset=[90.0], scale=[12.0])
    summary = predict(volume, model, folder / "o.zarr", client=processes, **OPTIONS)
    return Case(volume, model, summary, voxels(folder / "o.zarr"))


def test_an_undisturbed_run(case: Case) -> None:
    summary = case.summary
    assert (summary.blocks, summary.computed, summary.voxels) == (6, 6, 8 * 24 * 96)
    assert 0 < summary.read_s + summary.compute_s + summary.write_s <= 2 * summary.seconds
    found = zarr.open_array(f"{summary.output}/0", mode="r")[...]
    assert found.dtype == np.uint16
    assert found.std() > 0
    assert len(case.expected) > 6


def test_the_number_of_workers_does_not_matter(case: Case, tmp_path: Path, client: Client) -> None:
    predict(case.volume, case.model, tmp_path / "o.zarr", client=client, **OPTIONS)
    assert voxels(tmp_path / "o.zarr") == case.expected


def chunk_file(volume: Volume, index: int) -> Path:
    return Path(volume.address, f"0/c/0/0/{index}")


def marked(path: Path) -> list[Path]:
    """Of blocks that are done and not folded yet."""
    return list(path.glob("0/n2v_scale.ledger/blocks/*.json"))


@pytest.fixture
def damaged(case: Case) -> Iterator[Callable[[int], None]]:
    """Damage a chunk of the input where nobody sees it from outside: same size, same time."""
    saved: dict[Path, tuple[bytes, os.stat_result]] = {}

    def write(file: Path, content: bytes) -> None:
        file.write_bytes(content)
        state = saved[file][1]
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))

    def damage(index: int) -> None:
        file = chunk_file(case.volume, index)
        saved[file] = file.read_bytes(), file.stat()
        write(file, b"\0" * len(saved[file][0]))

    def repair() -> None:
        for file, (content, _) in saved.items():
            write(file, content)

    damage.repair = repair  # type: ignore[attr-defined]
    yield damage
    repair()


def test_a_damaged_chunk_costs_its_blocks_and_no_others(
    case: Case, tmp_path: Path, processes: Client, damaged: Any
) -> None:
    damaged(5)
    path = tmp_path / "o.zarr"
    plan = plan_prediction(case.volume, case.model, path, **OPTIONS)
    lost = Box((0, 0, 80), (8, 24, 96))
    expected = {b.number for b in plan.iterate() if plan.read_box(b).intersect(lost).size}
    assert 5 in expected
    assert len(expected) < 3
    with pytest.raises(IncompleteError) as caught:
        predict(case.volume, case.model, path, client=processes, **OPTIONS)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert f"{len(expected)} of 6 blocks failed" in message
    for number in range(6):
        assert (f"  block {number}: " in message) == (number in expected)
    assert case.volume.address in message
    assert done(path, 6) == set(range(6)) - expected
    written = voxels(path)
    for number in set(range(6)) - expected:
        key = f"0/c/0/0/{number}"
        assert written[key] == case.expected[key]

    with pytest.raises(IncompleteError):  # still damaged: still incomplete
        predict(case.volume, case.model, path, client=processes, **OPTIONS)

    damaged.repair()
    summary = predict(case.volume, case.model, path, client=processes, **OPTIONS)
    assert summary.computed == len(expected)
    assert voxels(path) == case.expected


def test_a_chunk_that_was_copied_again_can_be_resumed(
    case: Case, tmp_path: Path, client: Client, write_volume: Callable[..., Volume]
) -> None:
    volume = write_volume(tmp_path / "v.zarr", image_of(SHAPE), chunk=(8, 24, 16))
    file = chunk_file(volume, 5)
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(IncompleteError):
        predict(volume, case.model, tmp_path / "o.zarr", client=client, **OPTIONS)
    file.write_bytes(whole)
    summary = predict(volume, case.model, tmp_path / "o.zarr", client=client, **OPTIONS)
    assert 0 < summary.computed < 6
    undisturbed = predict(volume, case.model, tmp_path / "u.zarr", client=client, **OPTIONS)
    assert undisturbed.computed == 6


def test_when_everything_is_damaged_it_stops(
    case: Case, tmp_path: Path, processes: Client, damaged: Any
) -> None:
    for index in range(6):
        damaged(index)
    with pytest.raises(InputError, match="cannot read box"):
        predict(case.volume, case.model, tmp_path / "o.zarr", client=processes, **OPTIONS)


def test_a_killed_worker_is_survived(
    tmp_path: Path,
    processes: Client,
    case: Case,
    write_volume: Callable[..., Volume],
) -> None:
    volume = write_volume(tmp_path / "v.zarr", image_of((8, 64, 256), 2), chunk=(8, 32, 32))
    options = {**OPTIONS, "block": (8, 16, 16)}
    predict(volume, case.model, tmp_path / "calm.zarr", client=processes, **options)
    path = tmp_path / "o.zarr"
    victims = processes.run(os.getpid)
    victim = min(victims.values())
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(predict, volume, case.model, path, client=processes, **options)
        while len(marked(path)) < 3:
            assert not run.done()
            time.sleep(0.005)
        os.kill(victim, signal.SIGKILL)
        assert len(marked(path)) < 64
        summary = run.result(60)
        assert summary.computed == summary.blocks == 64
    assert voxels(path) == voxels(tmp_path / "calm.zarr")
    processes.wait_for_workers(2, timeout=30)
    assert victim not in processes.run(os.getpid).values()


def test_an_unseen_volume_gets_its_own_normalisation(
    tmp_path: Path, case: Case, client: Client, write_volume: Callable[..., Volume]
) -> None:
    image = np.stack([image_of((8, 16, 16), 3), 5 * image_of((8, 16, 16), 4)])
    unseen = write_volume(tmp_path / "u.zarr", image)
    plan = plan_prediction(unseen, case.model, tmp_path / "o.zarr", **OPTIONS)
    assert plan.normalisation is not None
    np.testing.assert_allclose(plan.normalisation.offset, image.mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(plan.normalisation.scale, image.std((1, 2, 3)), rtol=1e-12)
    predict(unseen, case.model, tmp_path / "o.zarr", client=client, **OPTIONS)
    record = Ledger(str(tmp_path / "o.zarr"), "0.5").record() or {}
    assert Normalisation.from_dict(record["plan"]["normalisation"]) == plan.normalisation


def test_the_training_volume_gets_the_model_s_normalisation(case: Case, tmp_path: Path) -> None:
    known = Normalisation((90.0,), (12.0,))
    for volume in (case.volume, open_volume(case.volume.address, channels=[0])):
        plan = plan_prediction(volume, case.model, tmp_path / "o.zarr", **OPTIONS)
        assert plan.normalisation == known
    record = Ledger(case.summary.output, "0.5").record() or {}
    assert record["plan"]["normalisation"] == known.to_dict()


def test_planning_writes_nothing(case: Case, tmp_path: Path) -> None:
    plan_prediction(case.volume, case.model, tmp_path / "o.zarr", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_the_input_is_refused_while_planning(case: Case) -> None:
    with pytest.raises(OutputError, match="lie inside one another"):
        plan_prediction(case.volume, case.model, Path(case.volume.address) / "o.zarr")


def test_a_constant_volume_is_refused(
    case: Case, tmp_path: Path, write_volume: Callable[..., Volume]
) -> None:
    flat = write_volume(tmp_path / "f.zarr", np.full((8, 16, 16), 3, np.uint8))
    with pytest.raises(InputError, match="are 3: a constant volume"):
        plan_prediction(flat, case.model, tmp_path / "o.zarr")


def test_another_volume_in_the_same_place_is_not_gone_on_with(
    case: Case, tmp_path: Path, client: Client, write_volume: Callable[..., Volume]
) -> None:
    volume = write_volume(tmp_path / "v.zarr", image_of(SHAPE), chunk=(8, 24, 16))
    chunk_file(volume, 5).write_bytes(b"torn")
    with pytest.raises(IncompleteError):
        predict(volume, case.model, tmp_path / "o.zarr", client=client, **OPTIONS)
    zarr.open_array(f"{volume.address}/0", mode="r+")[...] = image_of(SHAPE) + 1
    with pytest.raises(PlanError, match="is not the volume that"):
        predict(volume, case.model, tmp_path / "o.zarr", client=client, **OPTIONS)


def test_only_the_blocks_whose_input_changed_are_computed_again(
    case: Case, tmp_path: Path, client: Client, write_volume: Callable[..., Volume]
) -> None:
    volume = write_volume(tmp_path / "v.zarr", image_of(SHAPE), chunk=(8, 24, 16))
    torn = chunk_file(volume, 5)
    whole = torn.read_bytes()
    torn.write_bytes(b"torn")
    path = tmp_path / "o.zarr"
    with pytest.raises(IncompleteError):
        predict(volume, case.model, path, client=client, **OPTIONS)
    torn.write_bytes(whole)
    zarr.open_array(f"{volume.address}/0", mode="r+")[0, 0, 0] = 3  # chunk 0
    plan = plan_prediction(volume, case.model, path, **OPTIONS)
    changed = [Box((0, 0, 0), (1, 1, 1)), Box((0, 0, 80), (8, 24, 96))]
    touched = [
        b.number
        for b in plan.iterate()
        if any(plan.read_box(b).intersect(box).size for box in changed)
    ]
    summary = predict(volume, case.model, path, client=client, **OPTIONS)
    assert summary.computed == len(touched) < 6
