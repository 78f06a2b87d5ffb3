"""The stream of patches: the same however it is read, from everywhere but what is held out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import zarr

from n2v_scale.denoiser import Normalisation
from n2v_scale.errors import ConfigError, InputError, TrainingError
from n2v_scale.foreground import open_foreground
from n2v_scale.geometry import Box
from n2v_scale.io.finite import check_finite
from n2v_scale.io.open import open_volume
from n2v_scale.io.volume import Volume
from n2v_scale.local_cluster import thread_client
from n2v_scale.patches import MOST_REGIONS, READ_AHEAD, REUSE, PatchSampler, read_region
from n2v_scale.regions import Region, RegionSampler, held_out_boxes
from n2v_scale.sources import Source, open_sources

SHAPE = (16, 32, 48)
PATCH = (4, 8, 8)


class AsIs(Source):
    """A source whose values arrive as they are stored."""

    @cached_property
    def normalisation(self) -> Normalisation:
        channels = self.volume.shape[1]
        return Normalisation((0.0,) * channels, (1.0,) * channels)


def as_is(volume, patch=PATCH, *, seed=0, foreground=None) -> AsIs:
    times, channels = volume.shape[:2]
    shape = volume.spatial_shape
    regions = RegionSampler(times, channels, shape, volume.chunk, patch, seed)
    held_out = held_out_boxes(shape, volume.shard or volume.chunk, patch, seed=seed)
    return AsIs(volume, regions, held_out, foreground=foreground)


def positions(shape=SHAPE) -> np.ndarray:
    """Every voxel's value is its flat index: exact in float32."""
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


@pytest.fixture
def store(tmp_path):
    def write(data, chunks=(4, 8, 8), axes=None, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        zarr.create_array(str(path), data=data, chunks=chunks, compressors=None, **options)
        return open_volume(path, axes=axes)

    return write


def sampler(volume, client, **options) -> PatchSampler:
    """A sampler of one volume as it is stored, or of the sources given."""
    given = {"patch": PATCH, "batch": 3} | options
    sources = given.pop("sources", None) or [
        as_is(volume, given["patch"], seed=given.get("seed", 0))
    ]
    return PatchSampler(sources, client, **given)


def first(stream: PatchSampler, count: int) -> np.ndarray:
    return np.stack(list(islice(stream, count)))


def flat(batches: np.ndarray) -> np.ndarray:
    """All patches, one after the other."""
    return batches.reshape(-1, *batches.shape[2:])


def box_of(patch: np.ndarray, shape=SHAPE) -> Box:
    """Where a patch of :func:`positions` comes from; its values say so, all of them."""
    start = np.unravel_index(int(patch.flat[0]), shape)
    box = Box(
        tuple(int(a) for a in start),
        tuple(int(a) + p for a, p in zip(start, patch.shape, strict=True)),
    )
    np.testing.assert_array_equal(patch, positions(shape)[box.slices])
    return box


def textured(shape, *, seed=0, share=1.0) -> np.ndarray:
    """Noise about 500, and structure in the first ``share`` of the planes along x."""
    rng = np.random.default_rng(seed)
    values = 500 + 5 * rng.standard_normal(shape)
    n = round(share * shape[2])
    values[..., :n] += 60 * np.sin(np.indices(shape).sum(axis=0) / 3)[..., :n]
    return values.round().astype("u2")


def masked(store, volume, mask):
    return open_foreground(store(mask.astype("u1"), mask.shape).address, volume)


def test_the_stream_does_not_depend_on_the_readers(store):
    volume = store(textured((16, 64, 64), share=0.5), (16, 16, 16))
    streams = []
    for threads in (1, 3):
        with thread_client(threads) as client:
            sources = open_sources([volume], PATCH, client, seed=5)
            stream = sampler(volume, client, sources=sources, seed=5)
            streams.append((first(stream, 25), stream.validation(), stream.initial(9)))
    for one, other in zip(*streams, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("batch", "split"),
    [(4, [range(2), range(2, 4)]), (4, [range(1), range(1, 4)]), (2, [range(1), range(1, 2)])],
)
def test_the_stream_does_not_depend_on_who_has_which_lanes(store, client, batch, split):
    volume = store(textured((16, 64, 64), share=0.5), (16, 16, 16))
    options = {"sources": open_sources([volume], PATCH, client), "batch": batch}
    together = first(sampler(volume, client, **options), 25)
    apart = [first(sampler(volume, client, lanes=lanes, **options), 25) for lanes in split]
    np.testing.assert_array_equal(np.concatenate(apart, axis=1), together)


def test_processes_read_the_regions_of_their_own_lanes_alone(store, client, reads):
    volume = store(positions())
    seen = []
    for lanes in (range(2), range(2, 4)):
        reads.clear()
        stream = sampler(volume, client, batch=4, lanes=lanes, pool_bytes=2**17)
        first(stream, 30)
        entries = [entry.number for lane in stream.lanes.values() for entry in lane.pool]
        seen.append({n % 4 for n in entries})
        numbers = [lane.next for lane in stream.lanes.values()]
        assert len(reads[volume.address]) <= sum(n // 4 for n in numbers) + 2
    assert seen == [{0, 1}, {2, 3}]


def test_the_seed_decides_the_stream(store, client):
    volume = store(positions())
    one, again, other = (first(sampler(volume, client, seed=s), 5) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_patches_are_pieces_of_the_volume(store, client):
    batches = first(sampler(store(positions()), client), 30)
    assert batches.shape == (30, 3, *PATCH)
    assert batches.dtype == np.float32
    boxes = [box_of(patch) for patch in flat(batches)]
    assert len(set(boxes)) > 80


def test_batches_are_normalised_by_channel(store, client):
    data = np.stack([positions(), 1e4 + 7 * positions()])
    volume = store(data, (1, 4, 8, 8), axes="czyx")
    (source,) = open_sources([volume], PATCH, client, uniform=True)
    exact = positions().astype("f8")
    expected = (exact - exact.mean()) / exact.std()
    step = float(expected[0, 0, 1] - expected[0, 0, 0])
    stream = sampler(volume, client, sources=[source])
    for patch in flat(first(stream, 20)):
        at = round((float(patch.flat[0]) - float(expected.flat[0])) / step)
        start = np.unravel_index(at, SHAPE)
        where = tuple(slice(a, a + p) for a, p in zip(start, PATCH, strict=True))
        np.testing.assert_allclose(patch, expected[where], atol=2e-5)


def test_all_channels_and_times_are_drawn_from(store, client):
    data = np.arange(6, dtype="u2").reshape(3, 2, 1, 1, 1) * np.ones((1, 1, *SHAPE), "u2")
    volume = store(data, (1, 1, 4, 8, 8))
    seen = first(sampler(volume, client), 60).max(axis=(2, 3, 4))
    assert set(np.unique(seen)) == set(range(6))
    assert {float(v.max()) for v in sampler(volume, client).validation()} <= set(range(6))


def test_patches_come_from_every_volume_normalised_by_its_own_constants(store, client):
    volumes = [
        store((k * 5000 + (k + 1) * 3.0 * textured((16, 32, 32), seed=k)).astype("u2"))
        for k in range(3)
    ]
    sources = open_sources(volumes, PATCH, client, uniform=True)
    stream = sampler(None, client, sources=sources, batch=4)
    stacked = [
        (v.read(0, 0, Box.whole((16, 32, 32))).astype("f4") - s.normalisation.offset[0])
        / s.normalisation.scale[0]
        for v, s in zip(volumes, sources, strict=True)
    ]
    found = Counter()
    for patch in flat(first(stream, 25)):
        corners = [np.argwhere(np.abs(v - patch[0, 0, 0])[:-3, :-7, :-7] < 1e-5) for v in stacked]
        matches = [
            k
            for k, (value, starts) in enumerate(zip(stacked, corners, strict=True))
            for z, y, x in starts
            if np.allclose(value[z : z + 4, y : y + 8, x : x + 8], patch, atol=1e-4)
        ]
        assert len(matches) == 1
        found[matches[0]] += 1
    assert min(found[k] for k in range(3)) >= 15
    assert stream.validation()


@pytest.mark.parametrize("shards", [None, (8, 16, 16)])
def test_no_training_patch_touches_what_is_held_out(store, client, shards):
    stream = sampler(store(positions(), shards=shards), client, batch=8)
    (source,) = stream.sources
    assert source.held_out
    assert all(b.shape == (shards or PATCH) for b in source.held_out)
    held = np.concatenate([positions()[b.slices].ravel() for b in source.held_out])
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
    (source,) = stream.sources
    assert all(any(h.contains(b) for h in source.held_out) for b in boxes)
    assert [box_of(p) for p in stream.validation()] == boxes


def test_a_small_volume_holds_nothing_out(store, client):
    stream = sampler(store(positions()), client, patch=(16, 16, 24))
    assert stream.sources[0].held_out == ()
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
    volume = store(positions())
    stream = sampler(volume, client, batch=2)
    extent = stream.sources[0].regions.extent
    assert np.prod(extent) * 8 <= np.prod(SHAPE)
    batches = 100
    first(stream, batches)
    boxes = reads[volume.address]
    for box in boxes:
        assert all(e < r + c for e, r, c in zip(box.shape, extent, volume.chunk, strict=True))
    # The first regions leave early, so that they do not all leave at once.
    uses = REUSE * np.prod(extent) / np.prod(PATCH)
    most = 2 * 2 * stream.pool_size + 2 * READ_AHEAD + batches * 2 / uses
    assert 2 * stream.pool_size < len(boxes) <= most


def test_regions_are_read_ahead_of_their_use(store, client, monkeypatch):
    for batch in (1, 4, 8):
        stream = sampler(store(positions()), client, batch=batch)
        first(stream, 1)
        waiting = sum(len(lane.waiting) for lane in stream.lanes.values())
        assert waiting > 0, f"with a batch of {batch} the next region is not being read"
        assert waiting <= batch * stream.ahead


def test_the_pools_and_what_is_read_ahead_stay_within_the_memory_given(store, client):
    data = np.arange(64**3, dtype="u2").reshape(64, 64, 64)
    for chunk, patch in [((8, 8, 8), (8, 8, 8)), ((24, 24, 24), (12, 12, 12))]:
        volume = store(data, chunk)
        allowed = 1_200_000
        stream = sampler(volume, client, patch=patch, batch=2, pool_bytes=allowed)
        most = 0
        for _ in range(60):
            stream.next_batch()
            lanes = stream.lanes.values()
            held = sum(entry.values.nbytes for lane in lanes for entry in lane.pool)
            boxes = [region.region.box for lane in lanes for _, region, _ in lane.waiting]
            most = max(most, held + sum(2 * box.size for box in boxes))
        assert most <= allowed, f"chunks of {chunk}"


def test_the_pools_shrink_with_the_memory_they_are_given(store, client):
    volume = store(positions())
    region = 4 * np.prod(as_is(volume).regions.extent)
    sizes = [
        sampler(volume, client, batch=4, pool_bytes=int(n * region)).pool_size
        for n in (8, 12, 20, 36, 1000)
    ]
    assert sizes == [1, 2, 4, 8, MOST_REGIONS // 4]


def test_too_little_memory_for_the_pools_is_refused(store, client):
    with pytest.raises(ConfigError, match=r"8 of them are held for a batch of 4: .*--pool-memory"):
        sampler(store(positions()), client, batch=4, pool_bytes=7 * 4 * 8 * 16 * 16)


def test_a_batch_mixes_distinct_regions(store, client, monkeypatch):
    cut_from: list[int] = []
    cut = PatchSampler._cut

    def recorded(self, entry, rng):
        cut_from.append(entry.number)
        return cut(self, entry, rng)

    monkeypatch.setattr(PatchSampler, "_cut", recorded)
    stream = sampler(store(positions()), client, batch=8)
    first(stream, 20)
    assert len(cut_from) == 160
    for k in range(0, len(cut_from), 8):
        assert len(set(cut_from[k : k + 8])) == 8


def restored(stream, volume, client, **options) -> PatchSampler:
    again = sampler(volume, client, **options)
    again.restore(json.loads(json.dumps(stream.state())))
    return again


@pytest.mark.parametrize(("batch", "steps"), [(1, 0), (1, 40), (2, 1), (3, 7), (4, 40)])
def test_a_stream_goes_on_from_its_state_bit_for_bit(store, client, batch, steps):
    volume = store(positions())
    options = {"batch": batch, "pool_bytes": 2**17}
    stream = sampler(volume, client, **options)
    if steps:
        first(stream, steps)
    again = restored(stream, volume, client, **options)
    assert again.state() == stream.state()
    np.testing.assert_array_equal(first(again, 25), first(stream, 25))
    assert again.state() == stream.state()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_stream_by_content_goes_on_from_its_state(store, client, batch):
    volumes = [store(textured((16, 32, 64), seed=s, share=0.3), (16, 16, 16)) for s in range(2)]
    sources = open_sources(volumes, PATCH, client)
    options = {"sources": sources, "batch": batch, "pool_bytes": 2**18}
    stream = sampler(None, client, **options)
    first(stream, 15)
    again = restored(stream, None, client, **options)
    np.testing.assert_array_equal(first(again, 20), first(stream, 20))


@pytest.mark.parametrize(("batch", "steps"), [(1, 21), (2, 20), (4, 5)])
def test_a_stream_that_passes_over_regions_goes_on_from_its_state(store, client, batch, steps):
    volume = store(positions((16, 64, 64)))
    mask = np.zeros((4, 8, 8))
    mask[0, 0, :2] = mask[3, 7, 7] = mask[2, 4, 4] = mask[1, :, 5] = 1
    source = as_is(volume, foreground=masked(store, volume, mask))
    options = {"sources": [source], "batch": batch, "pool_bytes": 2**17}
    stream = sampler(volume, client, **options)
    first(stream, steps)
    again = restored(stream, volume, client, **options)
    np.testing.assert_array_equal(first(again, 20), first(stream, 20))


def test_lanes_go_on_from_the_states_of_other_processes(store, client):
    volume = store(positions())
    apart = [sampler(volume, client, batch=4, lanes=lanes) for lanes in (range(2), range(2, 4))]
    for stream in apart:
        first(stream, 10)
    states = [stream.state() for stream in apart]
    lanes = states[0]["lanes"] | states[1]["lanes"]
    together = sampler(volume, client, batch=4)
    together.restore(states[0] | {"lanes": lanes})
    expected = np.concatenate([first(stream, 20) for stream in apart], axis=1)
    np.testing.assert_array_equal(first(together, 20), expected)


def test_a_region_of_the_state_that_is_damaged_since_is_an_error(store, client):
    volume = store(positions())
    stream = sampler(volume, client)
    first(stream, 20)
    for chunk in Path(volume.address).rglob("c/*/*/*"):
        chunk.write_bytes(b"broken")
    again = sampler(volume, client)
    with pytest.raises(InputError, match="cannot be read any more"):
        again.restore(stream.state())


def share_of_background(patches) -> float:
    """Of patches, whose structure is far above the noise."""
    return float(np.mean([patch.std() < 10 for patch in patches]))


def test_pure_background_is_drawn_far_less_than_its_share(store, client):
    volume = store(textured((32, 64, 160), share=0.1), (16, 16, 16), shards=(32, 64, 160))
    drawn = {}
    for uniform in (True, False):
        (source,) = open_sources([volume], PATCH, client, uniform=uniform)
        plain = AsIs(**vars_of(source))
        stream = sampler(volume, client, sources=[plain], batch=4)
        drawn[uniform] = share_of_background(flat(first(stream, 150)))
    assert drawn[True] == pytest.approx(0.87, abs=0.06)
    assert drawn[False] < 0.5


def test_background_is_drawn_now_and_then(store, client):
    volume = store(textured((16, 32, 160), share=0.1), (16, 16, 16))
    (source,) = open_sources([volume], PATCH, client)
    stream = sampler(volume, client, sources=[AsIs(**vars_of(source))], batch=4)
    assert share_of_background(flat(first(stream, 100))) > 0.05


def vars_of(source: Source) -> dict:
    return {
        name: getattr(source, name)
        for name in ("volume", "regions", "held_out", "survey", "foreground", "uniform")
    }


def test_all_patches_come_from_the_mask(store, client):
    volume = store(positions((16, 64, 64)))
    mask = np.zeros((16, 64, 64))
    mask[:, :, 32:] = 1
    source = as_is(volume, foreground=masked(store, volume, mask))
    boxes = [
        box_of(patch, (16, 64, 64))
        for patch in flat(first(sampler(volume, client, sources=[source], batch=4), 60))
    ]
    assert all(mask[box.slices].any() for box in boxes)
    inside = [mask[box.slices].mean() for box in boxes]
    assert np.mean(inside) > 0.8
    assert np.mean([box.stop[2] > 56 for box in boxes]) > 0.1


def test_patches_of_a_sparse_mask_touch_it(store, client):
    volume = store(positions((32, 64, 64)), (16, 32, 32))
    mask = np.zeros((32, 64, 64))
    mask[5:8, 20:23, 40:43] = mask[28:30, 3:5, 3:5] = 1
    source = as_is(volume, foreground=masked(store, volume, mask))
    cells = mask.reshape(4, 8, 8, 8, 8, 8).max(axis=(1, 3, 5))
    grown = cells.repeat(8, 0).repeat(8, 1).repeat(8, 2)
    boxes = [
        box_of(patch, (32, 64, 64))
        for patch in flat(first(sampler(volume, client, sources=[source], batch=2), 20))
    ]
    touching = [grown[box.slices].any() for box in boxes]
    assert all(touching), f"{np.mean(touching):.0%} of the patches touch a cell with foreground"


def test_a_mask_without_foreground_is_an_error(store, client, monkeypatch):
    monkeypatch.setattr("n2v_scale.patches.GIVE_UP", 20)
    volume = store(positions())
    source = as_is(volume, foreground=masked(store, volume, np.zeros((4, 4, 6))))
    with pytest.raises(TrainingError, match="no foreground beside what is held out: pass another"):
        first(sampler(volume, client, sources=[source]), 1)


def test_uniform_patches_come_from_everywhere_alike(store, client):
    volume = store(textured((16, 64, 64), share=0.5), (16, 16, 16))
    (source,) = open_sources([volume], PATCH, client, uniform=True)
    plain = replace(AsIs(**vars_of(source)), held_out=())
    patches = flat(first(sampler(volume, client, sources=[plain], batch=4), 150))
    assert share_of_background(patches) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("by_content", "share"), [(False, 0.7), (True, 0.7), (True, 0.0)])
def test_hardly_more_is_decoded_than_is_trained_on(store, client, by_content, share):
    """Also where all is noise."""
    volume = store(textured((32, 96, 96), share=share), (16, 16, 16), shards=(32, 32, 32))
    patch = (8, 16, 16)
    (source,) = open_sources([volume], patch, client, uniform=not by_content)
    stream = PatchSampler([source], client, patch=patch, batch=4, pool_bytes=2**19)
    batches = 300
    for batch in islice(stream, batches):
        assert batch.shape == (4, *patch)
    used = batches * 4 * np.prod(patch) * 2
    assert stream.bytes_read / used < 1.5


def test_what_is_read_is_counted(store, client, reads):
    volume = store(positions())
    stream = sampler(volume, client)
    first(stream, 30)
    waiting = [r.region.box for lane in stream.lanes.values() for _, r, _ in lane.waiting]
    for lane in stream.lanes.values():
        for _, _, future in lane.waiting:
            future.result()
    read = sum(4 * box.size for box in reads[volume.address])
    assert stream.bytes_read == read - sum(4 * box.size for box in waiting)


def test_initial_patches_are_spread_over_the_sources(store, client):
    data = np.arange(6, dtype="u2").reshape(6, 1, 1, 1) * np.ones((1, *SHAPE), "u2")
    volumes = [store(data[k], (4, 8, 8)) for k in range(6)]
    stream = sampler(None, client, sources=[as_is(v) for v in volumes])
    patches = stream.initial(60)
    assert len(patches) == 60
    assert {float(p.max()) for p in patches} == set(range(6))
    # It leaves the stream where it is.
    again = sampler(None, client, sources=[as_is(v) for v in volumes])
    np.testing.assert_array_equal(first(stream, 5), first(again, 5))


def test_a_single_region_gives_as_many_initial_patches_as_asked(store, client):
    stream = sampler(store(positions((4, 8, 8)), (4, 8, 8)), client, patch=(2, 4, 4))
    patches = stream.initial(12)
    assert len(patches) == 12
    assert len({float(p.flat[0]) for p in patches}) > 4


@pytest.fixture
def holed(store):
    data = positions()
    data[9, 17, 30], data[9, 17, 31], data[2, 0, 0] = np.nan, np.inf, -np.inf
    return store(data)


def test_missing_voxels_are_an_error_that_counts_and_places_them(holed):
    box = Box((8, 16, 16), (16, 32, 48))
    values, cells = read_region(holed, Region(0, 0, box))
    message = (
        r"t=0, c=0: 2 voxels in \(8, 16, 16\)\.\.\(16, 32, 48\) are NaN or infinite, the first "
        r"at z=9, y=17, x=30; --on-nan fill"
    )
    with pytest.raises(InputError, match=message):
        check_finite(values, box, "v, t=0, c=0")
    assert (~np.isfinite(values)).sum() == 2
    assert np.isfinite(cells.variance).all()  # of the other voxels


def test_missing_voxels_stop_the_stream_when_they_are_met(holed, client):
    with pytest.raises(InputError, match=r"voxels in .* are NaN or infinite"):
        first(sampler(holed, client), 200)


def test_on_fill_missing_voxels_arrive_as_nan_and_the_others_as_they_are(holed, client):
    stream = sampler(holed, client, on_nan="fill", seed=1)
    hole = Box((9, 17, 30), (10, 18, 32))
    assert not any(h.intersect(hole).size for h in stream.sources[0].held_out)
    patches = flat(first(stream, 150))
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


def test_a_stream_over_damage_goes_on_from_its_state(store, client, monkeypatch):
    monkeypatch.setattr("n2v_scale.patches.MOST_UNREADABLE", 10_000)
    volume = store(positions())
    (Path(volume.address) / "c/0/0/0").write_bytes(b"broken")
    options = {"batch": 2, "pool_bytes": 2**17}
    stream = sampler(volume, client, **options)
    first(stream, 33)
    again = restored(stream, volume, client, **options)
    np.testing.assert_array_equal(first(again, 60), first(stream, 60))


def test_a_single_plane(store, client):
    plane = positions((1, 64, 64))
    stream = sampler(store(plane[0], (16, 16)), client, patch=(1, 8, 16))
    for patch in flat(first(stream, 10)):
        box_of(patch, (1, 64, 64))


def test_a_single_plane_by_content(store, client):
    volume = store(textured((1, 128, 128), share=0.5)[0], (16, 16))
    (source,) = open_sources([volume], (1, 8, 16), client)
    stream = PatchSampler([source], client, patch=(1, 8, 16), batch=2)
    assert np.isfinite(first(stream, 30)).all()


def test_regions_that_are_held_out_whole_are_passed_over(store, client, monkeypatch):
    volume = store(positions())
    half = Box((0, 0, 0), (16, 32, 24))
    source = as_is(volume)
    stream = sampler(volume, client, sources=[replace(source, held_out=(half,))])
    held = positions()[half.slices]
    assert not np.isin(first(stream, 30), held).any()
    monkeypatch.setattr("n2v_scale.patches.GIVE_UP", 20)
    stream = sampler(volume, client, sources=[replace(source, held_out=(Box.whole(SHAPE),))])
    with pytest.raises(TrainingError, match="held-out regions cover the volume"):
        first(stream, 1)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_a_stream_beside_large_held_out_boxes_goes_on_from_its_state(store, client, steps):
    volume = store(positions())
    source = replace(as_is(volume), held_out=(Box((0, 0, 0), (16, 32, 24)),))
    options = {"sources": [source], "batch": 1, "pool_bytes": 2**17}
    stream = sampler(volume, client, **options)
    first(stream, steps)
    again = restored(stream, volume, client, **options)
    np.testing.assert_array_equal(first(again, 60), first(stream, 60))
