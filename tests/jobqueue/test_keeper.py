"""Who replaces lost jobs, in a batch system and a time of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from n2v_scale.errors import ClusterError, ConfigError
from n2v_scale.jobqueue import keeper as module
from n2v_scale.jobqueue.keeper import JobKeeper
from n2v_scale.jobqueue.states import JobState, State

PENDING = JobState(State.WAITING, "PENDING (Resources)")
RUNNING = JobState(State.RUNNING, "RUNNING", "n1")
COMPLETING = JobState(State.ENDING, "COMPLETING", "n1")
COMPLETED = JobState(State.DONE, "COMPLETED", "n1")
FAILED = JobState(State.ENDED, "FAILED (NonZeroExitCode)", "n1")
CANCELLED = JobState(State.TAKEN, "CANCELLED")

REFUSED = RuntimeError(
    "Command exited with non-zero exit code.\nExit code: 1\nCommand:\nsbatch /tmp/a.sh\n"
    "stdout:\n\nstderr:\nsbatch: error: invalid partition specified: nope\n\n"
)


class Clock:
    """Takes the place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.while_asleep: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.while_asleep()


class FakeJob:
    job_header = ""
    log_directory = None

    def __init__(self, farm: Farm, name: str) -> None:
        self.farm, self.name = farm, name
        self.job_id: str | None = None

    def job_script(self) -> str:
        return ""

    async def start(self) -> None:
        if self.farm.hangs:
            await asyncio.sleep(60)
        if self.farm.refusal is not None:
            raise self.farm.refusal
        self.job_id = str(101 + len(self.farm.jobs))
        self.farm.jobs[self.job_id] = self
        self.farm.states[self.job_id] = PENDING

    async def close(self) -> None:
        assert self.job_id is not None
        self.farm.cancelled.append(self.job_id)
        self.farm.states[self.job_id] = CANCELLED


class Farm:
    """A batch system, and the workers that its jobs have started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, FakeJob] = {}
        self.states: dict[str, JobState] = {}
        self.tasks: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.retired: list[str] = []
        self.said: list[str] = []
        self.avoided: list[str] = []
        self.can_avoid = True
        self.silent = self.hangs = False
        self.asked = self.gave_up = 0
        self.refusal: Exception | None = None

    def make(self, name: str) -> FakeJob:
        return FakeJob(self, name)

    def ask(self, numbers: Iterable[str]) -> dict[str, JobState] | None:
        self.asked += 1
        if self.silent:
            return None
        return {number: self.states[number] for number in numbers if number in self.states}

    def workers(self) -> dict[str, int]:
        return dict(self.tasks)

    def log(self, number: str) -> Path | None:
        path = self.folder / f"{number}.err"
        return path if path.exists() else None

    def avoid(self, node: str) -> bool:
        self.avoided.append(node)
        return self.can_avoid

    def give_up(self) -> None:
        self.gave_up += 1

    def runs(self, *numbers: str, tasks: int = 0) -> str:
        """These jobs run, and their workers are connected; the name of the last one."""
        for number in numbers:
            self.states[number] = RUNNING
            self.tasks[self.worker(number)] = tasks
        return self.worker(numbers[-1])

    def ends(self, state: JobState, *numbers: str) -> None:
        for number in numbers:
            self.states[number] = state
            self.tasks.pop(self.worker(number), None)

    def worker(self, number: str) -> str:
        return f"{self.jobs[number].name}.0a1b2c3d"

    @property
    def news(self) -> list[str]:
        """What was said of jobs."""
        return [line for line in self.said if not line.startswith("no worker for ")]

    @property
    def open(self) -> list[str]:
        return [number for number, state in self.states.items() if not state.over]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def farm(tmp_path: Path, clock: Clock) -> Farm:
    return Farm(tmp_path)


@pytest.fixture
def look(clock: Clock) -> Callable[..., None]:
    """Lets time pass, and looks."""

    def pass_time(keeper: JobKeeper, seconds: float = 31) -> None:
        clock.now += seconds
        keeper.look()

    return pass_time


def keeping(farm: Farm, most: int = 2, **options: Any) -> JobKeeper:
    given: dict[str, Any] = {"tasks": 2, "wait_s": 3600.0, "say": farm.said.append} | options
    return JobKeeper(
        farm.make,
        farm.ask,
        farm.workers,
        farm.retired.extend,
        farm.log,
        farm.give_up,
        farm.avoid,
        most=most,
        **given,
    )


Look = Callable[..., None]


# -- submitting --------------------------------------------------------------------------------


def test_all_jobs_are_submitted_at_once(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 3)
    look(keeper)
    assert farm.open == ["101", "102", "103"]
    assert len({job.name for job in farm.jobs.values()}) == 3
    look(keeper)
    assert len(farm.jobs) == 3
    keeper.check()


def test_a_first_submission_that_is_refused(
    farm: Farm, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    farm.refusal = REFUSED
    keeper = keeping(farm)
    message = "^the batch system takes no job: sbatch: error: invalid partition specified: nope$"
    with pytest.raises(ClusterError, match=message):
        keeper.start()
    keeper.stop()
    assert not keeper.thread.is_alive()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file", "sbatch"), "sbatch is not installed here: run this"),
        (RuntimeError("a\nstdout:\nno more\nstderr:\n\n"), "no more"),
        (ValueError("Could not parse\njob id"), "Could not parse job id"),
    ],
)
def test_why_it_was_refused(farm: Farm, look: Look, error: Exception, words: str) -> None:
    farm.refusal = error
    keeper = keeping(farm)
    look(keeper)
    with pytest.raises(ClusterError, match=f"^the batch system takes no job: {words}"):
        keeper.check()


def test_a_program_that_hangs(farm: Farm, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAM_S", 0.05)
    farm.hangs = True
    keeper = keeping(farm)
    look(keeper)
    with pytest.raises(ClusterError, match="takes no job: its program does not answer within"):
        keeper.check()


def test_a_later_refusal_is_tried_again(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 2)
    keeper.need(2)
    look(keeper)
    farm.refusal = REFUSED
    keeper.need(100)
    look(keeper, 3)
    assert farm.said[-1].startswith("the batch system took no further job, which is tried again: ")
    assert farm.said[-1].endswith("invalid partition specified: nope")
    farm.refusal = None
    look(keeper, 3)
    assert farm.open == ["101"]  # not at once
    look(keeper)
    assert farm.open == ["101", "102"]
    keeper.check()


def test_refusals_stop_a_run_with_nothing_left(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    farm.ends(CANCELLED, "101")
    farm.refusal = REFUSED
    for _ in range(module.REFUSALS - 1):
        look(keeper)
        keeper.check()
    look(keeper)
    with pytest.raises(ClusterError, match="takes no job: sbatch: error: invalid partition"):
        keeper.check()


# -- replacing ---------------------------------------------------------------------------------


def test_what_is_cancelled_while_it_waits_is_replaced(farm: Farm, look: Look) -> None:
    keeper = keeping(farm)
    look(keeper)
    farm.ends(CANCELLED, "102")
    look(keeper)
    assert farm.open == ["101", "103"]
    assert farm.news == ["job 102 is gone (CANCELLED): another one goes on"]


@pytest.mark.parametrize("word", ["PREEMPTED", "TIMEOUT (TimeLimit)", "NODE_FAIL"])
def test_what_others_end_is_replaced_however_often(farm: Farm, look: Look, word: str) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    for _ in range(20):
        (number,) = farm.open
        farm.runs(number)
        look(keeper)
        farm.ends(JobState(State.TAKEN, word, "n1"), number)
        look(keeper)
        keeper.check()
    assert len(farm.jobs) == 21


def test_what_is_requeued_is_not_replaced(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    farm.runs("101")
    look(keeper)
    farm.ends(JobState(State.WAITING, "PENDING (BeginTime)", restarts=1), "101")
    for _ in range(10):
        look(keeper)
    assert (farm.open, farm.cancelled) == (["101"], [])
    farm.runs("101")
    look(keeper)
    keeper.check()
    assert len(farm.jobs) == 1


def test_a_silent_queue_changes_nothing(farm: Farm, look: Look) -> None:
    keeper = keeping(farm)
    look(keeper)
    farm.runs("101")
    look(keeper)
    farm.silent = True
    farm.ends(FAILED, "101", "102")
    for _ in range(5):
        look(keeper, 10)
    assert farm.asked > 3
    assert (len(farm.jobs), farm.cancelled) == (2, [])
    keeper.check()
    farm.silent = False
    look(keeper)
    look(keeper)  # the first look holds further jobs
    assert len(farm.jobs) == 4


def test_a_job_that_the_queue_does_not_know(farm: Farm, look: Look) -> None:
    keeper = keeping(farm)
    look(keeper)
    farm.runs("101")
    farm.states.clear()
    look(keeper, 3)
    assert len(farm.jobs) == 2  # submitted a moment ago
    look(keeper)
    look(keeper)
    assert set(farm.jobs) == {"101", "102", "103"}
    look(keeper)
    assert "104" not in farm.jobs  # the worker of 101 is there, whatever the queue says
    assert "job 102 ended on a node that the queue does not tell" in farm.news[0]
    assert "(the queue does not know it any more)" in farm.news[0]


def test_a_worker_that_does_not_come_back(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    worker = farm.runs("101")
    look(keeper)
    del farm.tasks[worker]  # and the job runs on
    look(keeper, module.RECONNECT_S - 10)
    assert farm.cancelled == []
    look(keeper, 20)
    assert farm.cancelled == ["101"]
    look(keeper)
    assert farm.open == ["102"]


# -- giving up ---------------------------------------------------------------------------------


def fail_starts(farm: Farm, keeper: JobKeeper, look: Look, *states: JobState) -> None:
    """One job after another ends so, before its worker has come."""
    for state in states:
        farm.ends(state, farm.open[0])
        look(keeper)
        look(keeper)


def test_a_node_that_ends_every_job_stops_the_run(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    (farm.folder / "103.err").write_text("\n".join(f"line {n}" for n in range(30)))
    fail_starts(farm, keeper, look, FAILED, FAILED)
    keeper.check()
    assert farm.news[0] == (
        "job 101 ended on n1 without having done anything (FAILED (NonZeroExitCode)): another one "
        "goes on"
    )
    fail_starts(farm, keeper, look, FAILED)
    with pytest.raises(ClusterError) as error:
        keeper.check()
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "3 jobs in a row ended on n1 without having done anything; the last one is 103, on n1: "
        f"FAILED (NonZeroExitCode). Its log {farm.folder / '103.err'} ends with"
    )
    assert lines[1:-1] == [f"  line {n}" for n in range(18, 30)]
    assert lines[-1] == "Finished blocks are kept: the same command goes on with what is missing"
    assert farm.open == []
    look(keeper)
    assert len(farm.jobs) == 3


def test_a_job_without_a_log(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    fail_starts(farm, keeper, look, FAILED, FAILED, FAILED)
    with pytest.raises(ClusterError, match="It has written no log"):
        keeper.check()


def test_a_worker_that_never_came_failed_however_it_ended(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    fail_starts(farm, keeper, look, COMPLETED, COMPLETED, COMPLETED)
    with pytest.raises(ClusterError, match="the last one is 103, on n1: COMPLETED"):
        keeper.check()


def test_failures_on_several_nodes_are_not_in_a_row(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 2)
    look(keeper)
    farm.runs("102")
    look(keeper)
    other = JobState(State.ENDED, "FAILED", "n2")
    for state in (FAILED, other, FAILED, other):
        farm.ends(state, next(number for number in farm.open if number != "102"))
        look(keeper)
        look(keeper)
    keeper.check()


def test_the_first_three_failures_stop_it_wherever_they_are(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    nodes = [JobState(State.ENDED, "FAILED", f"n{n}") for n in range(3)]
    fail_starts(farm, keeper, look, *nodes)
    with pytest.raises(ClusterError, match="3 jobs in a row ended without having done anything"):
        keeper.check()


@pytest.mark.parametrize("can_avoid", [True, False])
def test_a_bad_node_is_avoided_where_others_work(farm: Farm, look: Look, can_avoid: bool) -> None:
    farm.can_avoid = can_avoid
    keeper = keeping(farm, 2)
    look(keeper)
    farm.runs("101")
    bad = JobState(State.ENDED, "FAILED", "n2")
    for _ in range(3):
        look(keeper)
        look(keeper)
        farm.ends(bad, next(number for number in farm.open if number != "101"))
    look(keeper, 40)
    assert farm.avoided == ["n2"]
    if can_avoid:
        look(keeper)
        keeper.check()
        assert "No more jobs go to n2" in farm.news[-1]
        assert "3 jobs in a row ended on n2" in farm.news[-1]
        assert len(farm.open) == 2
    else:
        with pytest.raises(ClusterError, match="3 jobs in a row ended on n2"):
            keeper.check()


def test_what_was_taken_is_no_failure_of_the_node(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    fail_starts(farm, keeper, look, FAILED, CANCELLED, FAILED, CANCELLED)
    keeper.check()


def test_work_that_is_done_begins_a_new_row(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 2)
    look(keeper)
    worker = farm.runs("102")
    for _ in range(3):
        number = next(n for n in farm.open if n != "102")
        farm.ends(FAILED, number)
        look(keeper)
        look(keeper)
        keeper.worked(worker)
    keeper.check()
    assert len(farm.jobs) == 5


def test_a_node_that_ends_jobs_beside_others_that_work_is_no_flood(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 2)
    look(keeper)
    worker = farm.runs("101")
    for _ in range(300):  # ten minutes
        farm.ends(FAILED, *[number for number in farm.open if number != "101"])
        look(keeper, 2)
        keeper.worked(worker)
    keeper.check()
    assert 15 < len(farm.jobs) < 30


@pytest.mark.parametrize("works", [True, False])
def test_a_walltime_that_is_too_short_for_a_block(farm: Farm, look: Look, works: bool) -> None:
    keeper = keeping(farm, 1)
    keeper.need(10)
    look(keeper)
    for _ in range(3):
        (number,) = farm.open
        worker = farm.runs(number)
        look(keeper)
        if works:
            keeper.worked(worker)
        farm.ends(JobState(State.TAKEN, "TIMEOUT (TimeLimit)", "n1"), number)
        look(keeper)
    if works:
        keeper.check()
    else:
        with pytest.raises(ClusterError, match="reached their walltime before their first block"):
            keeper.check()


@pytest.mark.parametrize("state", [COMPLETED, FAILED])
def test_jobs_that_have_worked_may_end(farm: Farm, look: Look, state: JobState) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    for _ in range(5):
        (number,) = farm.open
        worker = farm.runs(number)
        look(keeper)
        keeper.worked(worker)
        farm.ends(state, number)
        look(keeper)
    keeper.check()
    assert len(farm.jobs) == 6


def test_a_job_that_was_connected_and_completed_is_no_failure(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    for _ in range(5):
        (number,) = farm.open
        farm.runs(number)
        look(keeper)
        farm.ends(COMPLETED, number)
        look(keeper)
    keeper.check()


@pytest.mark.parametrize(("seconds", "stops"), [(10.0, True), (100.0, False)])
def test_a_worker_that_lasted_did_not_fail_at_its_start(
    farm: Farm, look: Look, seconds: float, stops: bool
) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    for _ in range(3):
        (number,) = farm.open
        farm.runs(number)
        look(keeper)
        look(keeper, seconds)
        farm.ends(FAILED, number)
        look(keeper)
        look(keeper)
    assert (keeper.failure is not None) == stops


def test_no_worker_within_the_time(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 2, wait_s=3600)
    look(keeper)
    assert farm.said == ["no worker for 31 s: the queue says: 2 jobs submitted"]
    look(keeper, 1800)
    assert farm.said[-1] == "no worker for 30:31: the queue says: 2 jobs PENDING (Resources)"
    keeper.check()
    look(keeper, 1800)
    message = (
        r"^no worker for 1:00:31: the queue says: 2 jobs PENDING \(Resources\)\. Wait longer "
        r"\(wait = … in the cluster's TOML\)"
    )
    with pytest.raises(ClusterError, match=message):
        keeper.check()


def test_the_time_counts_from_the_last_worker(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1, wait_s=3600)
    look(keeper)
    farm.runs("101")
    look(keeper, 3500)
    farm.ends(CANCELLED, "101")
    look(keeper, 3500)
    keeper.check()
    look(keeper, 200)
    with pytest.raises(ClusterError, match="no worker for 1:01:40: the queue says: 1 job PENDING"):
        keeper.check()


def test_words_about_no_worker_become_rare(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1, wait_s=10**6)
    for _ in range(1000):
        look(keeper, 10)
    assert 20 < len(farm.said) < 60  # ten seconds at first, a tenth of the time later


def test_a_failure_of_the_looking_is_told(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = keeping(farm)
    monkeypatch.setattr(keeper, "workers", lambda: 1 / 0)
    message = "^the jobs cannot be looked after any more: division by zero$"
    with pytest.raises(ClusterError, match=message):
        keeper.start()
    keeper.stop()


def test_settings_that_do_not_suit_are_told_as_they_are(farm: Farm) -> None:
    keeper = keeping(farm)

    def refuse(_: str) -> Any:
        raise ConfigError("gpus on oar: name the resource")

    keeper.make = refuse
    with pytest.raises(ConfigError, match=r"^gpus on oar: name the resource$"):
        keeper.start()
    keeper.stop()


def test_whoever_waits_is_woken(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    keeper = keeping(farm)
    keeper.start()
    assert farm.gave_up == 0
    monkeypatch.setattr(keeper, "workers", lambda: 1 / 0)
    keeper.thread.join(20)
    assert farm.gave_up == 1
    with pytest.raises(ClusterError, match="division by zero"):
        keeper.check()
    keeper.stop()


# -- as many as there is work for --------------------------------------------------------------


def test_less_work_cancels_what_waits_then_retires_who_is_idle(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 5)
    look(keeper)
    idle, _ = farm.runs("101"), farm.runs("102", "103", tasks=1)
    look(keeper)
    keeper.need(6)
    look(keeper)
    assert (farm.cancelled, farm.retired) == (["104", "105"], [])
    keeper.need(3)
    look(keeper)
    assert farm.retired == [idle]
    look(keeper)
    assert farm.retired == [idle]  # once is enough, while it goes
    farm.ends(COMPLETED, "101")
    look(keeper)
    assert farm.open == ["102", "103"]
    assert len(farm.jobs) == 5  # nobody is replaced
    assert farm.news == []
    keeper.check()


def test_a_retired_worker_that_is_still_there_is_not_counted_twice(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 3)
    look(keeper)
    farm.runs("101", "102", "103")
    look(keeper)
    keeper.need(4)
    look(keeper)
    assert farm.retired == [farm.worker("101")]
    keeper.need(2)
    look(keeper)
    assert farm.retired == [farm.worker("101"), farm.worker("102")]


def test_busy_workers_stay(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 3)
    look(keeper)
    farm.runs("101", "102", "103", tasks=2)
    keeper.need(1)
    look(keeper)
    assert (farm.retired, farm.cancelled) == ([], [])
    farm.tasks[farm.worker("102")] = 0
    look(keeper)
    assert farm.retired == [farm.worker("102")]


def test_a_requeued_job_that_waits_is_let_go_too(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 2)
    look(keeper)
    farm.runs("101", "102", tasks=1)
    look(keeper)
    farm.ends(JobState(State.WAITING, "PENDING (BeginTime)", restarts=1), "102")
    look(keeper)
    keeper.need(1)
    look(keeper)
    assert (farm.cancelled, farm.retired) == (["102"], [])


def test_one_job_stays_when_nothing_is_left(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 3)
    keeper.need(0)
    look(keeper)
    assert farm.open == ["101"]


def test_more_work_brings_them_back(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 4)
    keeper.need(3)
    look(keeper)
    assert farm.open == ["101", "102"]
    keeper.need(1000)
    look(keeper)
    assert farm.open == ["101", "102", "103", "104"]


# -- why a worker was lost ---------------------------------------------------------------------


def lose(farm: Farm, look: Look, state: JobState) -> tuple[JobKeeper, str]:
    """A keeper of one job whose worker is lost while the queue says so; the worker's name."""
    keeper = keeping(farm, 1)
    look(keeper)
    worker = farm.runs("101")
    look(keeper)
    farm.ends(state, "101")
    return keeper, worker


@pytest.mark.parametrize(
    ("state", "excused"),
    [
        (CANCELLED, True),
        (JobState(State.TAKEN, "PREEMPTED", "n1"), True),
        (JobState(State.WAITING, "PENDING (BeginTime)", None, 1), True),
        (JobState(State.RUNNING, "RUNNING", "n2", 1), True),  # again, elsewhere
        (RUNNING, False),  # its nanny starts another one
        (FAILED, False),
        (JobState(State.ENDED, "OUT_OF_MEMORY", "n1"), False),
        (COMPLETED, False),
    ],
)
def test_which_losses_are_excused(farm: Farm, look: Look, state: JobState, excused: bool) -> None:
    keeper, worker = lose(farm, look, state)
    assert keeper.excused(worker) is excused
    look(keeper)
    assert keeper.excused(worker) is excused  # also when the job is over and replaced


def test_a_worker_after_a_requeue_is_judged_by_itself(farm: Farm, look: Look) -> None:
    keeper, _ = lose(farm, look, JobState(State.WAITING, "PENDING (BeginTime)", restarts=1))
    look(keeper)
    farm.states["101"] = JobState(State.RUNNING, "RUNNING", "n1", 1)
    farm.tasks["n2v-1.second"] = 1
    look(keeper)
    del farm.tasks["n2v-1.second"]
    assert keeper.excused("n2v-1.0a1b2c3d")
    assert not keeper.excused("n2v-1.second")


@pytest.mark.parametrize(("end", "excused"), [(CANCELLED, True), (FAILED, False)])
def test_a_verdict_is_waited_for(
    farm: Farm, look: Look, clock: Clock, end: JobState, excused: bool
) -> None:
    keeper, worker = lose(farm, look, COMPLETING)
    until = clock.now + 3

    def tell() -> None:
        if clock.now > until:
            farm.states["101"] = end

    clock.while_asleep = tell
    assert keeper.excused(worker) is excused
    assert clock.now > until


def test_a_verdict_that_does_not_come_is_none(farm: Farm, look: Look, clock: Clock) -> None:
    keeper, worker = lose(farm, look, COMPLETING)
    before = clock.now
    assert keeper.excused(worker)
    assert module.VERDICT_S <= clock.now - before < 2 * module.VERDICT_S


def test_workers_that_are_not_ours_are_not_excused(farm: Farm, look: Look) -> None:
    keeper = keeping(farm)
    look(keeper)
    assert not keeper.excused("somebody")
    keeper.worked("somebody")


# -- the end -----------------------------------------------------------------------------------


def test_what_has_no_worker_is_cancelled_at_the_end(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 3)
    look(keeper)
    farm.runs("101", "102")
    farm.ends(FAILED, "103")
    look(keeper)
    look(keeper)
    keeper.stop()
    assert farm.cancelled == ["104"]
    assert farm.open == ["101", "102"]


@pytest.mark.parametrize("forgets", [False, True])
def test_workers_go_by_themselves_or_are_cancelled(
    farm: Farm, look: Look, clock: Clock, forgets: bool
) -> None:
    """They go when the scheduler does; some systems then know nothing of their jobs any more."""
    keeper = keeping(farm, 3)
    look(keeper)
    farm.runs("101", "102", "103")
    look(keeper)
    keeper.stop()
    assert farm.cancelled == []

    def go() -> None:
        farm.silent = not farm.silent
        farm.ends(COMPLETED, "101", "103")
        if forgets:
            farm.states.pop("101")

    clock.while_asleep = go
    before = clock.now
    keeper.cancel_what_is_left()
    assert farm.cancelled == ["102"]
    assert clock.now - before >= module.GOING_S  # it was given a chance


def test_nobody_waits_for_workers_that_have_gone(farm: Farm, look: Look, clock: Clock) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    farm.runs("101")
    look(keeper)
    keeper.stop()
    farm.states.clear()
    before = clock.now
    keeper.cancel_what_is_left()
    assert farm.cancelled == []
    assert clock.now - before < module.GOING_S


def test_nothing_is_submitted_after_stop(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 3)
    look(keeper)
    keeper.stop()
    look(keeper)
    assert (len(farm.jobs), farm.open) == (3, [])


async def stopping(keeper: JobKeeper) -> None:
    keeper.stop()


def test_stop_from_within_an_event_loop(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 1)
    look(keeper)
    asyncio.run(stopping(keeper))
    assert farm.cancelled == ["101"]


def test_a_cancellation_that_fails_leaves_the_others(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 3)
    look(keeper)

    async def fail() -> None:
        raise FileNotFoundError("scancel")

    keeper.entries[0].job.close = fail
    keeper.stop()
    assert farm.cancelled == ["102", "103"]


def test_stop_ends_a_row_of_submissions(farm: Farm, look: Look) -> None:
    keeper = keeping(farm, 100)

    def make(name: str) -> FakeJob:
        if len(farm.jobs) == 4:
            keeper.stopping.set()
        return FakeJob(farm, name)

    keeper.make = make
    look(keeper)
    assert len(farm.jobs) == 5
    keeper.stop()
    assert farm.open == []
