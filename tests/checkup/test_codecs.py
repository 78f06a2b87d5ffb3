"""Round trips, and codecs that fail."""

from __future__ import annotations

import pytest

from n2v_scale.checkup import codecs
from n2v_scale.checkup.codecs import Trial, judge_tiff, judge_zarr, look_at_codecs


def test_our_codecs_come_back() -> None:
    zarr, tiff = look_at_codecs()
    assert (zarr.what, zarr.level, tiff.what) == ("codecs", "ok", "tiff")
    assert "deflate" in tiff.seen


def test_a_codec_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(codec: str, version: int) -> None:
        if (codec, version) == ("zstd", 3):
            raise ImportError("libzstd.so: no such file\nmore")

    monkeypatch.setattr(codecs, "_through_zarr", refuse)
    check = look_at_codecs()[0]
    assert (check.level, check.seen) == (
        "problem",
        "zstd, zarr v3: ImportError: libzstd.so: no such file",
    )


def test_other_values_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = iter([codecs.sample(), codecs.sample() + 1])
    monkeypatch.setattr(codecs, "sample", lambda: next(samples))
    with pytest.raises(ValueError, match="other values come back"):
        codecs._through_zarr("none", 3)


def test_tiff_files_that_cannot_be_read() -> None:
    check = judge_tiff([Trial("lzw", "needs imagecodecs"), Trial("deflate")])
    assert (check.level, check.seen) == ("note", "files compressed with lzw cannot be read")
    assert check.remedy == "where wanted: pip install imagecodecs"
    assert judge_tiff([Trial("lzw")]).level == judge_zarr([Trial("zstd")]).level == "ok"
