"""The stream of patches: the same however it is read, from everywhere but what is held out."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import zarr

from n2v_scale.cluster import thread_client
from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import InputError, TrainingError
from n2v_scale.geometry import Box
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.patches import FEWEST_REGIONS, PatchSampler, check_finite, read_region
from n2v_scale.regions import Region

SHAPE = (16, 32, 48)
PATCH = (4, 8, 8)
AS_IS = Normalisation((0.0, 0.0), (1.0, 1.0))


def positions(shape=SHAPE) -> np.ndarray:
    """Every voxel's value is its flat index: exact in float32."""
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


@pytest.fixture
def store(tmp_path):
    def write(data, chunks=(4, 8, 8), axes=None, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        zarr.create_array(str(path), data=data, chunks=chunks, **options)
        return open_volume(path, axes=axes)

    return write


def sampler(volume, client, **options) -> PatchSampler:
    given = {"patch": PATCH, "batch": 3, "normalisation": AS_IS} | options
    return PatchSampler(volume, given.pop("normalisation"), client, **given)


def first(stream: PatchSampler, count: int) -> np.ndarray:
    return np.stack(list(islice(stream, count)))


def box_of(patch: np.ndarray, shape=SHAPE) -> Box:
    """Where a patch of :func:`positions` comes from; its values say so, all of them."""
    start = np.unravel_index(int(patch.flat[0]), shape)
    box = Box(
        tuple(int(a) for a in start),
        tuple(int(a) + p for a, p in zip(start, patch.shape, strict=True)),
    )
    np.testing.assert_array_equal(patch, positions(shape)[box.slices])
    return box


def test_the_stream_does_not_depend_on_the_readers(store):
    volume = store(positions())
    streams = []
    for threads in (1, 3):
        with thread_client(threads) as client:
            stream = sampler(volume, client, seed=5)
            streams.append((first(stream, 25), stream.validation(), stream.initial(9)))
    for one, other in zip(*streams, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_seed_decides_the_stream(store, client):
    volume = store(positions())
    one, again, other = (first(sampler(volume, client, seed=s), 5) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_patches_are_pieces_of_the_volume(store, client):
    batches = first(sampler(store(positions()), client), 30)
    assert batches.shape == (30, 3, *PATCH)
    assert batches.dtype == np.float32
    boxes = [box_of(patch) for batch in batches for patch in batch]
    assert len(set(boxes)) > 80


def test_batches_are_normalised_by_channel(store, client):
    data = np.stack([positions(), 1e4 + 7 * positions()])
    volume = store(data, (1, 4, 8, 8), axes="czyx")
    constants = Normalisation((100.0, 1e4 + 700.0), (10.0, 70.0))
    expected = (positions() - 100) / 10
    patches = first(sampler(volume, client, normalisation=constants), 20)
    for patch in patches.reshape(-1, *PATCH):
        start = np.unravel_index(round(float(patch.flat[0]) * 10 + 100), SHAPE)
        where = tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))
        np.testing.assert_allclose(patch, expected[where], atol=2e-3)


def test_all_channels_and_times_are_drawn_from(store, client):
    data = np.arange(6, dtype="u2").reshape(3, 2, 1, 1, 1) * np.ones((1, 1, *SHAPE), "u2")
    volume = store(data, (1, 1, 4, 8, 8))
    seen = first(sampler(volume, client), 60).max(axis=(2, 3, 4))
    assert set(np.unique(seen)) == set(range(6))
    assert {float(v.max()) for v in sampler(volume, client).validation()} <= set(range(6))


@pytest.mark.parametrize("shards", [None, (8, 16, 16)])
def test_no_training_patch_touches_what_is_held_out(store, client, shards):
    stream = sampler(store(positions(), shards=shards), client, batch=8)
    assert stream.held_out
    assert all(b.shape == (shards or PATCH) for b in stream.held_out)
    held = np.concatenate([positions()[b.slices].ravel() for b in stream.held_out])
    drawn = first(stream, 120)
    assert not np.isin(drawn, held).any()
    assert not np.isin(np.stack(stream.initial(64)), held).any()
    # Everything else is reached, but for the last voxels at corners.
    assert len(np.unique(drawn)) > 0.9 * (np.prod(SHAPE) - held.size)


def test_validation_patches_lie_in_what_is_held_out(store, client):
    stream = sampler(store(positions(), shards=(8, 16, 16)), client)
    patches = stream.validation()
    assert 0 < len(patches) <= 16
    boxes = [box_of(patch) for patch in patches]
    assert all(any(h.contains(b) for h in stream.held_out) for b in boxes)
    assert [box_of(p) for p in stream.validation()] == boxes


def test_a_small_volume_holds_nothing_out(store, client):
    stream = sampler(store(positions()), client, patch=(16, 16, 24))
    assert stream.held_out == ()
    assert stream.validation() == []
    assert first(stream, 2).shape == (2, 3, 16, 16, 24)


@pytest.fixture
def reads(monkeypatch):
    """The boxes read of each volume, by its address: another test's read ahead may be running."""
    done: defaultdict[str, list[Box]] = defaultdict(list)
    read = Volume.read

    def counted(self, t, c, box):
        done[self.address].append(box)
        return read(self, t, c, box)

    monkeypatch.setattr(Volume, "read", counted)
    return done


def test_a_region_is_read_at_a_time_and_only_when_it_is_needed(store, client, reads):
    stream = sampler(store(positions()), client, batch=2)
    extent = stream.regions.extent
    assert np.prod(extent) * 8 <= np.prod(SHAPE)
    batches = 100
    first(stream, batches)
    boxes = reads[stream.volume.address]
    for box in boxes:
        assert all(e < r + 4 * 2 for e, r in zip(box.shape, extent, strict=True))
    # The first regions leave early, so that they do not all leave at once.
    most = 2 * stream.pool_size + FEWEST_REGIONS + batches * 2 / stream.uses
    assert stream.pool_size < len(boxes) <= most


def test_the_pool_shrinks_with_the_memory_it_is_given(store, client, reads):
    stream = sampler(store(positions()), client, pool_bytes=1)
    assert stream.pool_size == FEWEST_REGIONS
    first(stream, 1)
    assert len(reads[stream.volume.address]) <= 2 * FEWEST_REGIONS + 3


def test_a_batch_mixes_distinct_regions(store, client, monkeypatch):
    cut_from: list[int] = []
    cut = PatchSampler._cut

    def recorded(self, entry, rng):
        cut_from.append(id(entry.values))
        return cut(self, entry, rng)

    monkeypatch.setattr(PatchSampler, "_cut", recorded)
    stream = sampler(store(positions()), client, batch=8)
    assert stream.pool_size >= 8
    held = list(islice(stream, 20))
    assert len(held) == 20
    for k in range(0, len(cut_from), 8):
        assert len(set(cut_from[k : k + 8])) == 8


@pytest.fixture
def holed(store):
    data = positions()
    data[9, 17, 30], data[9, 17, 31], data[2, 0, 0] = np.nan, np.inf, -np.inf
    return store(data)


def test_missing_voxels_are_an_error_that_counts_and_places_them(holed):
    box = Box((8, 16, 16), (16, 32, 48))
    values = read_region(holed, Region(0, 0, box))
    message = (
        r"t=0, c=0: 2 voxels in \(8, 16, 16\)\.\.\(16, 32, 48\) are NaN or infinite, the first "
        r"at z=9, y=17, x=30; --on-nan fill"
    )
    with pytest.raises(InputError, match=message):
        check_finite(values, box, "v, t=0, c=0")
    assert (~np.isfinite(values)).sum() == 2


def test_missing_voxels_stop_the_stream_when_they_are_met(holed, client):
    with pytest.raises(InputError, match=r"voxels in .* are NaN or infinite"):
        first(sampler(holed, client), 200)


def test_on_fill_missing_voxels_arrive_as_nan_and_the_others_as_they_are(holed, client):
    stream = sampler(holed, client, on_nan="fill", seed=1)
    hole = Box((9, 17, 30), (10, 18, 32))
    assert not any(h.intersect(hole).size for h in stream.held_out)
    patches = first(stream, 150).reshape(-1, *PATCH)
    assert not np.isinf(patches).any()
    missing = np.isnan(patches)
    assert 0 < missing.sum() < patches.size / 10
    for patch in patches[missing.any(axis=(1, 2, 3))]:
        voxel = np.argwhere(np.isfinite(patch))[0]
        start = np.array(np.unravel_index(int(patch[tuple(voxel)]), SHAPE)) - voxel
        where = tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))
        truth = positions()[where].copy()
        for hole in ((9, 17, 30), (9, 17, 31), (2, 0, 0)):
            at = np.array(hole) - start
            if ((at >= 0) & (at < PATCH)).all():
                truth[tuple(at)] = np.nan
        np.testing.assert_array_equal(patch, truth)


def test_integers_need_no_look():
    check_finite(np.zeros((2, 2, 2), "u2"), Box.whole((2, 2, 2)), "v")


def test_a_volume_smaller_than_a_patch_is_refused(store, client):
    with pytest.raises(InputError, match=r"\(16, 32, 48\).*smaller than a patch of \(4, 8, 56\)"):
        sampler(store(positions()), client, patch=(4, 8, 56))


def test_a_chunk_that_cannot_be_decoded_is_left_out_until_there_are_too_many(
    store, client, monkeypatch
):
    volume = store(positions())
    (Path(volume.address) / "c/0/0/0").write_bytes(b"broken")
    monkeypatch.setattr("n2v_scale.patches.MOST_UNREADABLE", 10_000)
    stream = sampler(volume, client)
    assert np.isfinite(first(stream, 200)).all()
    assert stream.unreadable > 0
    monkeypatch.setattr("n2v_scale.patches.MOST_UNREADABLE", 0)
    with pytest.raises(InputError, match="cannot read box"):
        first(sampler(volume, client), 200)


def test_a_single_plane(store, client):
    plane = positions((1, 64, 64))
    stream = sampler(store(plane[0], (16, 16)), client, patch=(1, 8, 16))
    for patch in first(stream, 10).reshape(-1, 1, 8, 16):
        box_of(patch, (1, 64, 64))


def test_regions_that_are_held_out_whole_are_passed_over(store, client, monkeypatch):
    volume = store(positions())
    stream = sampler(volume, client)
    half = Box((0, 0, 0), (16, 32, 24))
    stream.held_out = (half,)
    held = positions()[half.slices]
    assert not np.isin(first(stream, 30), held).any()
    monkeypatch.setattr("n2v_scale.patches.GIVE_UP", 20)
    stream.held_out = (Box.whole(SHAPE),)
    with pytest.raises(TrainingError, match="held-out regions cover the volume"):
        first(stream, 1)
