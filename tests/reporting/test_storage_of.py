"""What a volume takes, and how well it compresses."""

from __future__ import annotations

import numpy as np
import pytest

from n2v_scale.reporting.sight import Sight
from n2v_scale.reporting.storage import CODEC, storage_of


def test_noise_does_not_compress_and_a_ramp_does(tmp_path, write_volume):
    noise = np.random.default_rng(0).integers(0, 2**16, (16, 32, 32)).astype("u2")
    ramp = np.broadcast_to(np.arange(32, dtype="u2"), noise.shape).copy()
    found = {}
    for name, values in (("noise", noise), ("ramp", ramp)):
        volume = write_volume(tmp_path / f"{name}.zarr", values)
        found[name] = storage_of(Sight(volume))
        assert found[name].ratio == pytest.approx(values.nbytes / len(CODEC.encode(values)))
        files = [f for f in (tmp_path / f"{name}.zarr/0/c").rglob("*") if f.is_file()]
        assert found[name].bytes_stored == sum(f.stat().st_size for f in files)
        assert found[name].bytes_in_memory == values.nbytes
    assert found["noise"].ratio < 1.01
    assert found["ramp"].ratio > 50


def test_what_is_not_written_does_not_count(noisy, make_output):
    volume_of = Sight.of_output
    whole = storage_of(volume_of(_open(make_output(noisy, posterior=False))))
    part = storage_of(volume_of(_open(make_output(noisy, posterior=False, only=[0, 3]))))
    none = storage_of(volume_of(_open(make_output(noisy, posterior=False, only=[]))))
    assert part.ratio == pytest.approx(whole.ratio, rel=0.5)
    assert part.bytes_stored < whole.bytes_stored
    assert none.ratio is None


def _open(path):
    from n2v_scale.io.open import open_volume

    return open_volume(path)
