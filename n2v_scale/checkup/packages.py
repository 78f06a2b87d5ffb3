"""Python and packages, against the ranges that the installed package declares."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from n2v_scale._version import __version__
from n2v_scale.checkup.check import Check, note, ok, problem
from n2v_scale.versions import installed

US = "n2v-scale"
TOLD = ("torch", "zarr", "dask", "numpy")
"""Whose versions are told where all is well."""
NOT_FOR_USERS = {"all", "benchmark", "dev", "docs", "test", "workflows"}
"""Extras that nobody lacks for a run."""
EXTRAS = {
    "report": "pictures and reports",
    "slurm": "jobs of a batch system",
    "remote": "volumes on S3",
    "s3": "volumes on S3",
    "wavelets": "baseline --filter wavelet",
    "export": "models for other programs",
    "tensorboard": "train --tensorboard",
    "browser": "tests in a browser",
}


@dataclass(frozen=True)
class Wanted:
    """A package that is asked for."""

    name: str
    range: str
    """As in ``>=2.4``; empty where any version will do."""
    found: str | None
    """None where it is not installed."""
    extra: str | None = None
    """The extra that asks for it; None for what every run needs."""

    @property
    def fits(self) -> bool:
        """Whether it is there, in a version of the range."""
        return self.found is not None and SpecifierSet(self.range).contains(
            self.found, prereleases=True
        )

    def __str__(self) -> str:
        return f"{self.name}{self.range}"


def look_at_packages() -> list[Check]:
    """Python, what every run needs, and each extra."""
    try:
        lines, python = requires(US) or [], metadata(US)["Requires-Python"] or ""
    except PackageNotFoundError:
        return [
            judge_python(platform.python_version(), ">=3.11"),
            note("packages", f"{US} {__version__} is run from its source", f"pip install {US}"),
        ]
    wanted = read_requirements(lines)
    return [judge_python(platform.python_version(), python), *judge_packages(wanted)]


def look_at_extras() -> list[Check]:
    """Each extra that a user may want."""
    try:
        return judge_extras(read_requirements(requires(US) or []))
    except PackageNotFoundError:
        return []


def read_requirements(lines: Iterable[str]) -> list[Wanted]:
    """What the metadata asks for on this machine, with what is installed of it."""
    wanted = []
    for line in lines:
        one = Requirement(line)
        extra = _extra_of(one)
        if one.name == US or (one.marker and not one.marker.evaluate({"extra": extra or ""})):
            continue
        wanted.append(Wanted(one.name, str(one.specifier), installed(one.name), extra))
    return wanted


def _extra_of(one: Requirement) -> str | None:
    """The name behind ``extra ==`` in the marker."""
    _, found, rest = str(one.marker or "").partition("extra == ")
    return rest.split('"')[1] if found else None


def judge_python(version: str, wanted: str) -> Check:
    """Whether this Python will do."""
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return ok("python", f"{version} (wanted: {wanted})")
    return problem("python", f"{version}, and {wanted} is wanted", "use a newer Python")


def judge_packages(wanted: Sequence[Wanted]) -> list[Check]:
    """One line where all that every run needs is there, else one for each that is not."""
    base = [one for one in wanted if one.extra is None]
    bad = [one for one in base if not one.fits]
    if not bad:
        told = [f"{one.name} {one.found}" for one in base if one.name in TOLD]
        return [ok("packages", f"all {len(base)} in their ranges: {', '.join(told)}")]
    return [
        problem(
            "packages",
            f"{one.name} {one.found or 'is not installed'}, and {one} is wanted",
            f"pip install '{one}'",
        )
        for one in bad
    ]


def judge_extras(wanted: Sequence[Wanted]) -> list[Check]:
    """What is there in one line; each of the others with what it would be for."""
    names = sorted({one.extra for one in wanted if one.extra} - NOT_FOR_USERS)
    lacking = {
        name: [str(one) for one in wanted if one.extra == name and not one.fits] for name in names
    }
    there = [name for name in names if not lacking[name]]
    checks = [ok("extras", f"installed: {', '.join(there)}")] if there else []
    missing = [name for name in names if lacking[name]]
    if not missing:
        return checks
    listed = "; ".join(
        f"{name}{f' ({EXTRAS[name]})' if name in EXTRAS else ''}: {', '.join(lacking[name])}"
        for name in missing
    )
    remedy = f"where wanted: pip install '{US}[{','.join(missing)}]'"
    return [*checks, note("extras", f"not installed: {listed}", remedy)]
