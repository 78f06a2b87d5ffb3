"""The house rules that no other tool checks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"pytorch": "torch", "dask-core": "dask", "matplotlib-base": "matplotlib"}


def ranges(requirements):
    split = (re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*(.*)", text) for text in requirements)
    return {m[1].lower(): m[2] for m in split if m}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_has_the_same_ranges_as_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {CONDA_NAMES.get(n, n): r for n, r in ranges(listed).items() if n != "pip"}
    wanted = ranges([*project()["dependencies"], *project()["optional-dependencies"]["report"]])
    assert conda == {**wanted, "python": project()["requires-python"]}


def test_every_dependency_is_constrained():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {re.split(r"==", line)[0].lower().replace("_", "-") for line in lines}
    groups = project()["optional-dependencies"].values()
    wanted = ranges([*project()["dependencies"], *(r for group in groups for r in group)])
    assert {n.replace("_", "-") for n in wanted} - {"n2v-scale"} <= pinned


def test_every_extra_that_is_named_exists():
    extras = set(project()["optional-dependencies"])
    named = set()
    for folder in ("docs", "n2v_scale", "workflows", "README.md", "CHANGELOG.md"):
        place = ROOT / folder
        for file in [place] if place.is_file() else place.rglob("*"):
            if file.suffix in (".md", ".py", ".yml", ".sbatch"):
                found = re.findall(r"(?:n2v-scale|'\.)\[([a-z,0-9]+)\]", file.read_text())
                named |= {extra for group in found for extra in group.split(",")}
    assert {"s3", "report", "export", "slurm"} <= named <= extras


def test_the_readme_names_every_command():
    from n2v_scale.cli import cli

    text = (ROOT / "README.md").read_text()
    for name in cli.commands:
        assert f"n2v-scale {name}" in text or f"make {name}" in text or f"`{name}`" in text, name
