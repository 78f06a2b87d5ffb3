"""What cannot be shown is NaN, and stops nothing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr

from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.reporting.sight import Sight
from n2v_scale.written import written_blocks

SHAPE = (16, 40, 40)
WHOLE = Box.whole(SHAPE)


@pytest.fixture
def stored(tmp_path):
    values = np.random.default_rng(0).normal(100, 5, SHAPE).astype("f4")
    values[3, 4, 5], values[6, 7, 8] = np.nan, np.inf
    path = tmp_path / "v.zarr"
    zarr.create_array(path, data=values, chunks=(8, 8, 8))
    return path, values


def test_what_is_not_finite_is_nan(stored):
    path, values = stored
    seen = Sight(open_volume(path)).read(0, 0, WHOLE)
    known = np.isfinite(values)
    assert (np.isnan(seen) == ~known).all()
    assert (seen[known] == values[known]).all()


def test_a_chunk_that_cannot_be_read_is_nan_and_its_neighbours_are_not(stored):
    path, values = stored
    (path / "c/1/2/3").write_bytes(b"torn")
    values[8:16, 16:24, 24:32] = values[~np.isfinite(values)] = np.nan
    box = Box((1, 2, 3), (15, 37, 40))
    seen = Sight(open_volume(path)).read(0, 0, box)
    assert np.array_equal(seen, values[box.slices], equal_nan=True)


def test_blocks_that_are_not_written_are_nan(noisy, make_output):
    path = make_output(noisy, only=[1, 2], posterior=False)
    volume = open_volume(path)
    sight = Sight.of_output(volume)
    whole = Box.whole(volume.spatial_shape)
    seen, values = sight.read(0, 0, whole), volume.read(0, 0, whole)
    written = np.zeros(volume.spatial_shape, bool)
    written[:16, :32, 32:64] = written[:16, 32:, :32] = True
    assert (np.isfinite(seen) == written).all()
    assert (seen[written] == values[written]).all()
    assert sight.whole(0, 0, Box((0, 0, 32), (16, 32, 64)))
    assert not sight.whole(0, 0, Box((0, 0, 31), (16, 32, 64)))


def test_of_a_complete_output_and_of_a_strange_volume_nothing_is_missing(case, stored, tmp_path):
    assert written_blocks(open_volume(case.output)) is None
    assert written_blocks(open_volume(stored[0])) is None
    shutil.rmtree(stored[0])
