"""Who holds a lock, and whether that process still lives."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
import uuid
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LONGEST_LEASE_S = 3600.0

HELD: set[str] = set()
"""Tokens of the locks that this process holds or is asking for.

A lock of this process whose token is missing here is an orphan: of an earlier call whose store
failed when it was to be released.
"""


class Holder(BaseModel):
    """A process that holds a lock, as the lock itself says it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    token: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    process_start: str
    """Tells the process from a later one that got its number."""
    space: str
    """Where ``pid`` means this process; see :func:`process_space`."""
    user: str
    since: str
    """ISO 8601, for people: times of two hosts are never compared."""
    beat: int = 0
    """Counts up as long as the holder lives."""
    lease_s: Annotated[float, Field(gt=0, le=LONGEST_LEASE_S)]

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host} (since {self.since})"

    @classmethod
    def this_process(cls, lease_s: float) -> Holder:
        """Names the process that calls, with a token of its own."""
        return cls(
            token=secrets.token_hex(16),
            host=socket.gethostname(),
            pid=os.getpid(),
            process_start=_start_of(os.getpid()) or "",
            space=process_space(),
            user=_user(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            lease_s=lease_s,
        )

    @classmethod
    def decode(cls, content: bytes) -> Holder | None:
        """The holder that a lock names, or None when the lock is torn or nothing of ours."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return None

    def encode(self) -> bytes:
        """The lock's content, JSON."""
        return self.model_dump_json().encode()

    def alive(self) -> bool | None:
        """Whether the process lives; None when that cannot be told from here."""
        if self.space != process_space():
            return None
        try:
            if _start_of(self.pid) != self.process_start:
                return False
        except PermissionError:
            return None
        return self.pid != os.getpid() or self.token in HELD


def process_space() -> str:
    """Identity of the space in which process numbers are unique: a boot, or a container in it.

    Containers may share their host's name, and machines may share a default name, so where the
    kernel names no space, the network card's address goes with the host name. A machine without
    one gets a random number, and is then a stranger to itself: that costs a lease, no data.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"


def _start_of(pid: int) -> str | None:
    """When a process began, None when it is gone (a zombie is), whatever is done to the clock.

    Raises
    ------
    PermissionError
        When there is such a process and it may not be looked at.
    """
    try:
        return _start_on_linux(pid) if sys.platform == "linux" else _start_elsewhere(pid)
    except (FileNotFoundError, ProcessLookupError):
        if _exists(pid):  # /proc may hide the processes of other users
            raise PermissionError(f"process {pid} is hidden") from None
        return None


def _start_on_linux(pid: int) -> str | None:
    """In ticks since the boot: seconds since 1970 would move when the clock is set."""
    status = Path(f"/proc/{pid}/stat").read_text()
    fields = status.rpartition(")")[2].split()  # the name before may hold anything
    return None if fields[0] in "ZX" else fields[19]


def _start_elsewhere(pid: int) -> str | None:
    psutil = import_module("psutil")
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return None if zombie else f"{process.create_time():.2f}"
    except psutil.ZombieProcess:
        return None
    except psutil.AccessDenied as exc:
        raise PermissionError(str(exc)) from exc
    except psutil.NoSuchProcess as exc:
        raise ProcessLookupError(str(exc)) from exc


def _exists(pid: int) -> bool:
    if os.name != "posix":  # where signal 0 would end the process, and nothing is hidden
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user often has no name
        return f"user {os.getuid()}"
