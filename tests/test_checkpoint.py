"""The state of an unfinished training: whole or not there, and never code."""

from __future__ import annotations

import logging
import os
import stat

import pytest
import torch
from safetensors import safe_open
from torch import nn

from n2v_scale.checkpoint import (
    KEPT,
    Checkpoint,
    CheckpointFolder,
    prefixed,
    read_checkpoint,
    under,
)
from n2v_scale.errors import OutputError
from n2v_scale.weights import Weights

STATE = {"step": 7, "seconds": 0.1 + 0.2, "history": [{"step": 0.0, "held_out": 1 / 3}]}


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder.beside(tmp_path / "model.n2v")


def checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    tensors = {"a.b": torch.rand(3, 4, generator=generator), "n": torch.tensor(step)}
    return Checkpoint(tensors, STATE | {"step": step})


def latest(folder: CheckpointFolder) -> Checkpoint:
    """The newest that is whole."""
    return read_checkpoint(folder.latest())


def steps(folder: CheckpointFolder) -> list[int]:
    return [int(path.name.split("-")[1]) for path in folder.files()]


def truncate(path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_what_is_written_comes_back_to_the_bit(folder):
    written = checkpoint(7)
    path = folder.write(7, written)
    found = latest(folder)
    assert folder.files() == [path]
    assert found.tensors.keys() == written.tensors.keys()
    for name, tensor in written.tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    assert {name: found.state[name] for name in STATE} == STATE


def test_it_lies_beside_the_model(folder, tmp_path):
    assert folder.path == tmp_path / "model.n2v.training"
    assert folder.latest() is None
    assert folder.files() == []
    assert not folder.path.exists()


def test_any_memory_layout_is_kept_by_value(folder):
    tensor = torch.rand(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    folder.write(1, Checkpoint({"t": tensor, "s": tensor.transpose(0, 1)}, {}))
    assert torch.equal(latest(folder).tensors["t"], tensor)
    assert torch.equal(latest(folder).tensors["s"], tensor.transpose(0, 1))


def test_only_the_last_are_kept(folder):
    for step in (1, 2, 10, 100, 2000):
        folder.write(step, checkpoint(step))
    assert steps(folder) == [100, 2000]
    assert len(folder.files()) == KEPT
    assert sorted(folder.path.iterdir()) == folder.files()


@pytest.mark.parametrize("size", [0, 5, 100])
def test_of_a_truncated_one_the_one_before_is_used(folder, size, caplog):
    folder.write(1, checkpoint(1))
    newest = folder.write(2, checkpoint(2))
    os.truncate(newest, size)
    with caplog.at_level(logging.WARNING):
        found = latest(folder)
    assert found.state["step"] == 1
    assert torch.equal(found.tensors["a.b"], checkpoint(1).tensors["a.b"])
    assert f"{newest} is damaged" in caplog.text


@pytest.mark.parametrize("place", ["first", "header", "last"])
def test_one_flipped_bit_is_noticed(folder, place):
    folder.write(1, checkpoint(1))
    newest = folder.write(2, checkpoint(2))
    flip(newest, {"first": 0, "header": 40, "last": newest.stat().st_size - 1}[place])
    assert latest(folder).state["step"] == 1


def test_a_file_under_the_name_of_another_is_noticed(folder):
    first, second = folder.write(1, checkpoint(1)), folder.write(2, checkpoint(2))
    second.write_bytes(first.read_bytes())
    assert latest(folder).state["step"] == 1


def test_when_all_are_damaged_there_is_none(folder):
    for step in (1, 2):
        truncate(folder.write(step, checkpoint(step)))
    assert folder.latest() is None


def test_after_damage_the_next_checkpoint_stays(folder):
    for step in (50, 60):
        truncate(folder.write(step, checkpoint(step)))
    folder.write(3, checkpoint(3))
    assert latest(folder).state["step"] == 3


def test_what_a_kill_left_half_written_is_ignored(folder):
    folder.write(1, checkpoint(1))
    (folder.path / ".4711.partial").write_bytes(b"half")
    (folder.path / "step-0000000009-00.safetensors").write_bytes(b"no name of ours")
    assert latest(folder).state["step"] == 1
    assert steps(folder) == [1]
    folder.write(2, checkpoint(2))
    assert latest(folder).state["step"] == 2


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch):
    folder.write(1, checkpoint(1))

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written.*No space left"):
        folder.write(2, checkpoint(2))
    assert [p.name for p in folder.path.iterdir()] == [p.name for p in folder.files()]
    assert latest(folder).state["step"] == 1


def test_nothing_is_pickled(folder):
    path = folder.write(1, checkpoint(1))
    with safe_open(path, framework="pt") as opened:
        assert set(opened.keys()) == {"a.b", "n"}
        assert set(opened.metadata()) == {"state"}
    assert b"torch" not in path.read_bytes()
    assert not path.stat().st_mode & stat.S_IXUSR


def test_what_is_no_json_is_refused_when_it_is_written(folder):
    with pytest.raises(TypeError, match="JSON"):
        folder.write(1, Checkpoint({}, {"object": object()}))
    assert folder.files() == []


def test_it_is_gone_when_the_training_is_finished(folder):
    folder.write(1, checkpoint(1))
    folder.clear()
    assert list(folder.path.iterdir()) == []
    folder.clear()


def test_names_are_found_again_under_their_prefix():
    tensors = {"a": torch.ones(2), "b.c": torch.zeros(1)}
    named = {**prefixed("x", tensors), **prefixed("xy", {"a": torch.full((3,), 5.0)})}
    found = under("x", named)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert found["a"].data_ptr() != tensors["a"].data_ptr()


def made(seed: int) -> Weights:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv3d(1, 3, 3), nn.BatchNorm3d(3), nn.Conv3d(3, 1, 1))
    return Weights(network, 1e-2)


def advance(weights: Weights, steps: range) -> None:
    for step in steps:
        x = torch.rand(2, 1, 5, 5, 5, generator=torch.Generator().manual_seed(step))
        weights.optimizer.zero_grad()
        weights.network(x).square().mean().backward()
        weights.optimizer.step()
        weights.follow(step)
        if step == 2:
            weights.keep_best()


def test_training_goes_on_from_restored_weights_to_the_bit(folder):
    """Weights, average, best, moments and the statistics of batch normalisation."""
    with torch.random.fork_rng(devices=[]):
        through, resumed = made(0), made(1)
    advance(through, range(4))
    folder.write(4, Checkpoint(through.tensors(), {}))
    resumed.restore(latest(folder).tensors)
    for weights in (through, resumed):
        advance(weights, range(4, 9))
    expected, found = through.tensors(), resumed.tensors()
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert not torch.equal(expected["best.0.weight"], expected["average.0.weight"])
