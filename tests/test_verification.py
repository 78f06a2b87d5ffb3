"""Whether an output is whole, in words and in JSON; what is damaged is found, and mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client

from n2v_scale import verification
from n2v_scale.api import import_volume
from n2v_scale.config import PredictSettings
from n2v_scale.errors import IncompleteError, InputError, OutputError
from n2v_scale.execution import Summary, run_plan
from n2v_scale.io.open import open_volume
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume import Volume
from n2v_scale.ledger import Ledger
from n2v_scale.memory import Budget
from n2v_scale.plan import Plan
from n2v_scale.prediction import make_copy_plan
from n2v_scale.verification import (
    LISTED,
    UNFINISHED,
    Verification,
    pyramid_of,
    repair_output,
    stored_plan,
    verify_output,
)

NO_OPTIONS = StorageOptions()

# In words


def found(**wrong: Any) -> Verification:
    whole: dict[str, Any] = {"missing": {}, "damaged": {}, "problems": []}
    return Verification("/o.zarr", 40, **{**whole, **wrong})


def test_nothing_wrong_is_whole() -> None:
    assert found().whole
    assert found().text() == "/o.zarr: whole, 40 blocks and the lower resolutions are as written"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"problems": [UNFINISHED]}, "  it was not finished"),
        ({"missing": {"0": [3]}}, "  level 0: 1 block missing (number 3)"),
        ({"damaged": {"2": [0, 7]}}, "  level 2: 2 blocks damaged (number 0, 7)"),
    ],
)
def test_what_is_wrong_is_said(wrong: dict[str, Any], line: str) -> None:
    assert not found(**wrong).whole
    assert found(**wrong).text() == f"/o.zarr: not whole\n{line}"


def test_of_many_blocks_the_first_are_listed() -> None:
    text = found(missing={"0": list(range(LISTED + 13))}).text()
    assert "33 blocks missing (number 0, 1, 2, 3" in text
    assert text.endswith("18, 19 and 13 more)")


def test_everything_that_is_wrong_is_said() -> None:
    text = found(
        problems=["a", "b"], missing={"0": [1], "1": [2]}, damaged={"1": [3], "2": [4]}
    ).text()
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:]] == [
        *("a", "b", "level 0", "level 1", "level 1", "level 2")
    ]


def test_json_has_all_of_it() -> None:
    one = found(missing={"0": [1]}, problems=[UNFINISHED])
    content = json.loads(json.dumps(one.to_dict()))
    assert content.pop("whole") is False
    assert Verification(**content) == one


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"missing": {"1": [0]}, "problems": [UNFINISHED]}, "pyramid"),
        ({"missing": {"0": [0], "1": [0]}, "problems": [UNFINISHED]}, "--repair"),
        ({"missing": {"1": [0]}, "damaged": {"0": [0]}}, "--repair"),
        ({"damaged": {"1": [0]}}, "--repair"),
        ({"problems": ["the metadata of level 0 is damaged"]}, "--repair"),
    ],
)
def test_the_cure_fits(wrong: dict[str, Any], word: str) -> None:
    assert word in found(**wrong).cure
    assert ("pyramid" in found(**wrong).cure) == (word == "pyramid")


# Of outputs

SETTINGS: dict[str, Any] = {"chunk": (8, 8, 8), "shard": (8, 16, 16)}


@dataclass(frozen=True)
class Written:
    """An output, and what looks at it."""

    volume: Volume
    store: Path
    client: Client
    version: str = "0.5"

    @property
    def ledger(self) -> Ledger:
        return Ledger(str(self.store), self.version)

    def shard(self, y: int, x: int, level: int = 0) -> Path:
        return self.store / str(level) / "c" / "0" / str(y) / str(x)

    def verify(self) -> Verification:
        return verify_output(str(self.store), storage=NO_OPTIONS, client=self.client)

    def repair(self) -> Summary:
        return repair_output(str(self.store), storage=NO_OPTIONS, client=self.client)

    def pyramid(self) -> Summary:
        return pyramid_of(str(self.store), storage=NO_OPTIONS, client=self.client)

    def files(self) -> dict[str, bytes]:
        """All that is in the output, but for the journal, which tells of times."""
        files = (path for path in self.store.rglob("*") if path.is_file())
        paths = [path for path in files if "journal" not in path.parts]
        return {str(path.relative_to(self.store)): path.read_bytes() for path in paths}


@pytest.fixture
def volume(tmp_path: Path, write_volume: Callable[..., Volume]) -> Volume:
    values = np.random.default_rng(0).integers(1, 99, (8, 32, 64)).astype(np.uint16)
    return write_volume(tmp_path / "v.zarr", values, chunk=(8, 16, 16))


@pytest.fixture
def written(tmp_path: Path, volume: Volume, client: Client) -> Written:
    import_volume(volume, tmp_path / "o.zarr", client=client, **SETTINGS)
    return Written(volume, tmp_path / "o.zarr", client)


@pytest.fixture
def begun(tmp_path: Path, volume: Volume, client: Client) -> Callable[..., Written]:
    """An output of which only some blocks were wanted."""

    def make(**options: Any) -> Written:
        settings = PredictSettings(**SETTINGS)
        plan = make_copy_plan(volume, tmp_path / "o.zarr", settings)
        run_plan(plan, settings, Budget(), client=client, **options)
        return Written(volume, tmp_path / "o.zarr", client)

    return make


def test_a_finished_output_is_whole_and_stays_as_it_is(written: Written) -> None:
    before = written.files()
    assert written.verify() == Verification(str(written.store), 8, {}, {}, [])
    assert written.files() == before


def test_neither_input_nor_model_is_needed(tmp_path: Path, written: Written) -> None:
    Path(written.volume.address).rename(tmp_path / "elsewhere")
    assert written.verify().whole


def test_an_output_that_was_moved(tmp_path: Path, written: Written) -> None:
    written.store.rename(tmp_path / "moved.zarr")
    moved = Written(written.volume, tmp_path / "moved.zarr", written.client)
    assert moved.verify().whole
    moved.shard(0, 0).write_bytes(b"torn")
    assert moved.verify().damaged == {"0": [0]}


def test_an_output_without_its_pyramid(begun: Callable[..., Written]) -> None:
    one = begun(pyramid=False)
    result = one.verify()
    assert "0" not in result.missing
    assert result.missing["1"] == [0, 1]
    assert (result.damaged, result.problems) == ({}, [UNFINISHED])
    assert "pyramid" in result.cure


def test_an_output_that_is_not_finished(begun: Callable[..., Written]) -> None:
    result = begun(only=[1, 2, 3]).verify()
    assert result.missing["0"] == [0, 4, 5, 6, 7]
    assert result.problems == [UNFINISHED]
    assert "--repair" in result.cure


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_damaged_shard_is_found_and_mended(written: Written, content: bytes | None) -> None:
    before = written.files()
    shard = written.shard(1, 2)
    if content is None:
        shard.unlink()
    else:
        shard.write_bytes(content)
    written.shard(0, 1, level=1).unlink()
    result = written.verify()
    assert result.damaged == {"0": [6], "1": [1]}
    assert (result.missing, result.problems) == ({}, [])
    summary = written.repair()
    assert (summary.computed, summary.missing) == (1, 0)
    assert written.verify().whole
    assert data_of(written.files()) == data_of(before)


def test_a_flipped_bit_is_found_and_mended(written: Written) -> None:
    before = written.files()
    content = bytearray(written.shard(0, 3).read_bytes())
    content[100] ^= 4
    written.shard(0, 3).write_bytes(content)
    assert written.verify().damaged == {"0": [3]}
    assert written.repair().computed == 1
    assert data_of(written.files()) == data_of(before)


def data_of(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without what says when and in which order."""
    return {name: content for name, content in files.items() if "segments" not in name}


def test_repairing_what_is_whole_does_nothing(written: Written) -> None:
    before = written.files()
    summary = written.repair()
    assert (summary.already_finished, summary.computed) == (True, 0)
    assert written.files() == before


def test_repairing_goes_on_with_what_is_missing(begun: Callable[..., Written]) -> None:
    one = begun(only=[1, 2, 3])
    summary = one.repair()
    assert (summary.computed, summary.missing) == (5, 0)
    assert one.verify().whole


# Metadata

DOCUMENTS = {
    "0.5": {"zarr.json": "the image", "0/zarr.json": "level 0", "1/zarr.json": "level 1"},
    "0.4": {
        ".zattrs": "the image",
        ".zgroup": "the image",
        "0/.zarray": "level 0",
        "1/.zarray": "level 1",
    },
}


@pytest.mark.parametrize("content", [b"", b'{"zarr_form', None])
@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in DOCUMENTS for name in DOCUMENTS[version]]
)
def test_damaged_metadata_is_found_and_mended(
    tmp_path: Path, volume: Volume, client: Client, version: str, name: str, content: bytes | None
) -> None:
    """A power cut leaves empty files behind; an image that cannot be opened is not whole."""
    import_volume(volume, tmp_path / "o.zarr", client=client, ome_version=version, **SETTINGS)
    one = Written(volume, tmp_path / "o.zarr", client, version)
    before = one.files()
    if content is None:
        (one.store / name).unlink()
    else:
        (one.store / name).write_bytes(content)
    result = one.verify()
    assert result.problems == [f"the metadata of {DOCUMENTS[version][name]} is damaged"]
    assert (result.missing, result.damaged) == ({}, {})
    assert one.repair().computed == 0
    assert one.verify().whole
    assert one.files() == before


def test_an_array_of_another_layout_is_damaged(written: Written) -> None:
    zarr.create_array(
        str(written.store / "1"), shape=(4, 4, 4), chunks=(4, 4, 4), dtype="u2", overwrite=True
    )
    assert "the metadata of level 1 is damaged" in written.verify().problems


def test_what_others_add_to_the_metadata_is_no_damage(written: Written) -> None:
    group = zarr.open_group(str(written.store), mode="r+")
    ome: Any = group.attrs["ome"]
    ome["multiscales"][0]["name"] = "the left kidney"
    group.attrs.update({"ome": ome, "mine": 1})
    assert written.verify().whole


def test_an_image_that_no_longer_lists_a_level_is_damaged(written: Written) -> None:
    group = zarr.open_group(str(written.store), mode="r+")
    ome: Any = group.attrs["ome"]
    del ome["multiscales"][0]["datasets"][-1]
    group.attrs["ome"] = ome
    assert written.verify().problems == ["the metadata of the image is damaged"]


def test_a_store_that_fails_is_no_damage(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is deleted because a network is down."""

    def fail(spec: Any) -> None:
        raise OutputError("the store does not answer")

    monkeypatch.setattr(verification, "open_output", fail)
    with pytest.raises(OutputError, match="does not answer"):
        written.repair()
    assert (written.store / "0" / "zarr.json").exists()


# Records


def test_a_record_that_was_changed_is_told(written: Written) -> None:
    record = written.ledger.record() or {}
    record["plan"]["threads"] = 99
    written.ledger.write_record(record)
    assert written.verify().problems == ["its record was changed"]


def test_what_is_no_output_is_refused(tmp_path: Path, volume: Volume) -> None:
    for place in (tmp_path / "none.zarr", Path(volume.address)):
        with pytest.raises(OutputError, match="is no output of n2v-scale"):
            stored_plan(str(place), NO_OPTIONS)


@pytest.mark.parametrize("change", ["format", "volume"])
def test_an_output_of_another_version_is_refused(written: Written, change: str) -> None:
    record = written.ledger.record() or {}
    if change == "format":
        record["plan"]["format"] = 99
    else:
        del record["volume"]
    written.ledger.write_record({**record, "package_version": "7.0"})
    with pytest.raises(OutputError, match=r"was written by n2v-scale 7\.0"):
        stored_plan(str(written.store), NO_OPTIONS)


def test_the_plan_is_that_of_the_run(written: Written) -> None:
    plan = make_copy_plan(written.volume, written.store, PredictSettings(**SETTINGS))
    found_plan: Plan = stored_plan(str(written.store), NO_OPTIONS)
    assert found_plan == plan


def test_what_a_killed_driver_did_not_fold_is_there(begun: Callable[..., Written]) -> None:
    """Its workers marked it: nothing is missing, and what is damaged is found."""
    one = begun(pyramid=False)
    loosen(one.ledger)
    assert one.verify().missing.get("0", []) == []
    one.shard(0, 1).write_bytes(b"")
    assert one.verify().damaged == {"0": [1]}
    assert one.verify().missing.get("0", []) == []


def loosen(ledger: Ledger) -> None:
    """As if the driver had died before it folded anything."""
    markers = list(ledger.markers("0", 8))
    ledger.unmark("0", [marker.number for marker in markers])
    for marker in markers:
        ledger.mark("0", marker)


# The pyramid alone


def test_neither_pyramid_nor_its_repair_need_the_input(begun: Callable[..., Written]) -> None:
    one = begun(pyramid=False)
    shutil.rmtree(one.volume.address)
    assert one.pyramid().missing == 0
    assert one.verify().whole
    one.shard(0, 0, level=1).write_bytes(b"")
    assert one.verify().damaged == {"1": [0]}
    assert one.repair().computed == 0
    assert one.verify().whole


def test_blocks_of_the_full_resolution_need_the_input(written: Written) -> None:
    shutil.rmtree(written.volume.address)
    written.shard(0, 0).write_bytes(b"")
    with pytest.raises(InputError):
        written.repair()
    assert not written.verify().whole


def test_the_pyramid_is_made_later(
    tmp_path: Path, begun: Callable[..., Written], client: Client
) -> None:
    one = begun(pyramid=False)
    assert open_volume(one.store).levels[1:] == ()
    summary = one.pyramid()
    assert (summary.computed, summary.missing) == (0, 0)
    assert one.verify().whole
    import_volume(one.volume, tmp_path / "at_once.zarr", client=client, **SETTINGS)
    at_once = Written(one.volume, tmp_path / "at_once.zarr", client)
    levels = [
        {n: c for n, c in w.files().items() if n[0] in "1234" and "/c/" in n}
        for w in (one, at_once)
    ]
    assert levels[0] == levels[1] != {}
    assert len(open_volume(one.store).levels) > 1


def test_a_pyramid_needs_the_full_resolution(begun: Callable[..., Written]) -> None:
    one = begun(only=[0, 1], pyramid=False)
    with pytest.raises(IncompleteError, match="6 of 8 blocks of the full resolution are missing"):
        one.pyramid()
    assert one.verify().missing["0"] == [2, 3, 4, 5, 6, 7]


def test_a_pyramid_that_is_there_is_left_alone(written: Written) -> None:
    before = written.files()
    assert written.pyramid().already_finished
    assert written.files() == before
