"""Damage that no size tells of: ``verify`` finds it, ``--repair`` computes it again alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from n2v_scale.api import repair, verify
from n2v_scale.ledger import Ledger

MADE_FROM_21 = {"1": {1}, "2": {0}, "3": {0}, "4": {0}, "5": {0}, "6": {0}}
"""Blocks of the lower levels that hold a voxel of block 21, which begins at (0, 16, 16)."""


@pytest.fixture
def path(scene: Any, tmp_path: Path) -> Path:
    """A finished output of its own."""
    shutil.copytree(scene.undisturbed, tmp_path / "o.zarr")
    return tmp_path / "o.zarr"


def flip(file: Path) -> None:
    """Change one bit, and neither the size nor the time."""
    state, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_flipped_bit_is_found_and_repaired(
    scene: Any, start: Callable[..., Any], path: Path
) -> None:
    output = scene.output(path)
    flip(output.shards(21)[1])
    assert scene.predict(path).already_finished  # no size tells of it
    found = start("verify", str(path)).end()
    assert found.returncode == 3
    assert "level 0: 1 block damaged (number 21)" in found.stdout
    assert "Traceback" not in found.stderr
    before = output.versions()
    repaired = start("verify", str(path), "--repair", "--json").end()
    assert repaired.returncode == 0
    assert json.loads(repaired.stdout)["computed"] == 1
    assert output.rewritten(before) == {21}
    for level, numbers in MADE_FROM_21.items():
        assert output.rewritten(before, level) == numbers
    assert verify(path, client=scene.client).whole
    scene.check_whole(path)


def test_the_blocks_of_every_level_are_named(scene: Any, path: Path) -> None:
    output = scene.output(path)
    for level, number in (("0", 0), ("0", 39), ("1", 5), ("3", 2)):
        flip(output.shards(number, level)[0])
    output.shards(12, "1")[0].unlink()
    found = verify(path, client=scene.client)
    assert found.damaged == {"0": [0, 39], "1": [5, 12], "3": [2]}
    assert (found.whole, found.missing, found.problems) == (False, {}, [])
    before = output.versions()
    assert repair(path, client=scene.client).computed == 2
    assert output.rewritten(before) == {0, 39}
    # of level 1 also what was made from 0 and 39, of level 2 what was made from those, and so on
    expected = {"1": {0, 5, 12, 19}, "2": {0, 2, 6, 9}, "3": {0, 1, 2, 3, 4}, "4": {0, 1, 2}}
    for level, numbers in expected.items():
        assert output.rewritten(before, level) == numbers
    scene.check_whole(path)
    assert verify(path, client=scene.client).whole


def test_an_unfinished_output_is_not_whole_and_can_be_repaired(scene: Any, path: Path) -> None:
    output, ledger = scene.output(path), Ledger(str(path), "0.5")
    ledger.unmark("0", [30, 31])
    ledger.unmark("1", [4])
    ledger.update(complete=False)
    flip(output.shards(3)[0])
    found = verify(path, client=scene.client)
    assert (found.damaged, found.missing) == ({"0": [3]}, {"0": [30, 31], "1": [4]})
    assert not found.whole
    before = output.versions()
    assert repair(path, client=scene.client).computed == 3
    assert output.rewritten(before) == {3, 30, 31}
    assert output.rewritten(before, "1") == {3, 4}
    scene.check_whole(path)
