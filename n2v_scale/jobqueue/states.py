"""What a batch system says of jobs, in six words."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

ASK_TIMEOUT_S = 30.0


class State(Enum):
    """Of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDING = "ending"
    """It is being taken down, and why is not told yet."""
    TAKEN = "taken"
    """Ended by somebody else: cancelled, preempted, out of time, its node lost."""
    DONE = "done"
    """Ended by itself, and well."""
    ENDED = "ended"
    """By itself and not well, or nobody knows how."""


@dataclass(frozen=True)
class JobState:
    """A job as its batch system sees it."""

    state: State
    words: str
    """The system's own."""
    node: str | None = None
    restarts: int = 0
    """How often it was put back into the queue and started again."""

    @property
    def over(self) -> bool:
        """Whether it will never run again."""
        return self.state in (State.TAKEN, State.DONE, State.ENDED)


UNKNOWN = JobState(State.ENDED, "the queue does not know it any more")

Ask = Callable[[Iterable[str]], dict[str, JobState] | None]
"""States of jobs, by number; None when the system does not answer. Jobs that it does not know are
missing."""

_SLURM = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"),
        State.WAITING,
    ),
    **dict.fromkeys(
        ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"), State.RUNNING
    ),
    "COMPLETING": State.ENDING,
    "COMPLETED": State.DONE,
    **dict.fromkeys(
        ("CANCELLED", "PREEMPTED", "TIMEOUT", "NODE_FAIL", "DEADLINE", "REVOKED"), State.TAKEN
    ),
}
"""What is not listed has not ended well: FAILED, OUT_OF_MEMORY, BOOT_FAIL."""
_SLURM_FORMAT = "JobID:|,State:|,RestartCnt:|,NodeList:|,Reason:|"


def ask_slurm(jobs: Iterable[str]) -> dict[str, JobState] | None:
    """Of ``squeue``, which tells of jobs for some minutes after their end."""
    wanted = set(jobs)
    said = _said("squeue", "-h", "-t", "all", "-u", str(os.getuid()), "-O", _SLURM_FORMAT)
    if said is None:
        return None
    found = {}
    for line in said.splitlines():
        number, *told_of = [part.strip() for part in line.split("|")]
        if number in wanted and len(told_of) >= 4:
            word, restarts, node, reason = told_of[:4]
            state = _SLURM.get(word, State.ENDED)
            told = word if reason in ("", "None") else f"{word} ({reason})"
            count = int(restarts) if restarts.isdigit() else 0
            found[number] = JobState(state, told, node or None, count)
    return found


@dataclass(frozen=True)
class _Program:
    """A batch system's command that tells of one job: its state in letters, if it knows it."""

    command: tuple[str, ...]
    letters: str
    """Finds the state in what the command says, as the group ``state``."""
    waiting: tuple[str, ...]
    running: tuple[str, ...]
    ending: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


_PROGRAMS: Mapping[str, _Program] = {
    "pbs": _Program(
        ("qstat", "-f"), r"job_state = (?P<state>\w)", ("Q", "H", "W", "T"), ("R", "S", "B"), ("E",)
    ),
    "moab": _Program(
        ("checkjob",),
        r"State:\s*(?P<state>\w+)",
        ("Idle", "Hold", "Deferred", "BatchHold", "UserHold", "SystemHold"),
        ("Running", "Starting", "Suspended", "Migrated"),
        done=("Completed",),
        taken=("Removed", "Vacated"),
    ),
    "lsf": _Program(
        ("bjobs", "-noheader", "-o", "stat"),
        r"(?P<state>\w+)",
        ("PEND", "PSUSP", "WAIT"),
        ("RUN", "USUSP", "SSUSP", "UNKWN", "ZOMBI", "PROV"),
        done=("DONE",),
    ),
    "sge": _Program(("qstat", "-j"), r"(?P<state>job_number)", (), ("job_number",)),
    "oar": _Program(
        ("oarstat", "-s", "-j"),
        r":\s*(?P<state>\w+)",
        ("Waiting", "Hold", "toLaunch", "Launching", "toAckReservation"),
        ("Running", "Suspended", "Resuming"),
        ("Finishing", "toError"),
        done=("Terminated",),
    ),
    "htcondor": _Program(
        ("condor_q", "-format", "%d", "JobStatus"),
        r"(?P<state>\d)",
        ("1", "5"),
        ("2", "6", "7"),
        done=("4",),
        taken=("3",),
    ),
}


_UNREACHED = re.compile(
    "connect|contact|communicat|commlib|timed out|timeout|unreachable|refused|is down|not respond",
    re.IGNORECASE,
)
"""In the words of a program whose server is away: its jobs run on, unlike one that is unknown."""


def ask_program(system: str, jobs: Iterable[str]) -> dict[str, JobState] | None:
    """Of the systems that have to be asked for each job; few of them tell why one has ended."""
    program, found = _PROGRAMS[system], {}
    for number in jobs:
        said = _said(*program.command, number, failing="")
        if said is None:
            return None
        match = re.search(program.letters, said)
        if match:
            state = _state(program, match["state"])
            found[number] = JobState(state, f"{state.value} ({match['state']})")
    return found


def _state(program: _Program, letters: str) -> State:
    if letters in program.waiting:
        return State.WAITING
    if letters in program.running:
        return State.RUNNING
    if letters in program.ending:
        return State.ENDING
    if letters in program.done:
        return State.DONE
    return State.TAKEN if letters in program.taken else State.ENDED


def asking(system: str) -> Ask:
    """Who asks ``system``."""
    if system == "slurm":
        return ask_slurm
    return lambda jobs: ask_program(system, jobs)


def _said(*command: str, failing: str | None = None) -> str | None:
    """What a command prints; ``failing`` when it refuses, None when it is absent, hangs, or does
    not reach its server.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return done.stdout
    return None if _UNREACHED.search(done.stderr) else failing
