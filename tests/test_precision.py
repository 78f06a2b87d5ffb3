"""Half precision is taken where it is faster and hardly changes the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from n2v_scale import prediction
from n2v_scale.config import PredictSettings
from n2v_scale.denoiser import Normalisation, OpenOptions
from n2v_scale.io.volume import Volume
from n2v_scale.precision import Trial, choose_precision, fastest, trials
from n2v_scale.prediction import make_prediction_plan

OPTIONS = OpenOptions(Normalisation((100.0,), (10.0,)))
FULL = Trial("float32", 1.0, 0.0)


@pytest.fixture
def volume(tmp_path: Path, write_volume: Callable[..., Volume]) -> Volume:
    values = np.random.default_rng(0).normal(100, 10, (150, 20, 140)).astype(np.uint16)
    return write_volume(tmp_path / "v.zarr", values, chunk=(50, 20, 70))


@pytest.mark.parametrize(
    ("halves", "chosen"),
    [
        ([], "float32"),
        ([Trial("float16", 0.5, 1e-4), Trial("bfloat16", 0.4, 5e-3)], "float16"),
        ([Trial("float16", 0.5, 1e-4), Trial("bfloat16", 0.4, 5e-4)], "bfloat16"),
        ([Trial("float16", 0.5, 1e-3)], "float32"),  # not below
        ([Trial("float16", 0.9, 0.0)], "float32"),  # not worth it
        ([Trial("float16", 0.1, float("nan"))], "float32"),
    ],
)
def test_the_fastest_that_is_exact_enough(halves: list[Trial], chosen: str) -> None:
    assert fastest([FULL, *halves]).precision == chosen


def test_errors_are_measured_on_the_middle_of_the_volume(volume: Volume, tiny_model: Path) -> None:
    full, half = trials(str(tiny_model), OPTIONS, volume, ("bfloat16",))
    assert (full.precision, full.error) == ("float32", 0.0)
    assert half.precision == "bfloat16"
    assert half.error is not None
    assert 1e-5 < half.error < 0.1  # two to three digits
    assert min(full.seconds, half.seconds) > 0


def test_on_a_cpu_nothing_is_measured(volume: Volume) -> None:
    assert choose_precision("/nowhere", OPTIONS, volume) == Trial("float32", 0.0, 0.0)


def test_what_was_measured_is_in_the_plan_and_not_in_its_key(
    volume: Volume, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(error: float, **options: str) -> tuple[str, float | None, str]:
        found = Trial("float16", 0.1, error)
        monkeypatch.setattr(prediction, "choose_precision", lambda *_: found)
        settings = PredictSettings(**options)
        plan = make_prediction_plan(volume, tiny_model, tmp_path / "o.zarr", settings)
        assert plan.to_dict()["precision_error"] == plan.precision_error
        return plan.precision, plan.precision_error, plan.key

    first, again = planned(2e-4), planned(3e-4)
    assert first[:2] == ("float16", 2e-4)
    assert again[:2] == ("float16", 3e-4)
    assert first[2] == again[2]
    assert planned(2e-4, precision="bfloat16")[:2] == ("bfloat16", None)
