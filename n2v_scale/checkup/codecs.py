"""Compression: each codec writes a small array and reads it back."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.checkup.check import REINSTALL, Check, note, ok, problem

OURS = ("blosc-zstd", "zstd", "gzip", "none")
TIFFS = ("lzw", "deflate", "zstd", "jpeg", "jpeg2000", "packbits")
"""What TIFF files of microscopes are compressed with."""
SIDE = 16


@dataclass(frozen=True)
class Trial:
    """A codec, and why its round trip failed; empty where it did not."""

    name: str
    failure: str = ""


def look_at_codecs() -> list[Check]:
    """Every codec of our outputs in both formats, and those of TIFF files that come in."""
    zarr = [
        _tried(f"{codec}, zarr v{version}", partial(_through_zarr, codec, version))
        for version in (2, 3)
        for codec in OURS
    ]
    tiff = [_tried(codec, partial(_through_tiff, codec)) for codec in TIFFS]
    return [judge_zarr(zarr), judge_tiff(tiff)]


def judge_zarr(trials: Sequence[Trial]) -> Check:
    """Whether every output can be written and read back."""
    bad = [trial for trial in trials if trial.failure]
    if not bad:
        return ok("codecs", f"{', '.join(OURS)}: written and read back, in zarr v2 and v3, sharded")
    told = "; ".join(f"{trial.name}: {trial.failure}" for trial in bad)
    return problem("codecs", told, REINSTALL)


def judge_tiff(trials: Sequence[Trial]) -> Check:
    """Which TIFF files can be imported."""
    bad = [trial.name for trial in trials if trial.failure]
    good = [trial.name for trial in trials if not trial.failure]
    if not bad:
        return ok("tiff", f"compressed with {', '.join(good)}: read")
    return note(
        "tiff",
        f"files compressed with {', '.join(bad)} cannot be read",
        "where wanted: pip install imagecodecs",
    )


def _tried(name: str, look: Callable[[], None]) -> Trial:
    try:
        look()
    except Exception as error:  # whatever it is, it is what was to be found out
        return Trial(name, f"{type(error).__name__}: {error}".splitlines()[0])
    return Trial(name)


def sample() -> npt.NDArray[np.uint16]:
    """A cube that compresses somewhat."""
    return np.arange(SIDE**3, dtype=np.uint16).reshape(SIDE, SIDE, SIDE)


def through(store: Any, codec: str, version: int) -> None:
    """Write :func:`sample` to a store, sharded where the format knows shards, and read it back.

    Raises
    ------
    ValueError
        When other values come back; whatever zarr or a store raises.
    """
    import zarr

    from n2v_scale.io.codecs import compressor

    half = (SIDE // 2,) * 3
    array: Any = zarr.create_array(
        store,
        name="probe",
        shape=(SIDE,) * 3,
        dtype="uint16",
        zarr_format=3 if version == 3 else 2,
        compressors=compressor(codec, 3, version),
        chunks=half,
        shards=(SIDE,) * 3 if version == 3 else None,
    )
    array[...] = sample()
    if not np.array_equal(zarr.open_array(store, path="probe", mode="r")[...], sample()):
        raise ValueError("other values come back")


def _through_zarr(codec: str, version: int) -> None:
    from zarr.storage import MemoryStore

    through(MemoryStore(), codec, version)


def _through_tiff(codec: str) -> None:
    """JPEG loses a little, which is no failure."""
    import tifffile

    plane = (sample()[0] % 256).astype(np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, plane, compression=codec)
    file.seek(0)
    if tifffile.imread(file).shape != plane.shape:
        raise ValueError("another shape comes back")
