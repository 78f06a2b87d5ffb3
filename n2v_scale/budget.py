"""How much training there is, how the learning rate follows it, and clocks beside it."""

from __future__ import annotations

import math
import time

from n2v_scale.errors import ConfigError

WARM_UP_STEPS = 50


class Budget:
    """Steps, or minutes on the clock.

    ``spent_s`` is what earlier runs of the same training took.
    """

    def __init__(
        self, steps: int | None, minutes: float | None, *, spent_s: float = 0.0, step: int = 0
    ) -> None:
        if steps is not None and minutes is not None:
            raise ConfigError("steps and minutes are both given: choose one")
        if steps is None and minutes is None:
            raise ConfigError("neither steps nor minutes are given: choose one")
        self.steps = steps
        self.limit_s = None if minutes is None else 60 * minutes
        self.step = step
        self.started = time.monotonic() - spent_s
        self.told = time.monotonic()

    @property
    def total(self) -> float:
        """In :attr:`unit`."""
        return float(self.steps) if self.steps is not None else float(self.limit_s or 0)

    @property
    def unit(self) -> str:
        """Of the progress bar."""
        return "step" if self.steps is not None else "s"

    def seconds(self) -> float:
        """Since the beginning, without the time between runs."""
        return time.monotonic() - self.started

    def share(self) -> float:
        """How much of it is spent, 0 to 1."""
        if self.steps is not None:
            return min(1.0, self.step / self.steps)
        return min(1.0, self.seconds() / float(self.limit_s or 1))

    def already(self) -> float:
        """What earlier runs have spent, in :attr:`unit`."""
        return float(self.step) if self.steps is not None else self.seconds()

    def advance(self) -> float:
        """One step is done; returns what that is in :attr:`unit`."""
        self.step += 1
        if self.steps is not None:
            return 1.0
        before, self.told = self.told, time.monotonic()
        return self.told - before


def schedule(step: int, share: float) -> float:
    """A linear warm-up, then half a cosine down to zero (Loshchilov and Hutter 2017)."""
    return min(1.0, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * share))


class Timer:
    """Whether so many seconds have passed."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.reset()

    def reset(self) -> None:
        """They pass from now on."""
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether they have."""
        return time.monotonic() - self.last >= self.every_s


class Pace:
    """Patches a second since the last row, and the share of the time that batches were awaited."""

    def __init__(self, step: int) -> None:
        self.at, self.step, self.waited = time.monotonic(), step, 0.0

    def row(self, step: int, patches: int, waited_s: float) -> dict[str, float]:
        """Since the last call; ``patches`` a step, ``waited_s`` since the beginning."""
        now = time.monotonic()
        passed = max(1e-9, now - self.at)
        steps = step - self.step
        waited = waited_s - self.waited
        self.at, self.step, self.waited = now, step, waited_s
        return {
            "patches_per_s": round(steps * patches / passed, 3),
            "waiting": round(waited / passed, 4),
        }
