"""docs/methods.md: its pictures are there and those of the script; sections of all methods."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

from n2v_scale.cli_train import METHODS

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "methods.md").read_text()
MOST_BYTES = 150_000


def shown():
    return re.findall(r"!\[.+?\]\((\S+?)\)", TEXT)


def test_every_picture_is_shown_and_every_shown_one_is_there():
    assert shown()
    there = {f"pictures/{path.name}" for path in (DOCS / "pictures").glob("*.png")}
    assert set(shown()) == there


def test_the_script_makes_the_pictures():
    module = ast.parse((DOCS / "pictures" / "make.py").read_text())
    tables = [
        node.value
        for node in module.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PICTURES"
    ]
    names = [ast.literal_eval(key) for table in tables for key in table.keys]
    assert {f"pictures/{name}.png" for name in names} == set(shown())


@pytest.mark.parametrize("name", shown())
def test_a_picture_is_small_and_shows_something(name):
    path = DOCS / name
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as picture:
        assert 600 <= picture.width <= 1400
        low, high = picture.convert("L").getextrema()
        assert high - low > 200


def test_every_method_has_its_section():
    titles = re.findall(r"^##+ (.*)$", TEXT, re.MULTILINE)
    words = {word for title in titles for word in re.findall(r"\w+", title)}
    assert set(METHODS) - {"auto"} <= words
