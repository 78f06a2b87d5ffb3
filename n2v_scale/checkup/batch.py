"""Batch systems: their programs, the library that talks to them, and the user's presets."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from n2v_scale.checkup.check import Check, note, ok, problem
from n2v_scale.cluster_settings import ClusterSettings, presets_folder
from n2v_scale.config import read_settings
from n2v_scale.errors import ConfigError

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "slurm": ("sbatch", "squeue", "scancel", "scontrol"),
    "pbs": ("qsub", "qstat", "qdel"),
    "lsf": ("bsub", "bjobs", "bkill"),
    "sge": ("qsub", "qstat", "qdel", "qconf"),
    "htcondor": ("condor_submit", "condor_q", "condor_rm"),
    "oar": ("oarsub", "oarstat", "oardel"),
    "moab": ("msub", "checkjob", "canceljob"),
}
"""The first submits, and tells which batch system is there; SGE's ``qconf`` tells it from PBS."""


@dataclass(frozen=True)
class Preset:
    """A file of the user's, and what is wrong with it; empty where nothing is."""

    name: str
    path: str
    failure: str = ""


def look_at_batch() -> list[Check]:
    """Programs, dask-jobqueue and presets."""
    names = {name for programs in PROGRAMS.values() for name in programs}
    found = {name for name in names if shutil.which(name)}
    jobqueue = importlib.util.find_spec("dask_jobqueue") is not None
    return [judge_programs(found, jobqueue=jobqueue), *judge_presets(_presets())]


def judge_programs(found: Collection[str], *, jobqueue: bool) -> Check:
    """Which batch systems jobs can be sent to from here."""
    systems = systems_of(found)
    if not systems:
        return ok("cluster", "no batch system here: computes on this machine")
    lacking = {s: [name for name in PROGRAMS[s] if name not in found] for s in systems}
    if any(lacking.values()):
        told = "; ".join(f"{s} lacks {', '.join(names)}" for s, names in lacking.items() if names)
        return note("cluster", told, "have them installed, or add their folder to PATH")
    if not jobqueue:
        return note(
            "cluster",
            f"{', '.join(systems)} is here, and dask-jobqueue is not",
            "pip install 'n2v-scale[slurm]'",
        )
    return ok("cluster", f"{', '.join(systems)}: programs and dask-jobqueue are here")


def systems_of(found: Collection[str]) -> list[str]:
    """The batch systems whose program that submits is there."""
    systems = [name for name, programs in PROGRAMS.items() if programs[0] in found]
    other = "pbs" if "qconf" in found else "sge"
    return [name for name in systems if name != other]


def judge_presets(presets: Collection[Preset]) -> list[Check]:
    """One line for all that are well, and one for each that is not."""
    good = [preset.name for preset in presets if not preset.failure]
    bad = [preset for preset in presets if preset.failure]
    checks = [ok("presets", f"--cluster {', '.join(good)}")] if good else []
    return checks + [
        problem(
            "presets",
            f"--cluster {preset.name} would stop: {preset.failure}",
            f"correct {preset.path}",
        )
        for preset in bad
    ]


def _presets() -> list[Preset]:
    try:
        files = sorted(presets_folder().glob("*.toml"))
    except (ConfigError, OSError):
        return []  # there is no home directory, which another line says
    seen = []
    for file in files:
        try:
            read_settings(ClusterSettings, file)
        except ConfigError as error:
            seen.append(Preset(file.stem, str(file), str(error)))
        else:
            seen.append(Preset(file.stem, str(file)))
    return seen
