"""The command that looks at the noise."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from n2v_scale.cli import cli
from n2v_scale.simulate import simulate_light_sheet


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("diagnose") / "volume.zarr")
    simulated = simulate_light_sheet((32, 96, 96), seed=2)
    rows = 6 * np.random.default_rng(0).standard_normal((32, 96, 1))
    zarr.create_array(path, data=(simulated.noisy + rows).astype("f4"), chunks=(12, 48, 48))
    return path


def run(*arguments):
    return CliRunner().invoke(cli, ["diagnose", *map(str, arguments)], catch_exceptions=False)


def test_it_says_what_to_do(volume):
    done = run(volume)
    assert done.exit_code == 0
    assert "structn2v with the blind mask x:8" in done.output
    for name in ("gain", "offset", "read noise", "noise along z", "saturated", "clipped", "empty"):
        assert name in done.output


def test_json(volume):
    found = json.loads(run(volume, "--json").stdout)
    assert found["recommendation"]["mask"] == "x:8"
    assert found["recommendation"]["sentence"].startswith("structn2v")
    (channel,) = found["channels"]
    assert len(channel["correlation"]["x"]["lags"]) == 8
    assert set(channel["noise"]) == {"gain", "offset", "read_noise", "misfit"}


def test_a_plot(volume, tmp_path):
    pytest.importorskip("matplotlib")
    assert run(volume, "--plot", tmp_path / "noise.png").exit_code == 0
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_extra_is_named(volume, tmp_path, monkeypatch):
    from n2v_scale.errors import ConfigError

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"n2v-scale\[report\]"):
        run(volume, "--plot", tmp_path / "noise.png")


def test_a_missing_volume_is_an_error(tmp_path):
    from n2v_scale.errors import InputError

    with pytest.raises(InputError):
        run(tmp_path / "nothing.zarr")
