"""The driver's lock: one run at a time writes an output, and one that was killed bars nobody.

How it is taken, and taken over, stands in :mod:`n2v_scale.succession`; here it is kept alive,
watched and released.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from n2v_scale.errors import ConfigError, OutputError
from n2v_scale.holder import HELD, LONGEST_LEASE_S, Holder
from n2v_scale.io.stores import is_url
from n2v_scale.io.writer import delete_keys, get, keys_under, put
from n2v_scale.succession import LOCK_FOLDER, LOCK_KEY, claim_key, name, now, take, token_of

LEASE_S = 60.0
BEATS = 6
"""Heartbeats a lease."""
RETRIES = 60
"""The same while the store fails."""


def is_locked(store: str) -> bool:
    """Whether there is a lock, be its holder alive or dead."""
    return get(store, LOCK_KEY) is not None


@contextmanager
def driver_lock(
    store: str, *, lease_s: float = LEASE_S, wait: Callable[[str], None] | None = None
) -> Iterator[Lock]:
    """The lock of the output ``store``, held until the block ends, however it ends.

    Parameters
    ----------
    store
        A path or a URL; need not exist.
    lease_s
        After so many seconds without a sign of life, a holder on another machine counts as dead.
    wait
        Is told once, in a sentence, when another holder has to be watched for so long.

    Raises
    ------
    OutputError
        When another run holds the lock, or when the store cannot be written.
    ConfigError
        When the lease is not above 0 and at most an hour.
    """
    if not 0 < lease_s <= LONGEST_LEASE_S:
        raise ConfigError(f"a lease of {lease_s:g} s: it goes up to {LONGEST_LEASE_S:g} s")
    created = not is_url(store) and not Path(store).exists()
    lock = Lock(store, Holder.this_process(lease_s))
    HELD.add(lock.holder.token)
    try:
        lock.start(take(store, lock.holder, wait or _silent))
        yield lock
    finally:
        try:
            if lock.stop():
                _release(store, lock.holder.token, created=created)
        finally:
            HELD.discard(lock.holder.token)


class Lock:
    """A lock that is held: kept alive in the background, and aware of its loss."""

    def __init__(self, store: str, holder: Holder) -> None:
        self.store = store
        self.holder = holder
        self._renewed = 0.0
        self._lost: str | None = None
        self._renewing = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="n2v-scale lock", daemon=True)

    def check(self) -> None:
        """Return while the lock is held.

        Raises
        ------
        OutputError
            When somebody took the lock over, when it was deleted, or when it could not be renewed
            for a whole lease, after which somebody may take it over.
        """
        if self._overdue() and self._renewing.acquire(timeout=self.holder.lease_s / BEATS):
            try:  # a machine that wakes may get here before it gets to the thread
                if self._overdue():
                    self._renew()
            finally:
                self._renewing.release()
        if self._overdue():
            self._lose("its store does not answer")
        if self._lost is not None:
            raise OutputError(
                f"this run lost the lock of {self.store}: {self._lost}. What is written is kept: "
                "make sure that no other run writes there, and run the same command again"
            )

    @property
    def held(self) -> bool:
        """Whether nothing has told yet that it is lost."""
        return self._lost is None

    def start(self, renewed: float) -> None:
        """Keep alive what was written at ``renewed``."""
        self._renewed = renewed
        self._thread.start()

    def stop(self) -> bool:
        """End the heartbeat; False when the lock is lost, or a heartbeat hangs in the store."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(self.holder.lease_s)
        return self._lost is None and not self._thread.is_alive()

    def _keep(self) -> None:
        beats = BEATS
        while self._lost is None and not self._stopping.wait(self.holder.lease_s / beats):
            with self._renewing:
                beats = BEATS if self._renew() else RETRIES

    def _renew(self) -> bool:
        """Whether the store did what it should; one failure is no loss before the lease ends."""
        started, last = now(), self._renewed
        holder = self.holder.model_copy(update={"beat": self.holder.beat + 1})
        try:
            self._lose(_other_than(holder, get(self.store, LOCK_KEY)))
            if self._lost is not None:
                return True
            put(self.store, LOCK_KEY, holder.encode())
            if now() - last >= holder.lease_s:
                claim = get(self.store, claim_key(holder.token))
                self._lose(None if claim is None else f"{name(claim)} took it over")
        except Exception as exc:  # whatever a store raises
            if now() - last >= holder.lease_s:
                self._lose(f"it could not be renewed for {holder.lease_s:g} s ({exc})")
            return False
        self.holder, self._renewed = holder, started
        return True

    def _overdue(self) -> bool:
        return self._lost is None and now() - self._renewed >= self.holder.lease_s

    def _lose(self, reason: str | None) -> None:
        """A lock that is lost stays lost, for the first of the reasons."""
        self._lost = self._lost or reason


def _other_than(holder: Holder, content: bytes | None) -> str | None:
    """Why a lock with this content is not the holder's."""
    if content is None:
        return "it was deleted"
    found = Holder.decode(content)
    if found is None:
        raise ValueError("the lock is unreadable")
    return None if found.token == holder.token else f"{found} took it over"


def _release(store: str, token: str, *, created: bool) -> None:
    """Delete the lock if it is still ours, and the folders that were made for it alone.

    A store that fails here is no failure of the run: what it leaves is the lock of a process that
    has ended, or of a token that this one no longer holds, and the next run takes it over.
    """
    with suppress(Exception):
        content = get(store, LOCK_KEY)
        if content is None or token_of(content) != token:
            return
        keys = keys_under(store, LOCK_FOLDER)
        delete_keys(store, [key for key in keys if key != LOCK_KEY])
        delete_keys(store, [LOCK_KEY])  # last: what a kill leaves is a lock, which is taken over
        if not is_url(store):
            folder = Path(store, LOCK_FOLDER)
            for empty in [folder, folder.parent, *([Path(store)] if created else [])]:
                empty.rmdir()


def _silent(_: str) -> None: ...
