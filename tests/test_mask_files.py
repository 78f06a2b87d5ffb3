"""Blind masks from files: what they hide, what is remembered of them, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr

import n2v_scale
from n2v_scale.blind_masks import listed_mask, mask_name, parse_blind_mask
from n2v_scale.errors import ConfigError, OutputError
from n2v_scale.mask_files import blind_mask_of

DIAGONAL = {(0, a, b) for a in (-1, 1) for b in (-1, 1)}


def image(shape, *places):
    values = np.zeros(shape, np.uint8)
    for place in places:
        values[place] = 255
    return values


def write(folder, kind):
    """A mask that hides the voxel at y + 1, x + 1, as each kind of file says it."""
    file = folder / f"mask.{kind}"
    if kind == "json":
        file.write_text("[[0, 1, 1], [0, 0, 0]]")
    elif kind == "tif":
        values = image((3, 5, 3), (1, 2, 1), (1, 3, 2))
        tifffile.imwrite(file, values, photometric="minisblack", metadata={"axes": "ZYX"})
    elif kind == "plane.tif":
        tifffile.imwrite(file, image((3, 5), (2, 3)))
    else:
        np.save(file, image((1, 3, 3), (0, 2, 2)).astype(np.float32))
    return file


@pytest.mark.parametrize("kind", ["json", "tif", "plane.tif", "npy"])
def test_a_file_says_what_is_hidden_and_mirror_images_are_too(tmp_path, kind):
    text = blind_mask_of(str(write(tmp_path, kind)))
    assert set(parse_blind_mask(text)) == DIAGONAL
    assert blind_mask_of(text) == text


@pytest.mark.parametrize("text", ["x:5", "x:5,y:2", "box:0,2,2", "offsets:0,0,-1;0,0,1"])
def test_a_mask_that_is_written_down_stays_as_it_is(text):
    assert blind_mask_of(text) == text


def test_what_a_file_holds_equals_what_can_be_written():
    for text in ("x:2", "z:1,y:3", "box:1,2,0"):
        assert parse_blind_mask(listed_mask(parse_blind_mask(text))) == parse_blind_mask(text)


def test_the_name_of_a_mask_is_short_and_its_own():
    names = {mask_name(listed_mask([(0, 0, n), (5, 5, 5)])) for n in (1, 2)}
    assert len(names) == 2
    assert all(len(name) < 50 and "10 offsets" in name for name in names)
    assert mask_name("x:5") == "x:5"


BAD = {
    "even": (lambda f: np.save(f, np.ones((3, 4, 3))), r"\(3, 4, 3\)"),
    "large": (lambda f: np.save(f, np.ones((65, 65, 67), "u1")), "at most 274625"),
    "four": (lambda f: np.save(f, np.ones((1, 1, 3, 3))), "two or three axes"),
    "nan": (lambda f: np.save(f, np.full((3, 3), np.nan)), "NaN"),
    "pickle": (lambda f: np.save(f, np.array([{}] * 3), allow_pickle=True), "mask.npy"),
    "nothing": (lambda f: np.save(f, image((3, 3), (1, 1))), "hides nothing"),
    "pairs": (lambda f: f.write_text("[[0, 1]]"), "three whole numbers"),
    "floats": (lambda f: f.write_text("[[0, 1, 0.5]]"), "three whole numbers"),
    "truths": (lambda f: f.write_text("[[true, 1, 1]]"), "three whole numbers"),
    "object": (lambda f: f.write_text("{}"), "three whole numbers"),
    "empty": (lambda f: f.write_text(""), "JSON list"),
    "binary": (lambda f: f.write_bytes(b"\xff\xfe\x00"), "JSON list"),
    "torn": (lambda f: f.write_bytes(b"II*\0"), "mask.npy"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_mask_is_refused_with_its_name(tmp_path, case):
    make, words = BAD[case]
    file = tmp_path / "mask.npy"
    make(file)
    with pytest.raises(ConfigError, match=words) as caught:
        blind_mask_of(str(file))
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="or name a file of offsets"):
        blind_mask_of("/nowhere/mask.json")


def test_a_training_remembers_the_offsets_and_not_the_file(tmp_path):
    noisy = np.random.default_rng(0).poisson(50, (8, 40, 40)).astype(np.uint16)
    volume, file = tmp_path / "v.zarr", write(tmp_path, "json")
    zarr.create_array(str(volume), data=noisy, chunks=(8, 20, 20))
    asked = {"method": "structn2v", "steps": 1, "patch": (8, 32, 32), "batch": 1, "filters": 2}
    model = n2v_scale.train(volume, tmp_path / "m.n2v", blind_mask=str(file), **asked)
    card = json.loads((model.folder / "model.json").read_text())
    assert set(parse_blind_mask(card["training"]["blind_mask"])) == DIAGONAL
    assert set(map(tuple, card["network_config"]["hidden"])) == DIAGONAL
    assert str(file) not in json.dumps(card)
    moved = write(tmp_path, "npy")
    file.write_text("[[0, 0, 1]]")
    again = n2v_scale.train(volume, tmp_path / "m.n2v", blind_mask=str(moved), **asked)
    assert again.key == model.key  # is finished
    with pytest.raises(OutputError, match=r"blind_mask: of 4 offsets .* now of 2 offsets"):
        n2v_scale.train(volume, tmp_path / "m.n2v", blind_mask=str(file), **asked)
