"""What batch systems say of jobs, by programs of ours under their names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from n2v_scale.jobqueue import states
from n2v_scale.jobqueue.states import JobState, State, ask_program, ask_slurm, asking

Program = Callable[..., Path]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a program on the path; what it was called with goes to the file that is returned."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, out: str = "", *, err: str = "", code: int = 0, more: str = "") -> Path:
        calls = tmp_path / f"{name}.calls"
        lines = [
            "#!/bin/sh",
            f'echo "$@" >> {shlex.quote(str(calls))}',
            f"printf %s {shlex.quote(out)}",
            f"printf %s {shlex.quote(err)} >&2",
            more,
            f"exit {code}",
        ]
        (tmp_path / name).write_text("\n".join(lines))
        (tmp_path / name).chmod(0o755)
        return calls

    return write


def test_lines_of_squeue(program: Program) -> None:
    calls = program(
        "squeue",
        "11      |PENDING |0|         |Resources|\n"
        "12|RUNNING|2|node[3]|None|\n"
        "13|COMPLETING|0|n1|None|\n"
        "14|COMPLETED|0|n1|None|\n"
        "15|CANCELLED|0||None|\n"
        "16|FAILED|0|n1|NonZeroExitCode|\n"
        "17|OUT_OF_MEMORY|0|n1|OutOfMemory|\n"
        "18|PREEMPTED|1|n1|None|\n"
        "19|TIMEOUT|0|n1|TimeLimit|\n"
        "20|NODE_FAIL|N/A|n1|None|\n",
    )
    found = ask_slurm([str(n) for n in range(11, 22)])
    assert found == {
        "11": JobState(State.WAITING, "PENDING (Resources)"),
        "12": JobState(State.RUNNING, "RUNNING", "node[3]", 2),
        "13": JobState(State.ENDING, "COMPLETING", "n1"),
        "14": JobState(State.DONE, "COMPLETED", "n1"),
        "15": JobState(State.TAKEN, "CANCELLED"),
        "16": JobState(State.ENDED, "FAILED (NonZeroExitCode)", "n1"),
        "17": JobState(State.ENDED, "OUT_OF_MEMORY (OutOfMemory)", "n1"),
        "18": JobState(State.TAKEN, "PREEMPTED", "n1", 1),
        "19": JobState(State.TAKEN, "TIMEOUT (TimeLimit)", "n1"),
        "20": JobState(State.TAKEN, "NODE_FAIL", "n1"),
    }
    (call,) = calls.read_text().splitlines()  # one question for all of them
    assert f"-u {os.getuid()} " in call


def test_others_jobs_and_odd_lines_are_passed_over(program: Program) -> None:
    program(
        "squeue",
        "7_[1-3]|PENDING|0||Priority|\n"
        "7_1|RUNNING|0|n1|None|\n"
        "70|RUNNING|0|n1|None|\n"
        "slurm_load_jobs: warning\n"
        "\n"
        "8|RUNNING\n"
        "7|RUNNING|0|n2|None|\n",
    )
    assert ask_slurm(["7", "8"]) == {"7": JobState(State.RUNNING, "RUNNING", "n2")}


def test_an_empty_queue_is_an_answer(program: Program) -> None:
    program("squeue")
    assert ask_slurm(["1"]) == {}


def test_a_squeue_that_fails_says_nothing(program: Program) -> None:
    program("squeue", "1|RUNNING|0|n1|None|\n", err="Unable to contact slurm controller", code=1)
    assert ask_slurm(["1"]) is None


def test_a_program_that_hangs_says_nothing(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("squeue", more="exec sleep 30")
    monkeypatch.setattr(states, "ASK_TIMEOUT_S", 0.2)
    assert ask_slurm(["1"]) is None


@pytest.mark.parametrize("system", ["slurm", "pbs", "htcondor"])
def test_a_program_that_is_absent_says_nothing(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asking(system)(["1"]) is None


def test_bytes_that_are_no_text(program: Program) -> None:
    program("squeue", more=r"printf '1|RUNNING|0|n\377|None|\n'")
    found = ask_slurm(["1"])
    assert found is not None
    assert found["1"].state is State.RUNNING


SAID = [
    ("pbs", "qstat", "Job Id: 5.head\n    job_state = Q\n", State.WAITING, "-f 5"),
    ("pbs", "qstat", "Job Id: 5.head\n    job_state = R\n", State.RUNNING, "-f 5"),
    ("pbs", "qstat", "Job Id: 5.head\n    job_state = E\n", State.ENDING, "-f 5"),
    ("pbs", "qstat", "Job Id: 5.head\n    job_state = C\n", State.ENDED, "-f 5"),
    ("moab", "checkjob", "job 5\n\nState: Idle  EState: Deferred\n", State.WAITING, "5"),
    ("moab", "checkjob", "job 5\n\nState: Running\n", State.RUNNING, "5"),
    ("moab", "checkjob", "job 5\n\nState: Completed\n", State.DONE, "5"),
    ("moab", "checkjob", "job 5\n\nState: Removed\n", State.TAKEN, "5"),
    ("lsf", "bjobs", "PEND\n", State.WAITING, "-noheader -o stat 5"),
    ("lsf", "bjobs", "RUN\n", State.RUNNING, "-noheader -o stat 5"),
    ("lsf", "bjobs", "DONE\n", State.DONE, "-noheader -o stat 5"),
    ("lsf", "bjobs", "EXIT\n", State.ENDED, "-noheader -o stat 5"),
    ("sge", "qstat", "=====\njob_number:       5\n", State.RUNNING, "-j 5"),
    ("oar", "oarstat", "5: Waiting\n", State.WAITING, "-s -j 5"),
    ("oar", "oarstat", "5: Running\n", State.RUNNING, "-s -j 5"),
    ("oar", "oarstat", "5: Finishing\n", State.ENDING, "-s -j 5"),
    ("oar", "oarstat", "5: Terminated\n", State.DONE, "-s -j 5"),
    ("oar", "oarstat", "5: Error\n", State.ENDED, "-s -j 5"),
    ("htcondor", "condor_q", "1", State.WAITING, "-format %d JobStatus 5"),
    ("htcondor", "condor_q", "2", State.RUNNING, "-format %d JobStatus 5"),
    ("htcondor", "condor_q", "3", State.TAKEN, "-format %d JobStatus 5"),
    ("htcondor", "condor_q", "4", State.DONE, "-format %d JobStatus 5"),
    ("htcondor", "condor_q", "5", State.WAITING, "-format %d JobStatus 5"),
]


@pytest.mark.parametrize(("system", "name", "out", "state", "call"), SAID)
def test_other_systems(
    program: Program, system: str, name: str, out: str, state: State, call: str
) -> None:
    calls = program(name, out)
    found = asking(system)(["5"])
    assert found is not None
    assert found["5"].state is state
    assert found["5"].words.startswith(state.value)
    assert calls.read_text() == f"{call}\n"


UNKNOWN_TO = [
    ("pbs", "qstat", "qstat: Unknown Job Id 5.head", 153),
    ("moab", "checkjob", "ERROR:  invalid job specified (5)", 1),
    ("lsf", "bjobs", "Job <5> is not found", 255),
    ("sge", "qstat", "Following jobs do not exist:\n5", 1),
    ("htcondor", "condor_q", "", 0),
]


@pytest.mark.parametrize(("system", "name", "err", "code"), UNKNOWN_TO)
def test_jobs_that_a_system_does_not_know(
    program: Program, system: str, name: str, err: str, code: int
) -> None:
    calls = program(name, err=err, code=code)
    assert ask_program(system, ["5", "6"]) == {}
    assert len(calls.read_text().splitlines()) == 2


UNREACHED = [
    ("pbs", "qstat", "qstat: cannot connect to server head (errno=111)"),
    ("moab", "checkjob", "ERROR:    cannot connect to server 'head' on port 42559"),
    ("lsf", "bjobs", "LSF is down. Please wait ..."),
    ("lsf", "bjobs", "batch daemon not responding ... still trying"),
    ("sge", "qstat", "error: unable to send message to qmaster: got send error (commlib error)"),
    ("htcondor", "condor_q", "-- Failed to fetch ads from: <10.0.0.1>: Connection refused"),
]


@pytest.mark.parametrize(("system", "name", "err"), UNREACHED)
def test_a_system_that_is_away_is_not_one_without_jobs(
    program: Program, system: str, name: str, err: str
) -> None:
    program(name, err=err, code=1)
    assert asking(system)(["5"]) is None
