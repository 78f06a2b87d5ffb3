"""Which versions are installed, without loading what they are versions of."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from n2v_scale._version import __version__

RECORDED = ("torch", "numpy", "zarr", "dask", "distributed", "numcodecs", "scipy")
TOLD = ("torch", "zarr", "dask", "numpy")


def installed(package: str) -> str | None:
    """The version of ``package``; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """What a result is made with, by name, for its record."""
    found = {name: known for name in RECORDED if (known := installed(name)) is not None}
    return {"n2v-scale": __version__, "python": platform.python_version(), **found}


def versions_text() -> str:
    """Our version in one line, and in another those that a bug report needs."""
    others = [f"{name} {installed(name) or '(not installed)'}" for name in TOLD]
    return f"n2v-scale {__version__}\nPython {platform.python_version()}, {', '.join(others)}"
