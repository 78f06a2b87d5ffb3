"""One tree of exceptions.

Every error that a user can cause says what was seen, what the limit is and what to do.
The command line prints the message and exits with ``exit_code``; nobody sees a traceback.
"""

from __future__ import annotations

import errno


class N2VScaleError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class InputError(N2VScaleError):
    """The input cannot be read, or is not what the command needs."""


class ConfigError(N2VScaleError):
    """A setting is unknown, out of range, or contradicts another."""


class ModelError(N2VScaleError):
    """A model folder is broken, or does not fit the volume."""


class OutputError(N2VScaleError):
    """The output exists and differs, or cannot be written."""


class PlanError(N2VScaleError):
    """The work cannot be divided as asked."""


class ClusterError(N2VScaleError):
    """Workers cannot be started, or every task on them fails."""


class TrainingError(N2VScaleError):
    """Training cannot go on."""


class DeviceMemoryError(TrainingError):
    """A step does not fit the device's memory."""


class IncompleteError(N2VScaleError):
    """Some blocks failed; the rest is written, and the same command runs only what is missing."""

    exit_code = 3


_CURES = {
    errno.ENOSPC: "free some space, or name another folder; the same command goes on",
    errno.EDQUOT: "free some space, or name another folder; the same command goes on",
    errno.EACCES: "name a folder that you may write to, or have it opened to you",
    errno.EPERM: "name a folder that you may write to, or have it opened to you",
    errno.EROFS: "name a folder that can be written to",
    errno.EMFILE: "allow more open files first, such as with ulimit -n 4096",
    errno.EEXIST: "choose another name",
    errno.ENOTDIR: "choose another name: a part of it is a file",
    errno.ENOENT: "check that its folder exists",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def system_error_text(error: OSError) -> str:
    """What the system refused, where, and what to do about it."""
    if error.errno is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    cure = _CURES.get(error.errno)
    return f"{where}{error.strerror}" + (f"; {cure}" if cure else "")
