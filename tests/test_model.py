"""The model folder: complete, reproducible, checked, and never code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from n2v_scale.denoiser import Normalisation, OpenOptions, Region, open_denoiser
from n2v_scale.errors import ModelError, OutputError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.model import Model, check_is_model, load_model, save_model
from n2v_scale.model_card import read_card

WHOLE = Box.whole((6, 10, 12))


@pytest.fixture
def folder(tmp_path: Path, write_model: Callable[..., Path]) -> Path:
    return write_model(tmp_path / "model")


def estimate(model: Model) -> np.ndarray:
    values = np.random.default_rng(0).normal(100, 10, WHOLE.shape).astype(np.float32)
    return model.denoise(values, Region(0, 0, WHOLE, WHOLE.shape)).mean


def edit(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | changes))


def test_what_is_loaded_is_what_was_saved(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    copy = tmp_path / "copy"
    save_model(copy, model.card, model.network.state_dict())
    again = load_model(copy)
    assert again.card == model.card
    assert again.key == model.key
    for name, value in model.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
    assert estimate(model).std() > 0
    assert estimate(again).tobytes() == estimate(model).tobytes()


def test_a_model_is_two_files_and_no_metadata(folder: Path) -> None:
    assert sorted(f.name for f in folder.iterdir()) == ["model.json", "weights.safetensors"]
    with safe_open(folder / "weights.safetensors", "pt") as file:
        assert file.metadata() is None
    assert [f.name for f in folder.parent.iterdir()] == ["model"]


def test_saved_twice_it_is_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    weights = model.network.state_dict()
    save_model(tmp_path / "again", model.card, dict(reversed(list(weights.items()))))
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_key_follows_weights_network_and_method(
    folder: Path, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    keys = {Model(folder).key, Model(write_model(tmp_path / "b", seed=1)).key}
    assert len(keys) == 2
    edit(folder, method_config={"voxels_per_site": 99})
    keys.add(Model(folder).key)
    assert len(keys) == 3
    before = Model(folder).key
    edit(folder, history=[{"step": 1.0}], training={"seed": 7}, package_version="9")
    assert Model(folder).key == before


def test_opening_reads_no_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    model = open_denoiser(str(folder))
    assert model.stride == (2, 2, 2)
    assert model.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 and this version reads up to 1: use a newer"),
        ({"kind": "diffusion"}, "kind 'diffusion'.*a newer n2v-scale may open it"),
        ({"stride": [2, 2]}, "not a valid model card"),
        ({"stride": None}, "not a valid model card"),
        ({"surprise": 1}, "not a valid model card"),
        ({"trained_on": {}}, "not a valid model card"),
    ],
)
def test_a_card_that_does_not_fit_is_an_error(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    edit(folder, **change)
    with pytest.raises(ModelError, match=message):
        open_denoiser(str(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "\0", '{"format": 1}'])
def test_a_broken_card_is_an_error(folder: Path, text: str) -> None:
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError, match="not a valid model card"):
        load_model(folder)


def test_a_card_of_other_bytes_is_an_error(folder: Path) -> None:
    (folder / "model.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="not a valid model card"):
        load_model(folder)


def test_no_model_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it is not a folder; `n2v-scale train"):
        load_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"it holds no model\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"network": "transformer"},
        {"network_config": {"depth": "deep"}},
        {"network_config": {"depth": 2, "filters": 2}},
        {"method": "magic"},
        {"method_config": {"voxels_per_site": "many"}},
    ],
)
def test_a_network_or_method_that_is_unknown_is_an_error(
    folder: Path, change: dict[str, Any]
) -> None:
    edit(folder, **change)
    with pytest.raises(ModelError):
        estimate(load_model(folder))


def test_missing_weights_are_an_error(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors cannot be loaded"):
        estimate(load_model(folder))


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_weights_are_an_error(folder: Path, keep: int) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="cannot be loaded"):
        estimate(load_model(folder))


def test_weights_of_another_training_are_an_error(
    folder: Path, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    other = write_model(tmp_path / "other", seed=5)
    (folder / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"is not the file that model\.json describes"):
        estimate(load_model(folder))


def test_one_flipped_bit_is_an_error(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is not the file"):
        estimate(load_model(folder))


@pytest.mark.parametrize("how", ["shape", "missing", "more"])
def test_weights_of_another_shape_are_an_error(folder: Path, how: str) -> None:
    path = folder / "weights.safetensors"
    weights = load_file(path)
    first = sorted(weights)[0]
    if how == "shape":
        weights[first] = weights[first].new_zeros(3, 3)
    elif how == "missing":
        del weights[first]
    else:
        weights["more"] = torch.zeros(1)
    save_file(weights, path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        estimate(load_model(folder))


class Trap:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
@pytest.mark.parametrize("with_torch", [False, True])
def test_nothing_is_unpickled(folder: Path, tmp_path: Path, name: str, with_torch: bool) -> None:
    trap = Trap(tmp_path / "trace")
    if with_torch:
        torch.save({"weights": trap}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(trap))
    for more in ("weights.pt", "model.pkl", "pytorch_model.bin"):
        (folder / more).write_bytes(pickle.dumps(trap))
    with pytest.raises(ModelError):
        estimate(load_model(folder))
    assert not trap.trace.exists()
    pickle.loads(pickle.dumps(trap))
    assert trap.trace.exists()  # the trap works


def test_a_model_that_exists_is_kept_or_replaced_on_purpose(folder: Path) -> None:
    model = load_model(folder)
    weights = {k: v * 0 for k, v in model.network.state_dict().items()}
    before = (folder / "weights.safetensors").read_bytes()
    with pytest.raises(OutputError, match="exists: choose another name or pass --overwrite"):
        save_model(folder, model.card, weights)
    assert (folder / "weights.safetensors").read_bytes() == before
    save_model(folder, model.card, weights, overwrite=True)
    assert not any(v.any() for v in load_model(folder).network.state_dict().values())
    assert [f.name for f in folder.parent.iterdir()] == ["model"]


def test_a_model_that_cannot_be_replaced_is_still_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, before = load_model(folder), (folder / "weights.safetensors").read_bytes()
    weights = {k: v * 0 for k, v in model.network.state_dict().items()}
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_model(folder, model.card, weights, overwrite=True)
    assert (folder / "weights.safetensors").read_bytes() == before
    assert [f.name for f in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("more", ["notes.txt", "sub/data.bin"])
def test_a_folder_with_other_things_is_not_removed(folder: Path, more: str) -> None:
    (folder / more).parent.mkdir(exist_ok=True)
    (folder / more).write_text("mine")
    model = load_model(folder)
    with pytest.raises(OutputError, match="is not only a model"):
        save_model(folder, model.card, model.network.state_dict(), overwrite=True)
    assert (folder / more).read_text() == "mine"
    assert estimate(load_model(folder)).any()


def test_a_file_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "stack.tif").write_bytes(b"II*\0")
    with pytest.raises(OutputError, match="is not only a model"):
        check_is_model(tmp_path / "stack.tif")
    assert (tmp_path / "stack.tif").exists()


def test_a_model_without_normalisation_says_so(folder: Path) -> None:
    with pytest.raises(ModelError, match="without the volume's normalisation"):
        estimate(Model(folder))


def test_the_result_is_in_the_input_s_units(folder: Path) -> None:
    plain = Model(folder, OpenOptions(Normalisation((0.0,), (1.0,))))
    other = Model(folder, OpenOptions(Normalisation((50.0,), (4.0,))))
    values = np.random.default_rng(0).normal(0, 1, WHOLE.shape).astype(np.float32)
    region = Region(0, 0, WHOLE, WHOLE.shape)
    expected = plain.denoise(values, region).mean * 4 + 50
    found = other.denoise(values * 4 + 50, region).mean
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.std())


def test_the_training_volume_is_known_by_its_content(
    tmp_path: Path, write_volume: Callable[..., Volume], write_model: Callable[..., Path]
) -> None:
    image = np.random.default_rng(0).integers(0, 99, (3, 4, 8, 8)).astype(np.uint8)
    volume = write_volume(tmp_path / "v.zarr", image)
    folder = write_model(
        tmp_path / "m",
        volume=open_volume(volume.address, channels=[2, 0]),
        offset=(5.0, 7.0),
        scale=(2.0, 3.0),
    )
    model = Model(folder)

    def found(**selection: Any) -> Normalisation | None:
        return model.normalisation_for(open_volume(volume.address, **selection))

    assert found(channels=[2, 0]) == Normalisation((5.0, 7.0), (2.0, 3.0))
    assert found(channels=[0]) == Normalisation((7.0,), (3.0,))
    assert found(channels=[0, 2]) == Normalisation((7.0, 5.0), (3.0, 2.0))
    assert found(channels=[1]) is None
    assert found() is None
    other = write_volume(tmp_path / "w.zarr", image + 1)
    assert model.normalisation_for(open_volume(other.address, channels=[0])) is None
    Path(volume.address).rename(tmp_path / "moved.zarr")
    moved = open_volume(tmp_path / "moved.zarr", channels=[0])
    assert model.normalisation_for(moved) == Normalisation((7.0,), (3.0,))


def test_the_card_is_plain_json(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text())
    assert card["kind"] == "network"
    assert card["stride"] == [2, 2, 2]
    assert card["weights_sha256"] == read_card(folder).weights_sha256 != ""
