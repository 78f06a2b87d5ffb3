"""Compressors of the output: the same voxels are the same bytes, whoever encodes them and when."""

from __future__ import annotations

import gzip
from functools import cached_property
from typing import Any

import numpy as np
from numcodecs import Blosc, GZip, Zstd
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from n2v_scale.errors import ConfigError


def check_codec(codec: str, level: int) -> None:
    """Raise a ConfigError when ``codec`` has no such level."""
    highest = {"blosc-zstd": 9, "zstd": 22, "gzip": 9, "none": 22}[codec]
    if level > highest:
        raise ConfigError(f"codec level {level}: {codec} goes up to {highest}")


def compressor(codec: str, level: int, zarr_format: int) -> Any:
    """What zarr takes as the compressor of an array; None for ``none``."""
    if codec == "none":
        return None
    if zarr_format == 3:
        return {
            "blosc-zstd": lambda: BloscCodec(cname="zstd", clevel=level, shuffle="bitshuffle"),
            "zstd": lambda: ZstdCodec(level=level),
            "gzip": lambda: _TimelessGzipCodec(level=level),
        }[codec]()
    return {
        "blosc-zstd": lambda: Blosc("zstd", clevel=level, shuffle=Blosc.BITSHUFFLE),
        "zstd": lambda: Zstd(level=level),
        "gzip": lambda: _TimelessGzip(level=level),
    }[codec]()


class _TimelessGzip(GZip):
    """gzip without the time in its header."""

    def encode(self, buf: Any) -> bytes:
        return gzip.compress(np.ascontiguousarray(buf).tobytes(), self.level, mtime=0)


class _TimelessGzipCodec(GzipCodec):
    """The same for zarr v3."""

    @cached_property
    def _gzip_codec(self) -> GZip:
        return _TimelessGzip(self.level)
