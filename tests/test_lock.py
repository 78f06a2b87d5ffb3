"""The driver's lock, with real processes: who is refused, who takes over, who notices a loss."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from n2v_scale import holder as holders
from n2v_scale import lock as module
from n2v_scale import succession
from n2v_scale.errors import ConfigError, OutputError
from n2v_scale.holder import Holder
from n2v_scale.io.connections import remember
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.writer import PROVENANCE, get, keys_under, put, set_attributes
from n2v_scale.lock import driver_lock
from n2v_scale.output import tidy_output
from n2v_scale.succession import LOCK_FOLDER, LOCK_KEY, claim_key

NOBODY = 2**31 - 1
"""No process has this number."""

DRIVER = """
import sys
from n2v_scale import holder
from n2v_scale.errors import OutputError
from n2v_scale.lock import driver_lock

if sys.argv[1]:
    holder.process_space = lambda: sys.argv[1]
lease_s = float(sys.argv[2])
for line in sys.stdin:
    store = line.strip()
    try:
        with driver_lock(store, lease_s=lease_s, wait=lambda _: print("waits", flush=True)) as lock:
            print("holds", flush=True)
            sys.stdin.readline()
            lock.check()
        print("released", flush=True)
    except OutputError as error:
        print("refused", error, flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


class Driver:
    """A process that takes locks as it is told; ``space`` makes it one of another machine."""

    def __init__(self, space: str = "", lease_s: float = 60) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, space, str(lease_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def asked(self, line: object = "") -> str:
        self.tell(str(line))
        return self.hear()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def driver() -> Iterator[Callable[..., Driver]]:
    """A function that starts one."""
    started: list[Driver] = []

    def start(space: str = "", lease_s: float = 60) -> Driver:
        started.append(Driver(space, lease_s))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "denoised.zarr")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the lock's clock says, which counts sleep; the heartbeat's own pauses are real."""
    time_s = [1000.0]
    for each in (module, succession):
        monkeypatch.setattr(each, "now", lambda: time_s[0])
    return time_s


def no_waiting(message: str) -> None:
    pytest.fail(f"nothing is to be waited for: {message}")


def left(store: str, *, space: str | None = None, lease_s: float = 60, **changes: object) -> Holder:
    """A lock that nobody keeps alive."""
    changes = {"pid": NOBODY} | changes | ({} if space is None else {"space": space})
    holder = Holder.this_process(lease_s).model_copy(update=changes)
    put(store, LOCK_KEY, holder.encode())
    return holder


def stored(store: str) -> Holder:
    holder = Holder.decode(get(store, LOCK_KEY) or b"")
    assert holder is not None
    return holder


def test_the_second_is_refused_while_the_first_lives(store: str, driver: Callable[..., Driver]):
    first = driver()
    assert first.asked(store) == "holds"
    before = get(store, LOCK_KEY)
    with pytest.raises(OutputError) as caught, driver_lock(store, wait=no_waiting):
        pass
    for told in (store, f"process {first.process.pid} ", stored(store).host, stored(store).since):
        assert told in str(caught.value)
    assert get(store, LOCK_KEY) == before
    assert first.asked() == "released"
    with driver_lock(store, wait=no_waiting) as lock:
        lock.check()


def test_after_a_kill_the_second_goes_on_at_once(store: str, driver: Callable[..., Driver]):
    first = driver()
    assert first.asked(store) == "holds"
    first.kill()
    with driver_lock(store, wait=no_waiting) as lock:
        lock.check()
        assert stored(store).pid == os.getpid()
    assert not Path(store, LOCK_FOLDER).exists()


def test_a_killed_run_that_its_parent_has_not_fetched_is_dead(
    store: str, driver: Callable[..., Driver]
):
    first = driver()
    assert first.asked(store) == "holds"
    first.process.kill()
    os.waitid(os.P_PID, first.process.pid, os.WEXITED | os.WNOWAIT)
    with driver_lock(store, wait=no_waiting):
        pass


def test_a_number_that_another_process_has_now_holds_nothing(store: str):
    left(store, pid=os.getppid(), process_start="1")
    with driver_lock(store, wait=no_waiting):
        pass


def test_a_living_holder_elsewhere_is_heard(store: str, driver: Callable[..., Driver]):
    first = driver("another machine", 24)
    assert first.asked(store) == "holds"
    told: list[str] = []
    with pytest.raises(OutputError, match="is being written by process"):  # noqa: SIM117
        with driver_lock(store, wait=told.append):
            pass
    assert len(told) == 1
    assert "24 s" in told[0]
    assert f"process {first.process.pid} " in told[0]
    assert first.asked() == "released"


def test_a_silent_holder_elsewhere_loses_it_after_its_lease(store: str):
    left(store, space="another machine", lease_s=0.5, pid=os.getpid())
    told: list[str] = []
    with driver_lock(store, wait=told.append) as lock:
        lock.check()
        assert stored(store).token == lock.holder.token
    assert len(told) == 1


def test_it_is_the_holders_lease_that_is_watched(store: str, monkeypatch: pytest.MonkeyPatch):
    left(store, space="another machine", lease_s=0.5)

    def watch(_: str, __: list[bytes], lease_s: float) -> list[bytes]:
        raise OutputError(f"watched for {lease_s} s")

    monkeypatch.setattr(succession, "_watch", watch)
    with pytest.raises(OutputError, match=r"watched for 0\.5 s"), driver_lock(store, lease_s=7):
        pass


def test_a_holder_elsewhere_that_releases_is_followed(store: str):
    left(store, space="another machine", lease_s=6)

    def release(message: str) -> None:
        Path(store, LOCK_KEY).unlink()

    with driver_lock(store, lease_s=60, wait=release) as lock:
        lock.check()


def test_waiting_is_told_once(store: str, monkeypatch: pytest.MonkeyPatch):
    left(store, space="another machine")
    slips = iter([True, True, False])
    monkeypatch.setattr(succession, "_watch", lambda _, chain, __: [] if next(slips) else chain)
    told: list[str] = []
    with driver_lock(store, wait=told.append) as lock:
        lock.check()
    assert len(told) == 1
    assert next(slips, None) is None


def test_a_folder_that_a_release_removes_is_made_again(store: str, monkeypatch: pytest.MonkeyPatch):
    real, removed = succession.put_if_absent, iter([True, True])

    def put_if_absent(store: str, key: str, data: bytes) -> bool:
        if next(removed, False):
            raise FileNotFoundError(key)
        return real(store, key, data)

    monkeypatch.setattr(succession, "put_if_absent", put_if_absent)
    with driver_lock(store) as lock:
        lock.check()
        assert stored(store).token == lock.holder.token


@pytest.mark.parametrize("content", [b"", b'{"token": "0', b"\xff\xfe"])
def test_a_torn_lock_is_watched_and_taken_over(store: str, content: bytes):
    put(store, LOCK_KEY, content)
    told: list[str] = []
    with driver_lock(store, lease_s=0.5, wait=told.append) as lock:
        lock.check()
    assert len(told) == 1
    assert "unreadable" in told[0]
    assert keys_under(store, "") == []


def test_of_many_processes_exactly_one_takes_a_dead_lock(
    tmp_path: Path, driver: Callable[..., Driver]
):
    drivers = [driver() for _ in range(6)]
    for number in range(25):
        store = str(tmp_path / str(number))
        left(store)
        for each in drivers:
            each.tell(store)
        answers = [each.hear() for each in drivers]
        assert sorted(answer.partition(" ")[0] for answer in answers) == ["holds"] + ["refused"] * 5
        winner = drivers[answers.index("holds")]
        assert stored(store).pid == winner.process.pid
        assert winner.asked() == "released"
        assert not keys_under(store, "")


def test_of_many_machines_exactly_one_takes_a_dead_lock(store: str, driver: Callable[..., Driver]):
    drivers = [driver(f"machine {number}", 24) for number in range(4)]
    left(store, lease_s=0.5)
    for each in drivers:
        each.tell(store)
    assert [each.hear() for each in drivers] == ["waits"] * 4
    answers = [each.hear() for each in drivers]
    assert sorted(answer.partition(" ")[0] for answer in answers) == ["holds"] + ["refused"] * 3
    assert drivers[answers.index("holds")].asked() == "released"


def test_the_heartbeat_beats(store: str):
    with driver_lock(store, lease_s=3) as lock:
        while stored(store).beat < 2:
            time.sleep(0.05)
        lock.check()
        assert stored(store).token == lock.holder.token


@pytest.mark.parametrize("what", ["deleted", "took it over"])
def test_a_loss_is_noticed_and_left_alone(store: str, what: str):
    with driver_lock(store, lease_s=3) as lock:
        if what == "deleted":
            Path(store, LOCK_KEY).unlink()
            other = None
        else:
            other = left(store).encode()
        lock._thread.join()
        with pytest.raises(OutputError, match=f"lost the lock of {store}: .*{what}"):
            lock.check()
    assert get(store, LOCK_KEY) == other


def test_a_lock_that_another_took_since_the_last_heartbeat_is_not_released(store: str):
    with driver_lock(store):
        other = left(store)
    assert stored(store) == other


def test_a_store_that_fails_for_less_than_a_lease_loses_nothing(
    store: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    failing = threading.Event()
    tried = threading.Semaphore(0)

    def fails(store: str, key: str, data: bytes) -> None:
        tried.release()
        if failing.is_set():
            raise OSError("the disk is away")
        put(store, key, data)

    monkeypatch.setattr(module, "put", fails)
    failing.set()
    with driver_lock(store, lease_s=6) as lock:
        tried.acquire()
        tried.acquire()
        clock[0] += 5.9
        lock.check()
        failing.clear()
        while lock.holder.beat < 1:
            time.sleep(0.05)
        clock[0] += 5.9  # since the heartbeat that worked
        lock.check()


def test_a_store_that_fails_for_a_lease_loses_the_lock(
    store: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    def fails(store: str, key: str) -> bytes:
        raise OSError("the disk is away")

    with driver_lock(store) as lock:
        monkeypatch.setattr(module, "get", fails)
        clock[0] += 60
        with pytest.raises(OutputError, match=r"not be renewed for 60 s \(the disk is away\)"):
            lock.check()
        monkeypatch.undo()
        with pytest.raises(OutputError, match="disk is away"):  # lost stays lost
            lock.check()


def test_a_store_that_hangs_for_a_lease_loses_the_lock(
    store: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    hangs, goes_on = threading.Event(), threading.Event()

    def hang(store: str, key: str, data: bytes) -> None:
        hangs.set()
        goes_on.wait()
        put(store, key, data)

    monkeypatch.setattr(module, "put", hang)
    with driver_lock(store, lease_s=1.2) as lock:
        hangs.wait()
        clock[0] += 1.2
        with pytest.raises(OutputError, match="its store does not answer"):
            lock.check()
        goes_on.set()
        lock._thread.join()  # the heartbeat succeeds after all, and ends
        with pytest.raises(OutputError, match="its store does not answer"):
            lock.check()


def test_who_slept_alone_goes_on(store: str, clock: list[float]):
    with driver_lock(store) as lock:
        clock[0] += 8 * 3600
        lock.check()
        assert stored(store).beat == 1
        assert stored(store).token == lock.holder.token


def test_who_slept_while_another_took_over_stops(store: str, clock: list[float]):
    with driver_lock(store) as lock:
        other = left(store)
        clock[0] += 8 * 3600
        with pytest.raises(OutputError, match="took it over"):
            lock.check()
    assert stored(store) == other


def test_who_slept_stops_for_one_who_is_about_to_take_over(store: str, clock: list[float]):
    with driver_lock(store) as lock:
        other = Holder.this_process(60)
        claim = claim_key(lock.holder.token)
        put(store, claim, other.encode())
        clock[0] += 8 * 3600
        with pytest.raises(OutputError, match="took it over"):
            lock.check()
    assert get(store, claim) == other.encode()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_it_is_released_however_the_block_ends(store: str, error: type[BaseException]):
    with pytest.raises(error), driver_lock(store):
        raise error(Path(store, LOCK_KEY).read_text())
    assert not Path(store).exists()


def test_ctrl_c_releases(store: str, driver: Callable[..., Driver]):
    first = driver()
    assert first.asked(store) == "holds"
    first.process.send_signal(signal.SIGINT)
    assert first.hear() == "interrupted"
    assert get(store, LOCK_KEY) is None


def test_an_interruption_while_it_is_taken_leaves_nothing(
    store: str, monkeypatch: pytest.MonkeyPatch
):
    real = succession.put_if_absent

    def interrupted(store: str, key: str, data: bytes) -> bool:
        real(store, key, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(succession, "put_if_absent", interrupted)
    with pytest.raises(KeyboardInterrupt), driver_lock(store):
        pass
    assert get(store, LOCK_KEY) is None
    assert not holders.HELD


def test_a_store_that_fails_at_the_end_does_not_fail_the_run(
    store: str, monkeypatch: pytest.MonkeyPatch
):
    def fails(store: str, keys: list[str]) -> None:
        raise OSError("the disk is away")

    with driver_lock(store):
        monkeypatch.setattr(module, "delete_keys", fails)
    assert stored(store).pid == os.getpid()
    monkeypatch.undo()
    with driver_lock(store, wait=no_waiting) as lock:  # nobody in this process holds it any more
        lock.check()


def test_one_process_takes_it_once(store: str, tmp_path: Path):
    refusals: list[str] = []

    def again(address: str) -> None:
        try:
            with driver_lock(address, wait=no_waiting):
                pass
        except OutputError as error:
            refusals.append(str(error))

    with driver_lock(store) as lock:
        (tmp_path / "link.zarr").symlink_to(store)
        again(store)
        again(str(tmp_path / "link.zarr"))
        thread = threading.Thread(target=again, args=(store,))
        thread.start()
        thread.join()
        lock.check()
        assert stored(store).token == lock.holder.token
    assert len(refusals) == 3
    assert all("this process is writing" in text for text in refusals)


def test_one_process_may_write_several_outputs(tmp_path: Path):
    with driver_lock(str(tmp_path / "a")) as a, driver_lock(str(tmp_path / "b")) as b:
        a.check()
        b.check()


def test_threads_take_turns(store: str):
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            try:
                with driver_lock(store, wait=no_waiting):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except OutputError:
                continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert keys_under(store, "") == []


@pytest.mark.parametrize("existed", [False, True])
def test_only_the_folders_that_it_made_go_with_it(tmp_path: Path, existed: bool):
    store = tmp_path / "deep" / "denoised.zarr"
    if existed:
        store.mkdir(parents=True)
    with driver_lock(str(store)):
        assert Path(store, LOCK_KEY).is_file()
    assert store.exists() is existed
    assert not existed or not list(store.iterdir())


def test_what_was_written_meanwhile_stays(store: str):
    with driver_lock(store):
        put(store, "0/zarr.json", b"{}")
    assert keys_under(store, "") == ["0/zarr.json"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_readers_of_the_output_do_not_see_it(store: str, version: str):
    with driver_lock(store):
        set_attributes(store, PROVENANCE, {"run": {}}, version)
        set_attributes(store, "", {"name": "image"}, version)
        zarr.create_array(
            store,
            name="0",
            data=np.arange(64, dtype="uint16").reshape(4, 4, 4),
            chunks=(2, 2, 2),
            zarr_format=2 if version == "0.4" else 3,
        )
        put(store, claim_key("0" * 32), b"{}")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            group = zarr.open_group(store, mode="r")
            found = {name for name, _ in group.members(max_depth=None)}
        assert found == {"0", PROVENANCE}
        array = zarr.open_array(store, path="0", mode="r")
        assert array.nchunks_initialized == 8
        assert int(np.asarray(array[...]).sum()) == 63 * 32


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    for place in (tmp_path / "file", tmp_path / "file" / "denoised.zarr"):
        with pytest.raises(OutputError, match=str(place)), driver_lock(str(place)):
            pass
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize("lease_s", [0, -1, 3601, float("nan"), float("inf")])
def test_a_lease_has_limits(store: str, lease_s: float):
    with pytest.raises(ConfigError, match="lease"), driver_lock(store, lease_s=lease_s):
        pass
    assert not Path(store).exists()


def test_an_object_store_is_locked_too(s3):
    store = s3.url("denoised.zarr")
    remember(store, StorageOptions.of(s3.options))
    left(store)
    with driver_lock(store, lease_s=3, wait=no_waiting) as lock:
        with pytest.raises(OutputError, match="this process is writing"), driver_lock(store):
            pass
        while stored(store).beat < 1:
            time.sleep(0.05)
        lock.check()
        assert stored(store).token == lock.holder.token
    assert keys_under(store, "") == []


def test_a_bucket_that_is_missing_is_named(s3):
    store = "s3://nowhere/denoised.zarr"
    remember(store, StorageOptions.of(s3.options))
    with pytest.raises(OutputError, match=store), driver_lock(store):
        pass


def test_a_lock_that_a_killed_run_has_left_on_a_finished_output_is_swept(tmp_path: Path) -> None:
    store = str(tmp_path / "o.zarr")
    code = (
        "import os; from n2v_scale.lock import driver_lock\n"
        f"with driver_lock({store!r}): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    folder = Path(store, LOCK_FOLDER)
    assert list(folder.iterdir())
    torn = Path(store, "0", "c", "0", "0", "0.0123456789abcdef.partial")
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half")
    tidy_output(store, print)
    assert not folder.exists() or not list(folder.iterdir())
    assert not torn.exists()


def test_a_lock_that_is_held_is_not_swept(tmp_path: Path) -> None:
    store = str(tmp_path / "o.zarr")
    with driver_lock(store) as lock:
        tidy_output(store, print)
        lock.check()
        assert lock.held
