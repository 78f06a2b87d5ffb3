"""Signals that wait: a training that is told to stop finishes its step and keeps its state, and no
cluster is left half started.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Requests:
    """What was asked for since it was last looked at."""

    stop: bool = False
    """SIGTERM or Ctrl-C: keep the state and end."""
    save: bool = False
    """SIGUSR1, SLURM's usual warning: keep the state and go on."""


@contextmanager
def requests() -> Iterator[Requests]:
    """Collects signals in a main thread; elsewhere they are for somebody else."""
    found = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return

    def stop(number: int, frame: object) -> None:
        del number, frame
        found.stop = True

    def save(number: int, frame: object) -> None:
        del number, frame
        found.save = True

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop}
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        handlers[signal.SIGUSR1] = save
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def kept_alive() -> Iterator[None]:
    """SIGUSR1, which else ends a process, does nothing where no state is there to be kept."""
    usr1 = getattr(signal, "SIGUSR1", None)  # not on Windows
    if usr1 is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(usr1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(usr1, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the end: no cluster is left half started or half closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: caught.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        signal.raise_signal(caught[0])
