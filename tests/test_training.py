"""A whole training: finished, gone on with or refused, and what is kept of it."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

import n2v_scale
from n2v_scale import config, loop, step, survey
from n2v_scale.checkpoint import CheckpointFolder, read_checkpoint
from n2v_scale.errors import (
    ConfigError,
    DeviceMemoryError,
    InputError,
    OutputError,
    TrainingError,
)
from n2v_scale.job import decide
from n2v_scale.metrics_file import COLUMNS
from n2v_scale.model_card import read_card
from n2v_scale.progress import NoProgress

TINY = {
    "steps": 12, "filters": 2, "depth": 1, "batch": 2, "patch": (8, 16, 16), "validate_every": 4,
    "threads": 1,
}  # fmt: skip


class Notes(NoProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def noisy(seed: int = 0, shape=(16, 32, 48), offset: float = 200, spread: float = 40):
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    clean = offset + spread * np.sin(x / 5) * np.cos(y / 6 + z / 4)
    return (clean + np.random.default_rng(seed).normal(0, spread, shape)).astype("f4")


@pytest.fixture
def volume(tmp_path, write_volume):
    return write_volume(tmp_path / "v.zarr", noisy(), chunk=(8, 8, 16))


@pytest.fixture
def train(volume, tmp_path, client):
    """A function that trains, into ``tmp_path / name``."""

    def run(name: str = "m", *, volumes=None, progress=None, overwrite=False, **settings):
        return n2v_scale.train(
            volume if volumes is None else volumes,
            tmp_path / name,
            client=client,
            progress=progress,
            overwrite=overwrite,
            **(TINY | settings),
        )

    return run


@pytest.fixture
def steps(monkeypatch):
    """The steps that are taken, and what happens after them: ``steps.then[step] = action``."""
    found = SimpleNamespace(taken=[], then={})
    real = step.take_step

    def take(run, *arguments):
        loss = real(run, *arguments)
        found.taken.append(run.budget.step)
        action = found.then.pop(run.budget.step, None)
        changed = action() if action is not None else None
        return loss if changed is None else changed

    monkeypatch.setattr(loop, "take_step", take)
    return found


def weights_of(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def signalled(number: int):
    return lambda: signal.raise_signal(number)


def interrupted(train, steps, at: int, name: str = "m", /, **settings) -> None:
    """A training that is told to stop in the middle of a step."""
    steps.then[at] = signalled(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(name, **settings)


def kept(folder: Path) -> list[Path]:
    return CheckpointFolder.beside(folder).files()


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


# A model that is there


def test_the_same_call_on_a_finished_model_changes_nothing(train, tmp_path, steps):
    first = train()
    before, notes = contents(tmp_path / "m"), Notes()
    steps.taken.clear()
    again = train(progress=notes)
    assert notes.said == [f"{tmp_path / 'm'} is finished: nothing to do"]
    assert (steps.taken, contents(tmp_path / "m")) == ([], before)
    assert again.key == first.key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "v.zarr"]


def test_what_makes_no_difference_may_differ(train, tmp_path):
    train()
    notes = Notes()
    train(progress=notes, checkpoint_every="90s")
    assert "nothing to do" in notes.said[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 3e-3}, r"learning_rate: 0\.001, now 0\.003"),
        ({"seed": 5}, "seed: 0, now 5"),
        ({"filters": 3, "batch": 4}, "batch: 2, now 4; filters: 2, now 3"),
        ({"patch": (8, 16, 32)}, r"patch: \[8, 16, 16\], now \[8, 16, 32\]"),
        ({"kernel": (3, 3, 3)}, r"kernel: chosen from the volume, now \[3, 3, 3\]"),
        ({"steps": None, "minutes": 1.0}, r"minutes: .*, now 1\.0; steps: 12, now [a-z ]+"),
    ],
)
def test_a_finished_model_of_other_settings_is_refused(train, tmp_path, change, named):
    train(steps=12)
    before = contents(tmp_path / "m")
    with pytest.raises(OutputError, match=rf"{named}[;)].*use those.*another name.*--overwrite"):
        train(**change)
    assert contents(tmp_path / "m") == before


@pytest.mark.parametrize("change", [{"seed": 5}, {"steps": 20}])
def test_an_unfinished_model_of_other_settings_is_refused(train, tmp_path, steps, change):
    interrupted(train, steps, 3)
    before = kept(tmp_path / "m")
    with pytest.raises(OutputError, match=r"(seed|steps): \d+, now \d+\).*--overwrite"):
        train(**change)
    assert kept(tmp_path / "m") == before
    train()


def test_a_changed_volume_is_refused(train, tmp_path, steps):
    interrupted(train, steps, 3)
    array = zarr.open_array(tmp_path / "v.zarr" / "0")
    array[:8, :8, :16] = 7
    with pytest.raises(OutputError, match=r"the content of .*v\.zarr.* has changed"):
        train()
    train("other")
    array[:8, :8, :16] = 8
    with pytest.raises(OutputError, match="has changed"):
        train("other")


def test_another_volume_is_refused(train, tmp_path, write_volume):
    train()
    other = write_volume(tmp_path / "w.zarr", noisy(3), chunk=(8, 8, 16))
    with pytest.raises(OutputError, match=r"volumes: \[.*v\.zarr'\], now \[.*w\.zarr'\]"):
        train(volumes=other)


def test_overwrite_begins_afresh_and_drops_what_was_kept(train, tmp_path, steps):
    interrupted(train, steps, 3)
    steps.taken.clear()
    train(overwrite=True, seed=4)
    assert steps.taken == list(range(12))
    assert read_card(tmp_path / "m").training["seed"] == 4
    assert not CheckpointFolder.beside(tmp_path / "m").path.exists()
    train("fresh", seed=4)
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "fresh")


def test_the_old_model_stays_until_the_new_one_is_there(train, tmp_path, steps):
    train()
    before = contents(tmp_path / "m")
    interrupted(train, steps, 3, overwrite=True, seed=4)
    assert contents(tmp_path / "m") == before


def test_an_interrupted_training_with_overwrite_goes_on(train, tmp_path, steps):
    train()
    interrupted(train, steps, 3, overwrite=True, seed=4)
    steps.taken.clear()
    train(seed=4)
    assert steps.taken == list(range(4, 12))
    assert read_card(tmp_path / "m").training["seed"] == 4


def test_overwrite_keeps_the_lock(train, tmp_path, steps):
    interrupted(train, steps, 3)

    def second() -> None:
        with pytest.raises(OutputError, match=r"(?i)lock|another run|already"):
            train(seed=9)

    steps.then[5] = second
    train(overwrite=True)


def test_two_at_a_time_are_refused(train, steps):
    def second() -> None:
        with pytest.raises(OutputError, match=r"m\.training"):
            train()

    steps.then[5] = second
    train()
    assert steps.then == {}


def test_foreign_files_beside_the_checkpoints_stay(train, tmp_path):
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "thesis.txt").write_text("years of work")
    train()
    assert (tmp_path / "m.training" / "thesis.txt").read_text() == "years of work"


# Interrupted


@pytest.mark.parametrize("net", ["filter-unet", "unet"])
def test_an_interrupted_training_ends_with_the_same_bytes(train, tmp_path, steps, net):
    train("undisturbed", net=net)
    steps.taken.clear()
    interrupted(train, steps, 2, net=net)
    assert not (tmp_path / "m").exists()
    steps.then[7] = signalled(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(net=net)
    notes = Notes()
    train(net=net, progress=notes)
    assert any(text.startswith("going on from step 8,") for text in notes.said)
    assert steps.taken == list(range(12))  # none was taken twice
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")
    rows = [read_card(tmp_path / name).history for name in ("m", "undisturbed")]
    assert [strip(r) for r in rows[0]] == [strip(r) for r in rows[1]]
    assert not CheckpointFolder.beside(tmp_path / "m").path.exists()


TIMES = ("seconds", "patches_per_s", "waiting")


def strip(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in TIMES}


def test_a_training_that_is_told_to_save_goes_on(train, tmp_path, steps):
    train("undisturbed")
    steps.taken.clear()
    steps.then[3] = signalled(signal.SIGUSR1)
    found: list[Path] = []
    steps.then[4] = lambda: found.extend(kept(tmp_path / "m"))
    train()
    assert [p.name.split("-")[1] for p in found] == ["0000000004"]
    assert steps.taken == list(range(12))
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(train, tmp_path, steps, damage):
    train("undisturbed")
    steps.then[3] = signalled(signal.SIGUSR1)
    interrupted(train, steps, 8)
    newest = kept(tmp_path / "m")[-1]
    if damage == "truncated":
        os.truncate(newest, 1000)
    else:
        content = bytearray(newest.read_bytes())
        content[-100] ^= 16
        newest.write_bytes(content)
    steps.taken.clear()
    train()
    assert steps.taken == list(range(4, 12))
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


def test_what_is_lost_with_every_checkpoint_is_computed_again(train, tmp_path, steps):
    train("undisturbed")
    interrupted(train, steps, 8)
    for path in kept(tmp_path / "m"):
        os.truncate(path, 10)
    steps.taken.clear()
    train()
    assert steps.taken == list(range(12))
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


def test_a_masked_training_of_single_patches_ends_with_the_same_bytes(
    train, tmp_path, steps, write_volume
):
    """Regions without foreground are skipped; with one lane several are read ahead."""
    image = noisy(shape=(16, 64, 128))
    wide = write_volume(tmp_path / "w.zarr", image, chunk=(8, 8, 16))
    mask = np.zeros(image.shape, "u1")
    mask[:, :24, :32] = mask[:, 40:, 100:] = 1
    write_volume(tmp_path / "mask.zarr", mask, chunk=(8, 8, 16))
    chosen = {"batch": 1, "foreground": str(tmp_path / "mask.zarr"), "steps": 40, "volumes": wide}
    chosen["pool_memory"] = 2**20
    train("undisturbed", **chosen)
    for at in (9, 20):
        interrupted(train, steps, at, **chosen)
    train(**chosen)
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


@pytest.mark.parametrize("finished", [True, False])
def test_another_selection_of_the_same_volume_is_refused(
    train, tmp_path, steps, write_volume, finished
):
    image = np.stack([noisy(seed=1), noisy(seed=2)])
    write_volume(tmp_path / "two.zarr", image, "czyx", chunk=(1, 8, 16, 16))
    first, second = (n2v_scale.open_volume(tmp_path / "two.zarr", channels=[c]) for c in (0, 1))
    if finished:
        train(volumes=first)
    else:
        interrupted(train, steps, 4, volumes=first)
    with pytest.raises(OutputError, match=r"selected: .*'channels': \[0\].*'channels': \[1\]"):
        train(volumes=second)


def test_nan_that_is_met_late_can_be_left_out_without_beginning_again(train, tmp_path, steps):
    interrupted(train, steps, 4)
    train(on_nan="fill")
    train("undisturbed")
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


def test_a_sample_that_misses_boxes_does_not_go_on(train, tmp_path, steps, monkeypatch):
    interrupted(train, steps, 4)
    real = survey._sampled

    def torn(volume, region):
        sample = real(volume, region)
        empty = replace(sample.moments, voxels=0)
        return replace(sample, moments=empty, cells=None) if region.stratum == 0 else sample

    monkeypatch.setattr(survey, "_sampled", torn)
    with pytest.raises(InputError, match=r"sample of the volume is not what it was.*again"):
        train()
    monkeypatch.setattr(survey, "_sampled", real)
    train()


def test_a_mask_that_has_changed_is_refused(train, tmp_path, steps, write_volume):
    mask = np.ones((16, 64, 64), "u1")
    path = tmp_path / "mask.zarr"
    write_volume(path, mask, chunk=(8, 8, 16))
    image = write_volume(tmp_path / "w.zarr", noisy(shape=mask.shape), chunk=(8, 8, 16))
    chosen = {"foreground": str(path), "volumes": image}
    interrupted(train, steps, 4, **chosen)
    mask[:, 32:] = 0
    shutil.rmtree(path)
    write_volume(path, mask, chunk=(8, 8, 16))
    with pytest.raises(OutputError, match=r"foreground: .*mask\.zarr \w+, now .*mask\.zarr \w+\)"):
        train(**chosen)


def test_the_last_step_is_not_thrown_away_for_a_signal(train, tmp_path, steps):
    steps.then[11] = signalled(signal.SIGTERM)
    train()
    assert read_card(tmp_path / "m").training["steps_done"] == 12


def test_the_handlers_of_others_are_put_back(train):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    train(steps=1)
    after = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    assert after == before


def test_the_time_between_two_runs_does_not_count(train, tmp_path, steps, monkeypatch):
    """A budget of minutes goes on where it stood."""
    interrupted(train, steps, 3, steps=None, minutes=60.0)
    spent = read_checkpoint(kept(tmp_path / "m")[-1]).state["seconds"]
    seen = []
    real = loop.schedule
    monkeypatch.setattr(loop, "schedule", lambda s, share: seen.append(share) or real(s, share))
    interrupted(train, steps, 5, steps=None, minutes=60.0)
    assert spent / 3600 <= seen[0] < (spent + 60) / 3600
    assert read_checkpoint(kept(tmp_path / "m")[-1]).state["seconds"] > spent


# A device that is too small


@pytest.fixture
def memory(monkeypatch):
    """A device on which a forward pass of more than ``memory.patches`` patches does not fit."""
    device = SimpleNamespace(patches=1000, tried=[])

    def last(x):
        device.tried.append(len(x))
        if len(x) > device.patches:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return x

    monkeypatch.setattr(step, "_last", last)
    return device


LARGE = {"patch": (16, 16, 32), "batch": None, "steps": 3}  # 16 patches a step


def test_a_batch_that_does_not_fit_is_halved_once(train, tmp_path, memory):
    memory.patches, notes = 8, Notes()
    train(progress=notes, **LARGE)
    assert memory.tried == [16, 8, 8, 8]
    (said,) = [text for text in notes.said if "half the batch" in text]
    assert "16 patches of (16, 16, 32)" in said
    assert "Tried to allocate 2.00 GiB" in said
    assert "more" not in said
    assert said.endswith("trying with half the batch, 8")
    assert read_card(tmp_path / "m").training["batch"] == 8


def test_a_halved_batch_is_remembered(train, tmp_path, memory, steps):
    memory.patches = 8
    train("undisturbed", **LARGE)
    interrupted(train, steps, 1, **LARGE)
    memory.tried.clear()
    train(**LARGE)
    assert memory.tried == [8]
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


def test_half_a_batch_that_does_not_fit_is_refused(train, tmp_path, memory):
    memory.patches = 7
    with pytest.raises(DeviceMemoryError, match=r"8 patches of \(16, 16, 32\) does not fit the "
                       r"memory of cpu: .*2\.00 GiB.*--batch or --patch"):  # fmt: skip
        train(**LARGE)
    assert memory.tried == [16, 8]
    assert not (tmp_path / "m").exists()


def test_a_batch_that_was_asked_for_is_not_changed(train, memory):
    memory.patches = 7
    with pytest.raises(DeviceMemoryError, match="8 patches"):
        train(**(LARGE | {"batch": 8}))
    assert memory.tried == [8]


def test_a_backward_pass_that_does_not_fit_is_explained(train, monkeypatch):
    def backward(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(DeviceMemoryError, match="a step of 2 patches"):
        train()


def test_memory_that_runs_out_later_does_not_mix_batches(train, tmp_path, memory, steps):
    """What is kept of a batch is either gone on with as it is, or not at all."""
    memory.patches = 8
    train("half", **LARGE | {"steps": 6})
    memory.patches = 16
    steps.then[1] = signalled(signal.SIGUSR1)
    steps.then[3] = lambda: setattr(memory, "patches", 8)
    try:
        train(**LARGE | {"steps": 6})
    except DeviceMemoryError:
        assert kept(tmp_path / "m")
    else:
        assert weights_of(tmp_path / "m") == weights_of(tmp_path / "half")


def test_other_errors_keep_their_class(train, monkeypatch):
    def last(x):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(step, "_last", last)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train()


# A loss that is not finite


def test_a_loss_that_is_not_finite_names_what_was_kept(train, tmp_path, steps):
    steps.then[3] = signalled(signal.SIGUSR1)
    steps.then[6] = lambda: torch.tensor(float("nan"))
    with pytest.raises(TrainingError) as caught:
        train()
    (last,) = kept(tmp_path / "m")
    assert "step-0000000004-" in last.name
    text = str(caught.value)
    assert re.search(r"not finite at step \d+: .*lower --learning-rate than 0\.001", text)
    assert "--overwrite" in text
    assert str(last) in text
    assert not (tmp_path / "m").exists()


def test_a_state_that_is_not_finite_is_never_kept(train, tmp_path, steps):
    def both():
        signal.raise_signal(signal.SIGTERM)
        return torch.tensor(float("inf"))

    steps.then[3] = both
    with pytest.raises(TrainingError, match="not finite") as caught:
        train()
    assert kept(tmp_path / "m") == []
    assert "is kept" not in str(caught.value)


# When it ends


def test_a_loss_that_falls_no_more_ends_the_training(train, tmp_path):
    notes = Notes()
    train(steps=200, validate_every=2, patience=3, learning_rate=1e-30, progress=notes)
    card = read_card(tmp_path / "m")
    assert (card.training["steps_done"], card.training["stopped_early"]) == (6, True)
    assert notes.said[-1].startswith("stopped at step 6")


def test_patience_survives_an_interruption(train, tmp_path, steps):
    chosen = {"steps": 200, "validate_every": 2, "patience": 3, "learning_rate": 1e-30}
    interrupted(train, steps, 4, **chosen)
    train(**chosen)
    assert read_card(tmp_path / "m").training["steps_done"] == 6


def test_a_training_that_ends_with_its_steps_says_so(train, tmp_path):
    train()
    training = read_card(tmp_path / "m").training
    assert (training["steps_done"], training["stopped_early"]) == (12, False)


@pytest.mark.parametrize("preset", ["fast", "best"])
def test_a_preset_decides_the_steps(train, tmp_path, monkeypatch, preset):
    monkeypatch.setitem(config.PRESET_STEPS, preset, {"fast": 1, "best": 3}[preset])
    train(preset=preset, steps=None)
    training = read_card(tmp_path / "m").training
    assert training["steps_done"] == training["steps"] == config.PRESET_STEPS[preset]


# Several volumes


def test_volumes_have_normalisations_of_their_own(train, tmp_path, volume, write_volume):
    bright = noisy(1, (16, 48, 32), 5000, 300)
    other = write_volume(tmp_path / "w.zarr", bright, chunk=(8, 16, 16))
    stranger = write_volume(tmp_path / "s.zarr", noisy(2), chunk=(8, 8, 16))
    model = train(volumes=[volume, other])
    card = model.card
    assert card.trained_on.address == volume.address
    assert [t.address for t in card.also_trained_on] == [other.address]
    for given, image in ((volume, noisy()), (other, bright)):
        found = model.normalisation_for(given)
        assert found.offset[0] == pytest.approx(image.mean(), rel=1e-3)
        assert found.scale[0] == pytest.approx(image.std(), rel=1e-2)
    assert model.normalisation_for(stranger) is None
    assert train(volumes=[volume, other]).key == model.key
    with pytest.raises(OutputError, match="volumes: "):
        train(volumes=[volume])


def test_several_volumes_are_gone_on_with(train, tmp_path, volume, write_volume, steps):
    volumes = [volume, write_volume(tmp_path / "w.zarr", noisy(1, offset=900), chunk=(8, 8, 16))]
    train("undisturbed", volumes=volumes)
    interrupted(train, steps, 5, volumes=volumes)
    train(volumes=volumes)
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


def test_volumes_of_other_voxels_are_refused(train, tmp_path, volume, write_volume):
    coarse = write_volume(tmp_path / "w.zarr", noisy(1), chunk=(8, 8, 16), scale=(3.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"w\.zarr of \(3\.0, 1\.0, 1\.0\).*one model each"):
        train(volumes=[volume, coarse])


def test_a_mask_is_for_one_volume(train, tmp_path, volume, write_volume):
    other = write_volume(tmp_path / "w.zarr", noisy(1), chunk=(8, 8, 16))
    with pytest.raises(ConfigError, match="--foreground is for one volume"):
        train(volumes=[volume, other], foreground=str(tmp_path / "v.zarr"))


def test_no_volume_is_refused(train):
    with pytest.raises(InputError, match="no volume"):
        train(volumes=[])


# Another model's weights


def test_another_models_weights_are_begun_with(train, tmp_path):
    first = train("first", steps=20, filters=3)
    second = train("second", init=str(tmp_path / "first"), filters=None, steps=4)
    assert second.card.network_config == first.card.network_config
    begun = second.card.history[0]["held_out"]
    assert begun == pytest.approx(min(r["held_out"] for r in first.card.history), rel=1e-6)
    assert weights_of(tmp_path / "second") != b""
    assert second.card.training["init"] == str(tmp_path / "first")


def test_weights_that_nothing_improves_are_handed_on(train, tmp_path):
    train("first", steps=8)
    train("second", init=str(tmp_path / "first"), learning_rate=1e-30, steps=2)
    first, second = (load_file(tmp_path / n / "weights.safetensors") for n in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_training_from_another_model_is_gone_on_with(train, tmp_path, steps):
    train("first", steps=8)
    train("undisturbed", init=str(tmp_path / "first"))
    interrupted(train, steps, 5, init=str(tmp_path / "first"))
    train(init=str(tmp_path / "first"))
    assert weights_of(tmp_path / "m") == weights_of(tmp_path / "undisturbed")


def test_another_network_than_the_other_models_is_refused(train, tmp_path):
    train("first", steps=1)
    with pytest.raises(ConfigError, match="init"):
        train(init=str(tmp_path / "first"), net="unet")


def test_a_volume_smaller_than_the_other_models_patch_is_refused(train, tmp_path, write_volume):
    train("first", steps=1, patch=(16, 32, 32))
    small = write_volume(tmp_path / "s.zarr", noisy(0, (8, 24, 24)), chunk=(8, 8, 8))
    with pytest.raises(InputError, match=r"smaller than a patch of \(16, 32, 32\)"):
        train(volumes=small, init=str(tmp_path / "first"), patch=None, steps=1)


def test_a_model_to_begin_with_must_be_there(train, tmp_path):
    with pytest.raises(n2v_scale.N2VScaleError, match="nowhere"):
        train(init=str(tmp_path / "nowhere"))


# Metrics


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        read = csv.DictReader(file)
        assert tuple(read.fieldnames) == COLUMNS
        return list(read)


def test_the_model_holds_a_row_of_metrics_a_look(train, tmp_path):
    train()
    rows, history = rows_of(tmp_path / "m"), read_card(tmp_path / "m").history
    assert [float(row["step"]) for row in rows] == [0, 4, 8, 12]
    for row, known in zip(rows, history, strict=True):
        assert {n: float(row[n]) for n in known} == known
    assert all(float(row["patches_per_s"]) > 0 for row in rows[1:])
    assert all(0 <= float(row["waiting"]) <= 1 for row in rows[1:])
    assert all(float(row["learning_rate"]) > 0 for row in rows[1:])


def test_metrics_are_there_while_it_trains(train, tmp_path, steps):
    interrupted(train, steps, 5)
    folder = CheckpointFolder.beside(tmp_path / "m").path
    assert [float(row["step"]) for row in rows_of(folder)] == [0, 4]


def test_each_look_is_one_row_after_an_interruption(train, tmp_path, steps):
    interrupted(train, steps, 9)
    train()
    assert [float(row["step"]) for row in rows_of(tmp_path / "m")] == [0, 4, 8, 12]


def test_a_row_is_whole_after_an_interruption(train, tmp_path, steps):
    interrupted(train, steps, 5)
    (folder,) = [CheckpointFolder.beside(tmp_path / "m").path]
    before = rows_of(folder)[1]
    train()
    assert rows_of(tmp_path / "m")[1] == before


def test_a_finished_model_is_only_a_model(train, tmp_path):
    train()
    names = sorted(p.name for p in (tmp_path / "m").iterdir())
    assert names == ["metrics.csv", "model.json", "weights.safetensors"]
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    assert n2v_scale.load_model(tmp_path / "copy").key == n2v_scale.load_model(tmp_path / "m").key


def test_a_batch_that_was_begun_is_shared_by_any_number_that_divides_it(
    train, tmp_path, steps, volume
):
    interrupted(train, steps, 4, batch=4)
    settings = config.TrainSettings(**(TINY | {"batch": 4})).resolved()
    given = ([volume], tmp_path / "m", settings, False, 0.0)
    assert [decide(*given, n).design.batch for n in (1, 2, 4)] == [4, 2, 1]
    with pytest.raises(ConfigError, match=r"4 patches a step .* 3 processes cannot share"):
        decide(*given, 3)
