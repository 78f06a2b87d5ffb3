"""Blocks that cannot be done: they are named, the others go on, the next run does them alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr
from distributed import Client

from n2v_scale.errors import IncompleteError, ModelError, OutputError
from n2v_scale.window import reason, run_window

BLOCKS = 40
NO_DATA = (6, 7, 8, 26, 27, 28)
"""Blocks that need no model."""


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


def failures(events: Path) -> set[tuple[int, int]]:
    """Blocks that were set aside, and how often they were tried."""
    lines = map(json.loads, events.read_text().splitlines())
    return {(e["number"], e["attempts"]) for e in lines if e["event"] == "BlockFailed"}


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
    assert failures(command.events) == {(number, 3) for number in touched}

    chunk.write_bytes(whole)
    output = own_scene.output(path)
    before = output.versions()
    assert own_scene.predict(path).computed == len(touched)
    assert output.rewritten(before) == touched
    own_scene.check_whole(path)


def test_a_block_that_cannot_be_written_is_set_aside(scene: Any, tmp_path: Path) -> None:
    path, events = tmp_path / "o.zarr", tmp_path / "events"
    output = scene.output(path)
    scene.predict(path, only=slice(0, 3))
    obstacle = output.shards(25)[1]
    (obstacle / "in the way").mkdir(parents=True)
    with pytest.raises(IncompleteError) as caught:
        scene.predict(path, events=events)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert f"{path}: 1 of 40 blocks failed" in message
    assert named(message) == {25}
    assert f"  block 25: {path}: block 25 cannot be written: " in message
    assert str(obstacle) in message
    assert failures(events) == {(25, 3)}
    assert scene.check_marks(path) == set(range(BLOCKS)) - {25}

    (obstacle / "in the way").rmdir()
    obstacle.rmdir()
    before = output.versions()
    assert scene.predict(path).computed == 1
    assert output.rewritten(before) == {25}
    scene.check_whole(path)


def test_what_fails_every_block_stops_the_run(own_scene: Any, tmp_path: Path) -> None:
    path, events = tmp_path / "o.zarr", tmp_path / "events"
    weights = own_scene.model / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])  # seen by workers, at their first tile
    with pytest.raises(ModelError, match="cannot be loaded"):
        own_scene.predict(path, only=slice(9, 26), events=events)
    ended = json.loads(events.read_text().splitlines()[-1])
    assert (ended["outcome"], ended["computed"], ended["failed"]) == ("failed", 0, 0)
    assert str(weights) in ended["message"]
    assert own_scene.check_marks(path) == set()

    weights.write_bytes(whole)
    assert own_scene.predict(path, only=slice(9, 12)).computed == 3
    assert own_scene.check_marks(path) == {9, 10, 11}


def bar_segments(path: Path) -> Callable[[], None]:
    """Put a file in the way of the ledger's segments; what it gives takes it away again."""
    (segments,) = path.rglob("segments")
    aside = segments.rename(path.parent / "aside")
    segments.write_bytes(b"")

    def undo() -> None:
        segments.unlink()
        aside.rename(segments)

    return undo


def test_a_ledger_that_cannot_be_written(scene: Any, tmp_path: Path) -> None:
    path = tmp_path / "o.zarr"
    scene.predict(path, only=slice(9, 11))
    unbar = bar_segments(path)
    with pytest.raises(OutputError, match=r"the ledger cannot be written: .*segments"):
        scene.predict(path)
    unbar()
    assert scene.check_marks(path) == set(range(BLOCKS))  # workers mark what they write
    assert scene.predict(path).computed == 0
    scene.check_whole(path)


def test_why_a_run_stops_is_told_also_when_its_ledger_cannot_be_written(
    own_scene: Any, tmp_path: Path
) -> None:
    path = tmp_path / "o.zarr"
    own_scene.predict(path, only=[NO_DATA[0]])
    unbar = bar_segments(path)
    (own_scene.model / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be loaded"):
        own_scene.predict(path, only=[NO_DATA[1], *range(9, 26), *range(29, BLOCKS)])
    unbar()
    assert own_scene.check_marks(path) == set(NO_DATA[:2])


@pytest.mark.parametrize(
    "code",
    [
        "class Odd(Exception):\n def __init__(self, *, a): super().__init__('odd')\nraise Odd(a=1)",
        "error = ValueError('odd'); error.lock = __import__('threading').Lock(); raise error",
    ],
)
def test_an_error_that_cannot_travel_between_processes(processes: Client, code: str) -> None:
    outcomes = {o.item: o for o in run_window(processes, exec, ["1", code, "2", "3"])}
    assert set(outcomes) == {"1", "2", "3", code}
    assert reason(outcomes.pop(code).error) in ("Odd: odd", "ValueError: odd")
    assert all(outcome.error is None for outcome in outcomes.values())
