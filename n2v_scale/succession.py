"""How a lock gets its holder, and passes from a dead one to exactly one other.

The lock is one key of the store. Whoever wants it sets that key if it is absent. Where it is
present, its holder is judged: a process of this machine lives or does not; any other is watched
for one lease, in which a living holder changes the key. No two clocks are ever compared.

A store has no "replace if unchanged". So a taker first sets a *claim*, a key named after the
token that it takes over from, if it is absent: exactly one taker gets it. That one reads the lock
again, and replaces it when nothing has changed.

- A taker that read the lock long ago and claims late finds another token in the lock (the first
  taker replaced it before its claim went), and retreats.
- A taker that dies with its claim is a dead holder like any other: the next one claims after
  *its* token. So the lock and its claims are a chain, of which the last link is judged.
- A holder that was asleep renews by writing the lock and then looking for a claim after its own
  token; a taker sets the claim and then looks at the lock. One of them sees the other. Claims are
  therefore kept until the lock is released. A holder that has renewed within its lease need not
  look: nobody can have watched it for a whole one.
- A taker that falls asleep between claim and replacement gives up when it took a lease.

What is left: a holder that sleeps for a lease between reading the lock and writing it writes over
its successor. It finds the claim and stops, and so does the successor, at its next heartbeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from n2v_scale.errors import OutputError
from n2v_scale.holder import Holder
from n2v_scale.io.stores import is_url
from n2v_scale.io.writer import delete_keys, get, put, put_if_absent

LOCK_FOLDER = "0/n2v_scale.lock"
"""In the folder of the full-resolution array: zarr lists what is in groups, and warns there of
whatever it does not know; it never lists what is in an array."""

LOCK_KEY = f"{LOCK_FOLDER}/holder.json"

LOOKS = 12
"""How often in a lease a holder elsewhere is looked at, at least."""
LOOK_EVERY_S = 5.0
ATTEMPTS = 20
"""How often the lock may slip away before it is given up."""
PAUSE_S = 0.01


def take(store: str, me: Holder, wait: Callable[[str], None]) -> float:
    """When, on the clock of :func:`now`, the lock became ours.

    Raises
    ------
    OutputError
        When another holds it, or when the store cannot be written.
    """
    if not is_url(store) and Path(store).is_file():
        raise OutputError(f"{store} is a file: choose another name for the output")
    wait = _once(wait)
    failure: OSError | None = None
    for attempt in range(ATTEMPTS):
        try:
            taken = _attempt(store, me, wait)
        except FileNotFoundError as exc:  # whoever released it may have removed the folder
            failure, taken = exc, None
        except OSError as exc:
            raise _unwritable(store, exc) from exc
        if taken is not None:
            return taken
        time.sleep(PAUSE_S * attempt)
    raise _unwritable(store, failure or "others take and release its lock all the time")


def _attempt(store: str, me: Holder, wait: Callable[[str], None]) -> float | None:
    """When the lock became ours; None when it was released, or another taker was faster."""
    started, mine = now(), me.encode()
    put_if_absent(store, LOCK_KEY, mine)
    chain = _chain(store)  # what is there counts: the answer to a request may get lost
    if chain == [mine]:
        return started
    if not chain:
        return None
    holder = Holder.decode(chain[-1])
    alive = holder.alive() if holder else None
    if alive is None:
        lease_s = holder.lease_s if holder else me.lease_s
        wait(f"{store} is locked by {name(chain[-1])}: watching for {lease_s:g} s if it lives")
        seen = _watch(store, chain, lease_s)
        if not seen:
            return None
        chain, alive = seen, seen != chain
    if alive:
        raise _refusal(store, chain[-1], me)
    return _take_over(store, chain, me)


def _watch(store: str, chain: list[bytes], lease_s: float) -> list[bytes]:
    """The chain as soon as it changes, or else after a lease.

    Time in which this machine sleeps does not count: the holder may sleep with it.
    """
    end = time.monotonic() + lease_s
    while True:
        time.sleep(min(lease_s / LOOKS, LOOK_EVERY_S))
        over = time.monotonic() >= end
        seen = _chain(store)
        if over or seen != chain:
            return seen


def _take_over(store: str, chain: list[bytes], me: Holder) -> float | None:
    """When the lock of a dead holder became ours; None when another taker was faster."""
    started = now()
    claim, mine = claim_key(token_of(chain[-1])), me.encode()
    replaced = False
    try:
        put_if_absent(store, claim, mine)
        if _chain(store) == [*chain, mine]:
            put(store, LOCK_KEY, mine)
            replaced = True
    finally:  # a claim that led to nothing would keep others out while this process lives
        if not replaced and get(store, claim) == mine:
            delete_keys(store, [claim])
    if replaced and now() - started >= me.lease_s:
        raise OutputError(f"{store} took {me.lease_s:g} s to be locked: run the same command again")
    return started if replaced else None


def _chain(store: str) -> list[bytes]:
    """The lock and the claims, each after the one before; empty when there is no lock."""
    found: list[bytes] = []
    content = get(store, LOCK_KEY)
    while content is not None:
        found.append(content)
        content = get(store, claim_key(token_of(content)))
    return found


def claim_key(token: str) -> str:
    """Where the one who takes over from ``token`` says so."""
    return f"{LOCK_FOLDER}/after-{token}.json"


def token_of(content: bytes) -> str:
    """The token of a lock or a claim; of a torn one, one that its bytes make."""
    holder = Holder.decode(content)
    return holder.token if holder else sha256(content).hexdigest()[:32]


def name(content: bytes) -> str:
    """The holder in words."""
    return str(Holder.decode(content) or "a run that left an unreadable lock")


def now() -> float:
    """Seconds, with those that the machine slept where a clock counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _refusal(store: str, content: bytes, me: Holder) -> OutputError:
    holder = Holder.decode(content)
    if holder and (holder.space, holder.pid) == (me.space, me.pid):
        return OutputError(f"this process is writing {store} already: one run at a time")
    return OutputError(
        f"{store} is being written by {name(content)}: wait until that run ends, or stop it; "
        "then the same command goes on"
    )


def _unwritable(store: str, reason: OSError | str) -> OutputError:
    return OutputError(
        f"{store} cannot be locked for writing ({reason}): check that the place exists and "
        "that you may write there"
    )


def _once(wait: Callable[[str], None]) -> Callable[[str], None]:
    said: list[str] = []

    def say(message: str) -> None:
        if not said:
            wait(message)
        said.append(message)

    return say
