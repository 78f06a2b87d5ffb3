"""What a result was made with: the versions of this package and of what it computes with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from n2v_scale._version import __version__

PACKAGES = ("torch", "numpy", "zarr", "dask", "distributed", "numcodecs", "scipy")


def versions() -> dict[str, str]:
    """By name; nothing is imported for it."""
    found = {"n2v-scale": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a part that this installation does without
            continue
    return found
