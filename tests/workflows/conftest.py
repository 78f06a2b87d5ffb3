"""A simulated volume that is small enough to go through a whole workflow in a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile

from n2v_scale.simulate import simulate_light_sheet

SHAPE = (16, 96, 96)


@pytest.fixture(scope="session")
def stacks(tmp_path_factory):
    """A folder with a noisy and a clean TIFF stack of the same."""
    folder = tmp_path_factory.mktemp("stacks")
    simulated = simulate_light_sheet(shape=SHAPE)
    for name, values in (("noisy", simulated.noisy), ("clean", simulated.clean)):
        tifffile.imwrite(folder / f"{name}.tif", values, metadata={"axes": "ZYX"})
    return folder


@pytest.fixture(scope="session")
def workflows():
    """The folder of the workflows."""
    return Path(__file__).parents[2] / "workflows"
