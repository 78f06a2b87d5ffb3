"""Completion in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from n2v_scale.cli import cli
from n2v_scale.completion import SHELLS, Address, completion_script

BASH = """
compopt() { COMPREPLY+=(files); }  # outside a completion it only complains
complete() { :; }
source ./script
try() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _n2v_scale_completion n2v-scale
  echo "${COMPREPLY[*]}"
}
try n2v-scale pre
try n2v-scale train --meth
try n2v-scale train --method n2v
try n2v-scale baseline --filter t
try n2v-scale cluster check --cluster s
try n2v-scale predict vol
"""
COMPLETED = [
    "predict",
    "--method",
    "n2v n2v2",
    "tv",
    "slurm sge sesame",
    "files",
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with our program, the scripts, and a preset of the user's."""
    program = tmp_path / "bin" / "n2v-scale"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m n2v_scale "$@"\n')
    program.chmod(0o755)
    presets = tmp_path / "n2v-scale" / "clusters"
    presets.mkdir(parents=True)
    (presets / "sesame.toml").write_text('system = "slurm"\n')
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    told = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(place)}
    root = str(Path(__file__).parent.parent)
    return {**os.environ, **told, "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(place: Path) -> None:
    (place / "script").write_text(completion_script(cli, "bash"))
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == COMPLETED
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(place: Path) -> None:
    (place / "script").write_text(completion_script(cli, "fish"))
    asked = 'source ./script; complete --do-complete "n2v-scale train --net bli"'
    told = {**environment(place), "HOME": str(place)}
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        cwd=place,
        env=told,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["blind-unet"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_that_shells_and_says_how_to_install_it(shell: str, place: Path) -> None:
    script = completion_script(cli, shell)
    assert f"n2v-scale completion {shell}" in "\n".join(script.splitlines()[:2])
    assert script.startswith("#")
    if shutil.which(shell) is not None:
        (place / "script").write_text(script)
        subprocess.run([shell, "-n", "script"], cwd=place, check=True, capture_output=True)


def parameters(group: click.Group) -> list[tuple[str, click.Parameter]]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += parameters(command)
        found += [(name, parameter) for parameter in command.params]
    return found


def test_every_argument_is_completed() -> None:
    for name, parameter in parameters(cli):
        if isinstance(parameter, click.Argument):
            kinds = (Address, click.Choice, click.Path)
            assert isinstance(parameter.type, kinds), (name, parameter.name)
    options = {o for _, p in parameters(cli) if isinstance(p.type, Address) for o in p.opts}
    assert options >= {"--noisy", "--mask", "--init", "--reference", "--volume", "--plot"}
