"""How much training there is: steps or minutes, spent over one run or several."""

from __future__ import annotations

import numpy as np
import pytest

from n2v_scale import budget as module
from n2v_scale.budget import WARM_UP_STEPS, Budget, Pace, Timer, schedule
from n2v_scale.config import PRESET_STEPS, TrainSettings
from n2v_scale.errors import ConfigError


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 50.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_a_budget_of_steps_counts_them():
    budget = Budget(4, None)
    assert (budget.total, budget.unit, budget.share()) == (4, "step", 0)
    shares = []
    while budget.share() < 1:
        assert budget.advance() == 1
        shares.append(budget.share())
    assert shares == [0.25, 0.5, 0.75, 1]


def test_a_budget_of_minutes_follows_the_clock(clock):
    budget = Budget(None, 0.5)
    assert (budget.total, budget.unit, budget.share()) == (30, "s", 0)
    clock.now += 12
    assert budget.advance() == 12
    clock.now += 3
    assert budget.advance() == 3
    assert (budget.step, budget.share(), budget.seconds()) == (2, 0.5, 15)
    clock.now += 100
    assert budget.share() == 1


def test_steps_of_earlier_runs_count():
    budget = Budget(10, None, spent_s=7.0, step=4)
    assert (budget.share(), budget.already()) == (0.4, 4)
    assert budget.seconds() == pytest.approx(7, abs=1)


def test_minutes_of_earlier_runs_count_and_those_between_do_not(clock):
    first = Budget(None, 1.0)
    clock.now += 24
    spent = first.seconds()
    clock.now += 5000  # nothing runs
    second = Budget(None, 1.0, spent_s=spent, step=3)
    assert (second.share(), second.already(), second.step) == (0.4, 24, 3)
    clock.now += 36
    assert second.advance() == 36  # what the bar has not seen, and no more
    assert second.share() == 1


@pytest.mark.parametrize(("steps", "minutes"), [(3, 1.0), (None, None)])
def test_exactly_one_of_steps_and_minutes_is_given(steps, minutes):
    with pytest.raises(ConfigError, match=r"steps nor minutes|steps and minutes"):
        Budget(steps, minutes)


@pytest.mark.parametrize("preset", PRESET_STEPS)
def test_a_preset_is_a_number_of_steps(preset):
    resolved = TrainSettings(preset=preset).resolved()
    assert Budget(resolved.steps, resolved.minutes).total == PRESET_STEPS[preset]


@pytest.mark.parametrize("given", [{"steps": 7}, {"minutes": 2.0}])
def test_what_is_given_overrides_the_preset(given):
    resolved = TrainSettings(preset="best", **given).resolved()
    chosen = {"steps": resolved.steps, "minutes": resolved.minutes}
    assert chosen == {"steps": None, "minutes": None} | given


def test_without_a_wish_there_is_a_balanced_number_of_steps():
    assert TrainSettings().resolved().steps == PRESET_STEPS["balanced"]


def test_the_schedule_warms_up_and_falls_to_zero():
    rates = [schedule(step, step / 1000) for step in range(1001)]
    peak = int(np.argmax(rates))
    assert rates[0] == pytest.approx(1 / WARM_UP_STEPS)
    assert peak == WARM_UP_STEPS - 1
    assert rates[peak] > 0.99
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_a_timer_is_due_after_its_time_and_then_again(clock):
    timer = Timer(10)
    clock.now += 9.5
    assert not timer.due()
    clock.now += 0.5
    assert timer.due()
    timer.reset()
    assert not timer.due()
    clock.now += 10
    assert timer.due()


def test_the_pace_is_that_since_the_last_row(clock):
    pace = Pace(100)
    clock.now += 4
    assert pace.row(120, 2, 1.0) == {"patches_per_s": 10, "waiting": 0.25}
    clock.now += 2
    assert pace.row(130, 2, 2.0) == {"patches_per_s": 10, "waiting": 0.5}
