"""What a crash, a disk or a person may leave: found at the next start, and done again alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from n2v_scale.errors import OutputError
from n2v_scale.ledger import LEDGER_FOLDER, Ledger, Marker

BLOCKS = 40


@pytest.fixture
def path(scene: Any, tmp_path: Path) -> Path:
    """A finished output of its own."""
    shutil.copytree(scene.undisturbed, tmp_path / "o.zarr")
    return tmp_path / "o.zarr"


def ledger_of(path: Path) -> Ledger:
    return Ledger(str(path), "0.5")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def resume(scene: Any, path: Path) -> tuple[int, dict[str, set[int]]]:
    """Go on until all is whole; how many blocks were computed, and the rewritten ones by level."""
    output = scene.output(path)
    before = output.versions()
    summary = scene.predict(path)
    assert (summary.missing, summary.already_finished) == (0, False)
    scene.check_whole(path)
    found = {level: output.rewritten(before, level) for level in output.levels}
    return summary.computed, {level: numbers for level, numbers in found.items() if numbers}


def unfinish(path: Path, *numbers: int) -> dict[int, Marker]:
    """As if the run had been killed before it heard of these blocks."""
    ledger = ledger_of(path)
    markers = {marker.number: marker for marker in ledger.markers("0", BLOCKS)}
    ledger.unmark("0", numbers)
    ledger.update(complete=False)
    return markers


def marker_file(path: Path, number: int) -> Path:
    return path / f"0/{LEDGER_FOLDER}/blocks/{number:09d}.json"


def test_nothing_is_done_on_a_finished_output(scene: Any, path: Path) -> None:
    output = scene.output(path)
    before = output.versions()
    summary = scene.predict(path)
    assert (summary.computed, summary.already_finished) == (0, True)
    assert output.versions() == before


@pytest.mark.parametrize(
    ("harm", "finished"),
    [(truncate, True), (empty, True), (grow, True), (Path.unlink, True), (truncate, False)],
)
def test_a_shard_of_another_size_is_found_at_the_next_start(
    scene: Any, path: Path, harm: Callable[[Path], None], finished: bool
) -> None:
    if not finished:
        unfinish(path)
    harm(scene.output(path).shards(17)[1])
    computed, rewritten = resume(scene, path)
    assert computed == 1
    assert rewritten == {"0": {17}, "1": {17}, "2": {8}, "3": {4}, "4": {2}, "5": {1}, "6": {0}}


def test_a_shard_of_the_pyramid_is_made_again_with_what_is_below(scene: Any, path: Path) -> None:
    """Nobody knows when it was damaged; the full resolution is left alone."""
    truncate(scene.output(path).shards(8, "2")[0])
    assert resume(scene, path) == (0, {"2": {8}, "3": {4}, "4": {2}, "5": {1}, "6": {0}})


def test_a_shard_where_nothing_was_stored(scene: Any, path: Path) -> None:
    file = scene.output(path).shards(7)[0]
    assert not file.exists()
    file.write_bytes(b"not of this run")
    computed, rewritten = resume(scene, path)
    assert (computed, rewritten["0"]) == (1, {7})


def test_files_that_nobody_finished_writing_are_gone_at_the_end(scene: Any, path: Path) -> None:
    unfinish(path, 4)
    orphans = [f"{folder}/9.{'0' * 32}.partial" for folder in ("0/c/0/0", "n2v_scale", "3/c/0/0")]
    for orphan in orphans:
        (path / orphan).write_bytes(b"half")
    assert resume(scene, path) == (1, {"0": {4}})


@pytest.mark.parametrize(("harm", "finished"), [(truncate, True), (empty, False)])
def test_the_blocks_of_a_torn_segment_are_computed_again(
    scene: Any, path: Path, harm: Callable[[Path], None], finished: bool
) -> None:
    if not finished:
        unfinish(path)
    harm(path / f"0/{LEDGER_FOLDER}/segments/000000")
    computed, rewritten = resume(scene, path)
    assert computed == BLOCKS
    assert rewritten.keys() == {"0"}


def test_a_torn_segment_of_a_level(scene: Any, path: Path) -> None:
    truncate(path / f"1/{LEDGER_FOLDER}/segments/000000")
    computed, rewritten = resume(scene, path)
    assert computed == 0
    assert rewritten.keys() == {"1"}


def test_markers_that_nobody_folded(scene: Any, path: Path) -> None:
    """Of three blocks: one is whole, one has a torn marker, one a shard that is not as marked."""
    markers = unfinish(path, 2, 3, 4)
    for number in (2, 3, 4):
        ledger_of(path).mark("0", markers[number])
    marker_file(path, 3).write_bytes(marker_file(path, 3).read_bytes()[:20])
    truncate(scene.output(path).shards(4)[0])
    computed, rewritten = resume(scene, path)
    assert computed == 2
    assert rewritten["0"] == {3, 4}


@pytest.mark.parametrize(
    ("harm", "finished", "level"),
    [(empty, True, "0"), (Path.unlink, True, "2"), (empty, False, "2"), (Path.unlink, False, "0")],
)
def test_the_metadata_of_an_array_is_written_again(
    scene: Any, path: Path, harm: Callable[[Path], None], finished: bool, level: str
) -> None:
    if not finished:
        unfinish(path, 4)
    harm(path / level / "zarr.json")
    computed, rewritten = resume(scene, path)
    assert computed == (0 if finished else 1)
    assert rewritten == ({} if finished else {"0": {4}})


def test_the_metadata_of_the_image_is_written_again(scene: Any, path: Path) -> None:
    expected = (path / "zarr.json").read_bytes()
    empty(path / "zarr.json")
    assert resume(scene, path) == (0, {})
    assert (path / "zarr.json").read_bytes() == expected


def test_an_output_whose_record_is_lost_is_left_alone(scene: Any, path: Path) -> None:
    empty(path / "n2v_scale/zarr.json")
    before = scene.output(path).versions()
    with pytest.raises(OutputError, match="choose another name"):
        scene.predict(path)
    assert scene.output(path).versions() == before
