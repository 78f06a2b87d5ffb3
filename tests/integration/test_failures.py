"""Blocks that cannot be done: they are named, the others go on, the next run does them alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr

from n2v_scale.api import repair, verify
from n2v_scale.errors import ModelError, PlanError

BLOCKS = 40


@pytest.fixture
def own_scene(make_scene: Callable[..., Any], scene: Any, tmp_path: Path) -> Any:
    """The same with a volume and a model that a test may damage."""
    image = zarr.open_array(f"{scene.volume.address}/0", mode="r")[...]
    own = make_scene(tmp_path / "own", image, scene.volume.chunk)
    own.undisturbed = scene.undisturbed
    return own


def named(message: str) -> set[int]:
    """The blocks of the list at the end of a message."""
    lines = [line for line in message.splitlines() if line.startswith("  block ")]
    return {int(line.split()[1].rstrip(":")) for line in lines}


def test_a_chunk_of_the_input_that_cannot_be_decoded(
    own_scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    chunk = Path(own_scene.volume.address, "0/c/0/1/9")  # (0, 16, 288) to (16, 32, 320)
    whole = chunk.read_bytes()
    own_scene.predict(path, only=slice(0, 1))  # the run begins with an input that is well
    chunk.write_bytes(whole[:-9])
    command = start(*own_scene.arguments(path, "--json"))
    ended = command.end()
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    # the blocks whose halo of 10 voxels reaches into it, of both rows
    touched = {17, 18, 19, 37, 38, 39}
    assert f"incomplete: {path}: 6 of 40 blocks failed" in ended.stderr
    assert named(ended.stderr) == touched
    assert own_scene.volume.address in ended.stderr
    assert own_scene.check_marks(path) == set(range(BLOCKS)) - touched
    failed = [e for e in map(json.loads, command.events.read_text().splitlines()) if "reason" in e]
    assert {(e["number"], e["attempts"]) for e in failed} == {(n, 3) for n in touched}

    chunk.write_bytes(whole)
    output = own_scene.output(path)
    before = output.versions()
    assert own_scene.predict(path).computed == len(touched)
    assert output.rewritten(before) == touched
    own_scene.check_whole(path)


def test_a_block_that_cannot_be_written_is_set_aside(
    scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    output = scene.output(path)
    scene.predict(path, only=slice(0, 3))
    obstacle = output.shards(25)[1]
    (obstacle / "in the way").mkdir(parents=True)
    command = start(*scene.arguments(path))
    ended = command.end()
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr
    assert named(ended.stderr) == {25}
    assert f"  block 25: {path}: block 25 cannot be written: " in ended.stderr
    assert str(obstacle) in ended.stderr
    assert command.computed() == set(range(3, BLOCKS)) - {25}
    assert scene.check_marks(path) == set(range(BLOCKS)) - {25}

    (obstacle / "in the way").rmdir()
    obstacle.rmdir()
    before = output.versions()
    assert scene.predict(path).computed == 1
    assert output.rewritten(before) == {25}
    scene.check_whole(path)


def test_what_fails_every_block_stops_the_run(
    own_scene: Any, start: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    weights = own_scene.model / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])  # seen by workers, at their first tile
    command = start(*own_scene.arguments(path, "--only=9:26"))  # where there is data
    ended = command.end()
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"error: {weights} cannot be loaded")
    assert "Traceback" not in ended.stderr
    assert command.computed() == own_scene.check_marks(path) == set()

    weights.write_bytes(whole)
    assert own_scene.predict(path).computed == BLOCKS
    own_scene.check_whole(path)


def test_another_model_is_refused_and_the_first_goes_on(
    own_scene: Any, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    path, model, client = tmp_path / "o.zarr", own_scene.model, own_scene.client
    own_scene.predict(path, only=slice(0, 2))
    output = own_scene.output(path)
    output.shards(1)[0].write_bytes(b"damaged")
    model.rename(tmp_path / "first")
    write_model(model, volume=own_scene.volume, offset=[90.0], scale=[12.0], seed=1)
    before = output.versions()
    with pytest.raises(PlanError, match=r"the model was \w+…, now \w+…"):
        own_scene.predict(path, only=slice(0, 4))
    with pytest.raises(ModelError, match=r"is not the model that .* was made with"):
        repair(path, client=client)
    assert output.versions() == before
    assert verify(path, client=client).damaged == {"0": [1]}
    model.rename(tmp_path / "second")
    (tmp_path / "first").rename(model)
    assert own_scene.predict(path, only=slice(0, 4)).computed == 3
    assert own_scene.check_marks(path) == {0, 1, 2, 3}
