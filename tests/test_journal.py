"""The journal keeps what blocks and runs took, and survives what is torn."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import n2v_scale
from n2v_scale.errors import IncompleteError
from n2v_scale.journal import MOST_FAILED, Journal
from n2v_scale.ledger import LEDGER_FOLDER, SEGMENT


@pytest.fixture
def journal(tmp_path):
    return Journal(str(tmp_path), "0")


def test_seconds_are_kept_by_block_across_segments(journal):
    journal.add_seconds({1: 0.5, SEGMENT + 2: 2.0})
    journal.add_seconds({3: 1.5})
    found = journal.seconds(SEGMENT + 10)
    assert len(found) == SEGMENT + 10
    assert {n: found[n] for n in np.flatnonzero(np.isfinite(found))} == {
        1: 0.5,
        3: 1.5,
        SEGMENT + 2: 2.0,
    }


def test_nothing_is_known_of_what_is_torn(journal, tmp_path):
    journal.add_seconds({1: 0.5})
    journal.add_run({"ended": 1.0}, {4: "why"})
    folder = tmp_path / "0" / LEDGER_FOLDER / "journal"
    (folder / "000000").write_bytes(b"torn")
    (folder / "runs.json").write_bytes(b'{"runs": [')
    assert np.isnan(journal.seconds(5)).all()
    assert journal.runs() == []
    assert journal.failed() == {}
    journal.add_run({"ended": 2.0}, {})
    assert journal.runs() == [{"ended": 2.0}]


def test_no_journal_grows_without_end(journal, monkeypatch):
    monkeypatch.setattr("n2v_scale.journal.MOST_RUNS", 3)
    for n in range(5):
        journal.add_run({"ended": float(n)}, {})
    assert [run["ended"] for run in journal.runs()] == [2, 3, 4]
    journal.add_run({}, dict.fromkeys(range(MOST_FAILED + 9), "why"))
    assert len(journal.failed()) == MOST_FAILED


OPTIONS = {
    "block": (16, 16, 16),
    "tile": (8, 8, 8),
    "chunk": (8, 8, 8),
    "shard": (16, 16, 16),
    "device": "cpu",
    "threads": 1,
    "pyramid": False,
}


def test_runs_leave_their_marks(tmp_path, write_volume, tiny_model, client):
    values = np.random.default_rng(0).normal(100, 9, (16, 48, 48)).astype("u2")
    volume = write_volume(tmp_path / "v.zarr", values, chunk=(16, 16, 16))
    output = tmp_path / "o.zarr"
    journal = Journal(str(output), "0")

    def predict(**more):
        n2v_scale.predict(volume, tiny_model, output, client=client, **OPTIONS, **more)

    predict(only=[0, 1], codec="zstd")
    assert np.flatnonzero(np.isfinite(journal.seconds(9))).tolist() == [0, 1]
    assert (journal.seconds(9)[:2] > 0).all()
    chunk = tmp_path / "v.zarr/0/c/0/2/2"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-9])
    with pytest.raises(IncompleteError):
        predict(only=[4, 8])
    assert set(journal.failed()) == {4, 8}
    assert "v.zarr" in journal.failed()[8]
    with pytest.raises(IncompleteError):
        predict(only=[2, 5])
    assert set(journal.failed()) == {4, 5, 8}
    chunk.write_bytes(whole)
    predict(only=[4])
    assert set(journal.failed()) == {5, 8}
    predict()
    assert journal.failed() == {}
    assert [run["computed"] for run in journal.runs()] == [2, 0, 1, 1, 5]
    assert journal.runs()[0]["asked"]["codec"] == "zstd"
    assert journal.runs()[0]["asked"]["block"] == [16, 16, 16]
    assert all(run["seconds"] > 0 and run["ended"] > 1.7e9 for run in journal.runs())
    assert np.isfinite(journal.seconds(9)).all()
    n2v_scale.predict(volume, tiny_model, output, client=client, overwrite=True, **OPTIONS)
    assert len(journal.runs()) == 1


def test_a_run_that_is_stopped_is_in_it_too(tmp_path, write_volume, tiny_model, client):
    values = np.random.default_rng(0).normal(100, 9, (16, 48, 48)).astype("u2")
    volume = write_volume(tmp_path / "v.zarr", values)

    class Stop:
        def advance(self, *_):
            raise KeyboardInterrupt

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    class Progress:
        def say(self, *_):
            pass

        def step(self, *_):
            return Stop()

    output = tmp_path / "o.zarr"
    with pytest.raises(KeyboardInterrupt):
        n2v_scale.predict(volume, tiny_model, output, client=client, progress=Progress(), **OPTIONS)
    (run,) = Journal(str(output), "0").runs()
    assert run["computed"] == 1
    assert np.isfinite(Journal(str(output), "0").seconds(9)).sum() == 1
    assert zarr.open_array(str(output), path="0", mode="r").shape == (16, 48, 48)
