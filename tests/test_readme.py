"""Every command and every Python example of the README runs, in order, as it stands there.

Only the training is made short.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile

from n2v_scale.simulate import simulate_light_sheet

README = (Path(__file__).parent.parent / "README.md").read_text()
SHORT = {"steps": 2, "filters": 2}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("readme")
    simulated = simulate_light_sheet(shape=(12, 64, 64))
    for name, values in (("stack", simulated.noisy), ("clean", simulated.clean)):
        tifffile.imwrite(path / f"{name}.tif", values, metadata={"axes": "ZYX"})
    call(path, "import", "clean.tif", "clean.zarr")
    return path


def call(folder, *arguments):
    command = [sys.executable, "-W", "error", "-m", "n2v_scale", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands(folder):
    lines = [line for line in blocks("")[0].splitlines() if line]
    assert len(lines) == 5
    for line in lines:
        program, command, *rest = shlex.split(line)
        assert program == "n2v-scale"
        if command == "train":
            rest += [text for name, n in SHORT.items() for text in (f"--{name}", str(n))]
        assert call(folder, command, *rest)


@pytest.mark.parametrize("number", range(2))
def test_the_python(folder, number):
    code = blocks("python")[number]
    short = ", ".join(f"{name}={n}" for name, n in SHORT.items())
    code = code.replace(
        '"model.n2v")\n    plan', f'"model.n2v", overwrite=True, {short})\n    plan'
    )
    code = code.replace(
        '"denoised.zarr")\n    print(n2v', '"denoised.zarr", overwrite=True)\n    print(n2v'
    )
    script = folder / f"example_{number}.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
