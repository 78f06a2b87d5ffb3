"""A model that is another one than the run began with: none of its blocks counts as done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zarr

from n2v_scale.api import plan_prediction, repair, verify
from n2v_scale.config import PredictSettings
from n2v_scale.errors import ModelError, PlanError
from n2v_scale.execution import run_plan
from n2v_scale.memory import Budget
from n2v_scale.network_config import FilterUNetConfig, UNetConfig

SOME = slice(9, 12)
"""Blocks where there is data."""


@pytest.fixture
def own_scene(make_scene: Callable[..., Any], scene: Any, tmp_path: Path) -> Any:
    """The usual volume with a model of its own."""
    image = zarr.open_array(f"{scene.volume.address}/0", mode="r")[...]
    own = make_scene(tmp_path / "own", image, scene.volume.chunk)
    own.undisturbed = scene.undisturbed
    return own


@pytest.fixture
def exchange(own_scene: Any, write_model: Callable[..., Path]) -> Callable[[], None]:
    """A function that puts another model in the place of the first, and back again."""
    first, other = own_scene.model, own_scene.model.with_name("other")
    unet = UNetConfig(2, depth=1, filters=2, pooled=(1, 1, 1))
    known = {"volume": own_scene.volume, "offset": [90.0], "scale": [12.0]}
    write_model(other, FilterUNetConfig((3, 3, 3), unet), **known, seed=1)

    def swap() -> None:
        aside = first.with_name("aside")
        first.rename(aside)
        other.rename(first)
        aside.rename(other)

    return swap


def test_another_model_is_refused_and_the_first_goes_on(
    own_scene: Any, exchange: Callable[[], None], tmp_path: Path
) -> None:
    path, client = tmp_path / "o.zarr", own_scene.client
    own_scene.predict(path, only=slice(0, 2))
    output = own_scene.output(path)
    output.shards(1)[0].write_bytes(b"damaged")
    exchange()
    before = output.versions()
    with pytest.raises(PlanError, match=r"the model was \w+…, now \w+…"):
        own_scene.predict(path, only=slice(0, 4))
    with pytest.raises(ModelError, match=r"is not the model that .* was made with"):
        repair(path, client=client)
    assert output.versions() == before
    assert verify(path, client=client).damaged == {"0": [1]}
    exchange()
    assert own_scene.predict(path, only=slice(0, 4)).computed == 3
    assert own_scene.check_marks(path) == {0, 1, 2, 3}


def test_a_model_that_is_replaced_after_the_plan_was_made(
    own_scene: Any, exchange: Callable[[], None], tmp_path: Path
) -> None:
    path, options = tmp_path / "o.zarr", own_scene.options
    plan = plan_prediction(own_scene.volume, own_scene.model, path, **options)
    exchange()
    with pytest.raises(ModelError):
        run_plan(plan, PredictSettings(**options), Budget(), client=own_scene.client, only=SOME)
    exchange()
    # A worker may have begun a block when the run ended, and found the right model by now.
    own_scene.check_marks(path)
    own_scene.predict(path, only=SOME)
    assert own_scene.check_marks(path) == {9, 10, 11}


def test_workers_that_know_the_model_of_an_earlier_run(
    own_scene: Any, exchange: Callable[[], None], tmp_path: Path
) -> None:
    """They live on between runs, and the model was trained anew at the same address."""
    for name in ("first", "other"):
        own_scene.predict(tmp_path / f"{name}.zarr", only=SOME)
        exchange()
    first, other = (own_scene.output(tmp_path / f"{n}.zarr") for n in ("first", "other"))
    for number in (9, 10, 11):
        for one, two in zip(first.shards(number), other.shards(number), strict=True):
            assert one.read_bytes() != two.read_bytes()
