"""Half precision is tried on a worker, once, before a run is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, get_worker

from n2v_scale import worker_precision
from n2v_scale.config import PredictSettings
from n2v_scale.costs import forecast_plan
from n2v_scale.crew import Crew
from n2v_scale.denoiser import OpenOptions
from n2v_scale.errors import ClusterError, ConfigError, InputError
from n2v_scale.execution import Summary, run_plan
from n2v_scale.found_workers import FoundWorkers
from n2v_scale.io.volume import Volume
from n2v_scale.ledger import Ledger
from n2v_scale.memory import Budget
from n2v_scale.place import Place
from n2v_scale.plan import Plan
from n2v_scale.precision import Trial
from n2v_scale.prediction import make_prediction_plan
from n2v_scale.progress import NoProgress
from n2v_scale.worker_precision import with_precision

SIZES: dict[str, Any] = {"block": (8, 16, 16), "tile": (8, 16, 16), "chunk": (8, 16, 16)}
HALF = Trial("bfloat16", 0.1, 2e-4)


@dataclass
class Workers:
    """Two of a cluster with GPUs, which this machine lacks: what they find is made up."""

    client: Client
    answer: Trial | Exception = HALF
    asked: list[tuple[str, str]] = field(default_factory=list)
    """The worker and the device, each time."""

    @property
    def place(self) -> Place:
        return Place(client=self.client, found=FoundWorkers(2, 2**33, 1, 1, ("cuda", "cpu")))

    def measure(self, address: str, options: OpenOptions, volume: Volume) -> Trial:
        self.asked.append((get_worker().address, options.device))
        assert Path(address).is_dir()
        assert options.normalisation is not None
        assert volume.spatial_shape == (8, 32, 64)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def workers(client: Client, monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers(client)
    monkeypatch.setattr(worker_precision, "choose_precision", made.measure)
    monkeypatch.setattr("n2v_scale.devices.choose_device", lambda w: "cpu" if w == "auto" else w)
    return made


@dataclass
class Case:
    """A prediction of eight blocks."""

    volume: Volume
    model: Path
    output: Path
    workers: Workers

    def plan(self, place: Place | None = None, **settings: Any) -> Plan:
        chosen = PredictSettings(**SIZES, **settings)
        where = place or self.workers.place
        return make_prediction_plan(self.volume, self.model, self.output, chosen, place=where)

    def run(self, plan: Plan | None = None, **more: Any) -> Summary:
        plan = plan or self.plan()
        budget, used = Budget(2**33, 2, 1), self.workers.client
        return run_plan(plan, PredictSettings(**SIZES), budget, client=used, **more)

    @property
    def recorded(self) -> dict[str, Any]:
        return (Ledger(str(self.output), "0.5").record() or {})["plan"]


@pytest.fixture
def case(
    tmp_path: Path, write_volume: Callable[..., Volume], tiny_model: Path, workers: Workers
) -> Case:
    values = np.random.default_rng(0).normal(100, 10, (8, 32, 64)).astype(np.uint16)
    volume = write_volume(tmp_path / "v.zarr", values, chunk=(8, 16, 16))
    return Case(volume, tiny_model, tmp_path / "o.zarr", workers)


class Listener(NoProgress):
    """What is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_plan_leaves_it_open_and_says_so(case: Case) -> None:
    plan = case.plan()
    assert (plan.precision, plan.precision_is_open, plan.device) == ("float32", True, "cuda")
    assert case.workers.asked == []
    forecast = forecast_plan(plan, Budget(2**33, 2, 1), speed=1e6)
    assert forecast.precision == "auto"
    told = case.plan(precision="float16")
    assert (told.precision, told.precision_is_open) == ("float16", False)


def test_where_there_is_nothing_to_try_it_is_settled(case: Case) -> None:
    assert not case.plan(device="cpu").precision_is_open
    assert not case.plan(Place()).precision_is_open
    assert case.run(case.plan(device="cpu")).missing == 0
    assert case.workers.asked == []


def test_one_worker_is_asked(case: Case) -> None:
    plan, listener = case.plan(), Listener()
    found = with_precision(plan, Crew(case.workers.client), listener)
    assert (found.precision, found.precision_error) == ("bfloat16", 2e-4)
    assert not found.precision_is_open
    assert found.sizes == plan.sizes
    ((worker, device),) = case.workers.asked
    assert worker in case.workers.client.nthreads()
    assert device == "cuda"
    assert "workers compute in bfloat16" in listener.said[-1]


def test_it_is_on_the_record_and_holds_for_runs_that_go_on(case: Case) -> None:
    """It computes on the CPU, as no GPU is here."""
    first = case.run(replace(case.plan(), device="cpu"), only=[0, 1])
    assert (first.computed, first.missing) == (2, 6)
    assert (case.recorded["precision"], case.recorded["precision_error"]) == ("bfloat16", 2e-4)
    case.workers.answer = Trial("float16", 0.1, 1e-4)
    assert case.run(replace(case.plan(), device="cpu")).computed == 6
    assert case.run(replace(case.plan(), device="cpu")).already_finished
    assert case.recorded["precision"] == "bfloat16"
    assert len(case.workers.asked) == 1
    case.run(replace(case.plan(), device="cpu"), overwrite=True)
    assert case.recorded["precision"] == "float16"
    told = make_prediction_plan(
        case.volume,
        case.model,
        case.output.with_name("told.zarr"),
        PredictSettings(**SIZES, precision="float16", device="cpu"),
    )
    assert told.key == replace(case.plan(), **SETTLED).key  # as if it had been asked for


SETTLED: dict[str, Any] = {"precision": "float16", "precision_is_open": False, "device": "cpu"}


def test_a_worker_without_the_device_ends_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(wanted: str) -> str:
        raise ConfigError(f"device {wanted} is not available here; available: cpu")

    monkeypatch.setattr("n2v_scale.devices.choose_device", refuse)
    with pytest.raises(ClusterError, match=r"^on the worker .*, device cuda is not available"):
        case.run(case.plan())
    assert not case.output.exists()  # nothing is recorded


def test_a_failure_of_another_kind_has_its_words(case: Case) -> None:
    case.workers.answer = RuntimeError("the driver is too old")
    with pytest.raises(ClusterError, match=r"RuntimeError: the driver is too old$"):
        case.run(case.plan())
    assert not case.output.exists()


def test_a_volume_that_is_damaged_in_the_middle(case: Case) -> None:
    """Its other blocks can be computed."""
    case.workers.answer = InputError("cannot read box 0")
    listener = Listener()
    found = with_precision(case.plan(), Crew(case.workers.client), listener)
    assert (found.precision, found.precision_error) == ("float32", None)
    assert listener.said[1:] == [
        "it cannot be tried, as cannot read box 0",
        "workers compute in float32",
    ]
