"""Where to compute, from a word and a validated TOML section: this machine, a batch system's jobs,
or a Dask scheduler that runs already.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from n2v_scale.config import Bytes, Positive, Seconds, Settings, read_settings, read_table
from n2v_scale.errors import ConfigError

BatchSystem = Literal["slurm", "pbs", "lsf", "sge", "htcondor", "oar", "moab"]
BATCH_SYSTEMS: tuple[str, ...] = ("slurm", "pbs", "lsf", "sge", "htcondor", "oar", "moab")
OTHERS = "tls://HOST:PORT, a scheduler.json"


class DriverSettings(Settings):
    """What the driver's own job has (``--submit-only``), where it is not what workers have."""

    partition: str | None = None
    walltime: Annotated[Seconds, Field(ge=60)] | None = None
    memory: Bytes | None = None
    cpus: Positive | None = None
    gpus: Annotated[int, Field(ge=0, le=1)] | None = None
    directives: tuple[str, ...] | None = None


class ClusterSettings(Settings):
    """Where to compute. What is None is left to the batch system, or chosen."""

    table: ClassVar[str] = "cluster"

    system: BatchSystem | Literal["local", "scheduler"] = "local"
    """A batch system, ``local``, or ``scheduler`` for one that runs already, at ``address``."""
    address: str | None = None
    """Of a scheduler: ``tls://host:8786``, or the path of its ``scheduler.json``."""
    jobs: Positive = 4
    """The most that run at a time; each is one worker process."""
    partition: str | None = None
    """The partition or queue."""
    account: str | None = None
    """The account or project that pays."""
    walltime: Annotated[Seconds, Field(ge=60, allow_inf_nan=False)] = 3600.0
    """Of a job: seconds, or a text such as ``2h`` or ``02:00:00``."""
    memory: Bytes = 16 * 2**30
    """Of a job: bytes, or a text such as ``64GB``."""
    cpus: Positive = 4
    """Of a job."""
    gpus: Annotated[int, Field(ge=0, le=1)] = 0
    """Of a job, 0 or 1: for several GPUs ask for several jobs."""
    gpu_memory: Bytes | None = None
    """Of one GPU, where the machine that plans has none to ask."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as ``module load cuda``."""
    directives: tuple[str, ...] = ()
    """Further options of a job, such as ``--constraint=a100``."""
    scratch: str | None = None
    """A folder on the node for what a worker spills; what ``$TMPDIR`` says when None."""
    python: str | None = None
    """Of the workers; the one that runs here when None."""
    shared: str | None = None
    """A folder that this machine and the nodes see: certificates of a run, logs of its jobs."""
    interface: str | None = None
    """The network interface that nodes and this machine talk through, such as ``ib0``."""
    host: str | None = None
    """The address of this machine as the nodes see it."""
    port: Annotated[int, Field(ge=0, lt=2**16)] = 0
    """Of the scheduler, where a firewall leaves only some open; any when 0."""
    wait: Seconds = 24 * 3600.0
    """So long there may be no worker at all."""
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    """PEM files of a scheduler that runs already."""
    insecure: bool = False
    """Whether to talk without TLS."""
    driver: DriverSettings = DriverSettings()
    """Of the driver, where it is a job too; the table ``[cluster.driver]``."""

    def of_driver(self) -> ClusterSettings:
        """The settings of the driver's job."""
        return self.model_copy(update=self.driver.model_dump(exclude_none=True))

    @property
    def batch(self) -> bool:
        """Whether workers are jobs of a batch system."""
        return self.system in BATCH_SYSTEMS

    @model_validator(mode="after")
    def _one_way(self) -> ClusterSettings:
        if (self.address is not None) != (self.system == "scheduler"):
            raise ValueError("address belongs to system scheduler")
        files = [name is not None for name in (self.tls_ca, self.tls_cert, self.tls_key)]
        if any(files) and not all(files):
            raise ValueError("tls-ca, tls-cert and tls-key belong together: give all or none")
        if any(files) and self.system != "scheduler":
            raise ValueError(
                "tls-ca, tls-cert and tls-key are for a scheduler that runs already: a cluster "
                "that is started here makes its own"
            )
        if self.interface is not None and self.host is not None:
            raise ValueError("interface and host say the same: choose one")
        return self


def read_cluster(
    word: str | None, file: str | PathLike[str] | None = None, **given: Any
) -> ClusterSettings:
    """What a word means: ``local``, a batch system, a scheduler's address or file, or a preset.

    ``file`` is a TOML file, whose keys stand alone or in the table ``[cluster]``; ``given``
    overrides it. Without a word, the file's ``system`` says what it is.

    Raises
    ------
    ConfigError
        When nobody knows the word, a setting is unknown or out of range, or what is given needs a
        cluster and none is named.
    """
    chosen = _chosen(word, file, given)
    if chosen.system == "local" and word is None and "system" not in chosen.model_fields_set:
        told = [f"--{key.replace('_', '-')}" for key, value in given.items() if value is not None]
        if file is not None or told:
            raise ConfigError(
                f"{told[0] if told else file} is for a cluster: say which with --cluster, or "
                "system = … in its TOML"
            )
    return chosen


def _chosen(
    word: str | None, file: str | PathLike[str] | None, given: dict[str, Any]
) -> ClusterSettings:
    if word is None:
        return read_settings(ClusterSettings, file, **given)
    if word in ("local", *BATCH_SYSTEMS):
        _refuse_another_system(word, word, file)
        return read_settings(ClusterSettings, file, system=word, **given)
    if "://" in word or word.endswith(".json"):
        _refuse_another_system(word, "scheduler", file)
        return read_settings(ClusterSettings, file, system="scheduler", address=word, **given)
    preset = presets_folder() / f"{word}.toml"
    if not preset.is_file():
        raise ConfigError(
            f"--cluster {word}: choose local, {', '.join(BATCH_SYSTEMS)}, {OTHERS}, or {_presets()}"
        )
    if file is not None:
        raise ConfigError(f"--cluster {word} is the preset {preset}: leave out --cluster-config")
    return read_settings(ClusterSettings, preset, **given)


def _refuse_another_system(word: str, system: str, file: str | PathLike[str] | None) -> None:
    """What is written for one batch system hardly suits another."""
    own = None if file is None else read_table(ClusterSettings, file).get("system")
    if own not in (None, system):
        raise ConfigError(
            f'--cluster {word}: {file} says system = "{own}"; leave out --cluster, or change the '
            "file"
        )


def presets_folder() -> Path:
    """Where a user's presets lie: ``~/.config/n2v-scale/clusters``.

    Raises
    ------
    ConfigError
        When nobody knows where the home directory is.
    """
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else home_folder() / ".config") / "n2v-scale" / "clusters"


def home_folder() -> Path:
    """The user's home directory.

    Raises
    ------
    ConfigError
        When ``HOME`` is not set, and the system knows no user of this number, as in a container.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise ConfigError(
            "no home directory is known here: HOME is not set, and the system does not know this "
            "user; set HOME"
        ) from None


def preset_names() -> list[str]:
    """Of the user's presets, sorted; none where there is no such folder."""
    try:
        return sorted(path.stem for path in presets_folder().glob("*.toml"))
    except (ConfigError, OSError):
        return []


def _presets() -> str:
    names, where = preset_names(), f"{presets_folder()}"
    return f"a preset of {where}: {', '.join(names)}" if names else f"a preset NAME.toml in {where}"
