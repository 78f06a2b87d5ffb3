"""What the site is made of: generated pages, drawings, and a place for every page."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import pytest

import n2v_scale
from n2v_scale.cli import cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and typing look there
    spec.loader.exec_module(module)
    return module


def walked(group, before="n2v-scale"):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walked(command, f"{before} {name}")
        elif not command.hidden:
            yield f"{before} {name}", command


@pytest.fixture(scope="module")
def sections():
    text = load(DOCS / "tools" / "cli_page.py").cli_page()
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("name", "command"), list(walked(cli)), ids=lambda value: str(value))
def test_the_page_of_the_command_line_has_every_option(sections, name, command):
    section = sections[name]
    assert command.get_short_help_str(200).rstrip(".") in " ".join(section.split())
    assert f"{name} " in section.partition("```sh\n")[2], "an example"
    for param in command.params:
        for option in (*param.opts, *param.secondary_opts):
            if option.startswith("-"):
                rows = [row.strip() for row in section.splitlines() if f" `{option}` " in row]
                assert [row.count(" | ") for row in rows] == [2], option


def test_defaults_and_exit_codes(sections):
    for command, option, default in (
        ("simulate", "--photons", "40.0"),
        ("simulate", "--shape", "64,256,256"),
        ("train", "--method", "n2v"),
        ("predict", "--pyramid", "`--pyramid`"),
    ):
        lines = sections[f"n2v-scale {command}"].splitlines()
        row = next(line for line in lines if f"`{option}`" in line)
        assert row.endswith(f"| {default} |")
    assert "| 130 | interrupted" in sections["Exit codes"]


def test_the_page_of_the_api_has_every_public_name():
    text = load(DOCS / "tools" / "api_page.py").api_page()
    named = {line.rpartition(".")[2] for line in text.splitlines() if line.startswith(":::")}
    assert set(n2v_scale.__all__) - {"__version__", "N2VScaleError"} <= named


def test_every_page_has_its_line_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    nav = text[text.index("\nnav:") : text.index("\nexclude_docs:")]
    named = set(re.findall(r": ([\w/-]+\.md)", nav))
    written = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert written <= named


@pytest.fixture(scope="module")
def drawings():
    return load(DOCS / "pictures" / "drawings.py").DRAWINGS


def test_the_drawings_are_those_of_the_script_and_are_shown(drawings):
    assert {path.stem for path in (DOCS / "pictures").glob("*.svg")} == set(drawings)
    shown = (DOCS / "how.md").read_text()
    for name, drawn in drawings.items():
        assert (DOCS / "pictures" / f"{name}.svg").read_text() == drawn().svg()
        assert re.search(rf"!\[[^\]]{{40,}}\]\(pictures/{name}\.svg\)", shown), (
            "an alternative text"
        )


def test_a_drawing_is_valid_and_its_shapes_lie_within_it(drawings):
    for drawn in drawings.values():
        root = ET.fromstring(drawn().svg())
        _, _, width, height = map(float, root.get("viewBox").split())
        assert root[0].tag.endswith("title")
        for shape in root.iter():
            if shape.get("x") is not None:
                assert 0 <= float(shape.get("x")) <= width - float(shape.get("width", 0))
                assert 0 <= float(shape.get("y")) <= height - float(shape.get("height", 0))
