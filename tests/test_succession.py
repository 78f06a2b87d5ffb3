"""Who gets a lock: every order in which takers, deaths, releases and sleepers may meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale import lock, succession
from n2v_scale.errors import OutputError
from n2v_scale.holder import Holder
from n2v_scale.lock import Lock
from n2v_scale.succession import LOCK_KEY, claim_key

STORE = "memory://output"
DEAD = Holder.this_process(60)


class Died(BaseException):
    """A process is killed here."""


class World:
    """A store in memory, and threads as processes: a script says whose next access is done."""

    def __init__(self, script: list[tuple[int, bool]], left: bytes | None = None) -> None:
        self.keys = {} if left is None else {LOCK_KEY: left}
        self.living: set[str] = set()
        self.took: list[Holder] = []
        self.refused: list[Holder] = []
        self._script = iter(script)
        self._waiting: dict[int, threading.Event] = {}
        self._doomed: set[int] = set()
        self._running = 0
        self._changed = threading.Condition()

    @contextmanager
    def instead(self) -> Iterator[World]:
        """In the place of the real world."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (succession, lock):
                for name in ("put_if_absent", "put", "get", "delete_keys", "keys_under"):
                    patch.setattr(module, name, getattr(self, name), raising=False)
            patch.setattr(Holder, "alive", lambda holder: self._alive(holder))
            patch.setattr(succession.time, "sleep", lambda _: None)
            patch.setattr(succession, "_watch", lambda store, *_: succession._chain(store))
            yield self

    def put_if_absent(self, _: str, key: str, data: bytes) -> bool:
        self._step()
        return self.keys.setdefault(key, data) is data

    def put(self, _: str, key: str, data: bytes) -> None:
        self._step()
        self.keys[key] = data

    def get(self, _: str, key: str) -> bytes | None:
        self._step()
        return self.keys.get(key)

    def delete_keys(self, _: str, keys: list[str]) -> None:
        for key in keys:
            self._step()
            self.keys.pop(key, None)

    def keys_under(self, _: str, prefix: str) -> list[str]:
        self._step()
        return sorted(key for key in self.keys if key.startswith(prefix + "/"))

    def taker(self, *, releases: bool = False) -> Callable[[], None]:
        """A process that takes the lock, and may release it."""
        me = Holder.this_process(60)

        def run() -> None:
            self.living.add(me.token)
            try:
                succession.take(STORE, me, lambda _: None)
                self.took.append(me)
                assert len(self.holding) == 1
                if releases:
                    self.get(STORE, LOCK_KEY)  # it works for a while
                    self.took.remove(me)
                    lock._release(STORE, me.token, created=False)
            except OutputError:
                self.refused.append(me)
            except Died:
                self.living.discard(me.token)

        return run

    def last_one(self) -> None:
        """Another taker, which nobody disturbs."""
        self._script = iter([])
        self.run(self.taker())

    @property
    def holding(self) -> list[Holder]:
        """Those that live and believe that the lock is theirs."""
        return [holder for holder in self.took if holder.token in self.living]

    def run(self, *processes: Callable[[], None]) -> None:
        """Let them take turns until all have ended."""
        errors: list[BaseException] = []

        def guarded(process: Callable[[], None]) -> None:
            try:
                process()
            except BaseException as exc:
                errors.append(exc)
            self._rest()

        threads = [threading.Thread(target=guarded, args=(p,), daemon=True) for p in processes]
        self._running = len(threads)
        self._doomed.clear()  # a thread may have got the number of an earlier one
        for thread in threads:
            thread.start()
        while self._next([thread.ident or 0 for thread in threads]):
            pass
        if errors:
            raise errors[0]

    def _alive(self, holder: Holder) -> bool:
        """Whoever looks long enough at a sleeper that woke sees its heartbeat."""
        return holder.token in self.living or holder.beat > 0

    def _step(self) -> None:
        me, granted = threading.get_ident(), threading.Event()
        self._waiting[me] = granted
        self._rest()
        granted.wait()
        if me in self._doomed:
            raise Died

    def _rest(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify()

    def _next(self, order: list[int]) -> bool:
        with self._changed:
            assert self._changed.wait_for(lambda: self._running == 0, timeout=60)
            waiting = [ident for ident in order if ident in self._waiting]
            if not waiting:
                return False
            index, dies = next(self._script, (0, False))
            chosen = waiting[index % len(waiting)]
            if dies:
                self._doomed.add(chosen)
            self._running += 1
            self._waiting.pop(chosen).set()
            return True


def scripts(deaths: list[bool]) -> st.SearchStrategy[list[tuple[int, bool]]]:
    return st.lists(st.tuples(st.integers(0, 5), st.sampled_from(deaths)), max_size=80)


alive_all = scripts([False])
some_die = scripts([False] * 7 + [True])
left_behind = st.sampled_from([None, b"", b"torn", DEAD.encode()])
thorough = settings(max_examples=300, deadline=None)


@thorough
@given(alive_all, left_behind)
def test_of_three_takers_exactly_one_gets_it(script, left):
    with World(script, left).instead() as world:
        world.run(world.taker(), world.taker(), world.taker())
        assert len(world.took) == 1
        assert len(world.refused) == 2
        assert Holder.decode(world.keys[LOCK_KEY]) == world.took[0]


@thorough
@given(some_die, left_behind)
def test_whoever_dies_there_is_never_a_second_and_always_a_next(script, left):
    with World(script, left).instead() as world:
        world.run(world.taker(), world.taker(), world.taker())
        held = len(world.holding)
        world.last_one()
        assert held <= 1
        assert len(world.holding) == 1


@thorough
@given(some_die, left_behind)
def test_releases_let_no_second_in(script, left):
    with World(script, left).instead() as world:
        world.run(*(world.taker(releases=True) for _ in range(4)), world.taker())
        held = len(world.holding)
        world.last_one()
        assert held <= 1
        assert len(world.holding) == 1


@thorough
@given(alive_all, left_behind)
def test_nothing_is_left_when_all_have_released(script, left):
    with World(script, left).instead() as world:
        world.run(*(world.taker(releases=True) for _ in range(4)))
        assert world.keys == {}


@thorough
@given(alive_all)
def test_a_sleeper_that_wakes_and_its_successor_never_both_go_on(script):
    with World(script, DEAD.encode()).instead() as world:
        sleeper = Lock(STORE, DEAD)  # renewed at 0, which is more than a lease ago

        world.run(sleeper._renew, world.taker(), world.taker())
        assert len(world.took) + (sleeper._lost is None) <= 1
        if sleeper._lost is None:
            assert sleeper.holder.beat == 1
            assert claim_key(DEAD.token) not in world.keys
        else:
            assert "took it over" in sleeper._lost


def test_an_answer_that_got_lost_does_not_lose_the_lock():
    """A request may be repeated on the way: the second finds what the first has set."""
    with World([], DEAD.encode()).instead() as world, pytest.MonkeyPatch.context() as patch:
        first = world.put_if_absent

        def repeated(store: str, key: str, data: bytes) -> bool:
            first(store, key, data)
            return first(store, key, data) and False

        patch.setattr(succession, "put_if_absent", repeated)
        world.run(world.taker(releases=True))
        world.run(world.taker())
        assert not world.refused


def test_a_taker_whose_store_fails_leaves_no_claim():
    """Its process may live on, and would keep everybody out."""
    with World([], DEAD.encode()).instead() as world, pytest.MonkeyPatch.context() as patch:

        def fails(_: str, key: str, data: bytes) -> None:
            raise OSError("the disk is full")

        patch.setattr(succession, "put", fails)
        world.run(world.taker())
        assert len(world.refused) == 1
        assert world.keys == {LOCK_KEY: DEAD.encode()}


def test_a_lock_that_always_slips_away_is_given_up():
    with World([]).instead(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(succession, "put_if_absent", lambda *_: False)
        patch.setattr(succession, "get", lambda *_: None)
        with pytest.raises(OutputError, match=r"memory://output cannot be locked .*all the time"):
            succession.take(STORE, Holder.this_process(60), lambda _: None)


def test_a_taker_that_sleeps_between_its_claim_and_the_lock_gives_up():
    with World([], DEAD.encode()).instead() as world, pytest.MonkeyPatch.context() as patch:
        clock = iter([0.0, 0.0, 61.0])
        patch.setattr(succession, "now", lambda: next(clock))
        world.run(world.taker())
        assert not world.took
        assert len(world.refused) == 1
