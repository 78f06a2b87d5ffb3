"""TLS keys of one run, in a folder that only the user can read and that the nodes see."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from distributed.security import Security

from n2v_scale.errors import ClusterError

PREFIX = "keys-"


@dataclass(frozen=True)
class Credentials:
    """What lets a process into a cluster: the same in memory, for this one, and in files."""

    security: Security
    ca: Path
    cert: Path
    key: Path

    @property
    def options(self) -> list[str]:
        """For a worker's command line: paths, no secrets."""
        return [
            *("--tls-ca-file", str(self.ca)),
            *("--tls-cert", str(self.cert)),
            *("--tls-key", str(self.key)),
        ]


@contextmanager
def temporary_credentials(folder: Path) -> Iterator[Credentials]:
    """New ones, in a folder of their own inside ``folder``, which goes at the end.

    Those of runs on this machine that were killed go too.

    Raises
    ------
    ClusterError
        When the folder cannot be written.
    """
    own: Path | None = None
    try:
        try:
            _sweep(folder)
            own = _own_folder(folder)
            made = _write(Security.temporary(), own)
        except OSError as error:
            raise ClusterError(
                f"{folder} cannot be written ({error.strerror or error}), and the cluster's keys "
                "belong there: set shared = … in the cluster's TOML to a folder that the nodes see"
            ) from error
        yield made
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def _own_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    prefix = f"{PREFIX}{socket.gethostname()}-{os.getpid()}-"
    return Path(tempfile.mkdtemp(prefix=prefix, dir=folder))  # mode 0700


def _write(security: Security, folder: Path) -> Credentials:
    found = security.get_tls_config_for_role("worker")
    files = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    for name, field in (("ca", "ca_file"), ("cert", "cert"), ("key", "key")):
        handle = os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(str(found[field]))
    return Credentials(security, **files)


def _sweep(folder: Path) -> None:
    # The whole name: keys-login-2-4711-… are those of process 4711 on login-2, not on login.
    ours = re.compile(rf"{PREFIX}{re.escape(socket.gethostname())}-(\d+)-[^-]+")
    for path in folder.glob(f"{PREFIX}*"):
        match = ours.fullmatch(path.name)
        if match and not psutil.pid_exists(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)
