"""A forecast in words: every number of it, in units that people read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from n2v_scale.costs import Forecast
from n2v_scale.memory import WorkerMemory
from n2v_scale.outlook import outlook_text

FORECAST = Forecast(
    blocks=12_345,
    tiles=98_760,
    empty_blocks=None,
    empty_is_estimate=False,
    halo=[[12, 12], [25, 25], [24, 26]],
    tile=[64, 128, 256],
    block=[256, 512, 512],
    chunk=[64, 64, 63],
    shard=[256, 256, 255],
    read_bytes=1_490_000_000_000,
    write_bytes=1_140_000_000_000,
    files=70_001,
    read_overhead=1.4853,
    compute_overhead=2.3012,
    memory=WorkerMemory(537_000_000, 377_000_000, 15_900_000, 2),
    memory_allowed=None,
    workers=8,
    speed=330_000.0,
    speed_measured=True,
    seconds=3723.4,
)


def line(name: str, forecast: Forecast = FORECAST) -> str:
    """The line of the text that begins with ``name``."""
    (found,) = [text for text in outlook_text(forecast).splitlines() if text.startswith(name)]
    return found


def test_there_is_a_line_for_each_thing_one_wants_to_know() -> None:
    names = [text.split()[0] for text in outlook_text(FORECAST).splitlines()]
    assert names == ["blocks", "tiles", "compute", "read", "write", "memory", "time"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("blocks", ["12,345 of 256x512x512 voxels"]),
        ("tiles", ["98,760 of 64x128x256 voxels", "12, 25, 24+26 voxels further"]),
        ("compute", ["2.30 times the volume"]),
        ("read", ["1.49 TB", "1.49 times the volume"]),
        ("write", ["1.14 TB", "70,001 files of 256x256x255", "chunks of 64x64x63"]),
        ("memory", ["at most 946 MB a worker", "537 MB", "377 MB", "2 x 15.9 MB"]),
        ("time", ["1:02:03 with 8 workers at 330 kvoxel/s each", "measured here"]),
    ],
)
def test_each_line_has_its_numbers(name: str, words: list[str]) -> None:
    for part in words:
        assert part in line(name)


def test_a_limit_is_shown_where_there_is_one() -> None:
    assert "allowed" not in line("memory")
    limited = replace(FORECAST, memory_allowed=10_100_000_000)
    assert "946 MB a worker of 10.1 GB allowed:" in line("memory", limited)


def test_empty_blocks_are_told_where_they_are_known() -> None:
    assert "empty" not in outlook_text(FORECAST)
    assert "empty" not in outlook_text(replace(FORECAST, empty_blocks=0))
    known = line("blocks", replace(FORECAST, empty_blocks=2000))
    assert "; 2,000 are empty" in known
    sampled = replace(FORECAST, empty_blocks=2000, empty_is_estimate=True)
    assert "; about 2,000 are empty" in line("blocks", sampled)


def test_a_speed_that_was_given_is_not_called_measured() -> None:
    assert line("time", replace(FORECAST, speed_measured=False)).endswith("each (as given)")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7.6, "about 8 s"), (100_000.0, "27:46:40"), (1_000_000.0, "about 12 days")],
)
def test_the_time_is_in_units_that_fit(seconds: float, words: str) -> None:
    assert words in line("time", replace(FORECAST, seconds=seconds))


def test_standard_deviations_are_named_where_they_are_written() -> None:
    assert "deviations" not in outlook_text(FORECAST)
    both = line("write", replace(FORECAST, write="mean,std"))
    assert "with the lower resolutions and the standard deviations, in at most" in both


def test_one_worker_is_one() -> None:
    assert " with 1 worker at " in line("time", replace(FORECAST, workers=1))


def test_workers_that_no_block_is_left_for_are_not_counted() -> None:
    assert " with 8 workers (one a block) at " in line("time", replace(FORECAST, blocks=8))


def test_of_a_blind_model_it_says_whether_a_voxel_s_own_value_is_put_back() -> None:
    noise = [{"gain": 2.2123, "offset": 100.04, "read_noise": 3.5, "misfit": 0.01}]
    told = replace(FORECAST, posterior=True, noise=noise)
    assert "gain 2.21, offset 100, read noise 3.5" in line("own value", told)
    without = replace(FORECAST, posterior=False, no_posterior="no noise is seen")
    assert line("own value", without).endswith("is not put back: no noise is seen")
    assert len(outlook_text(FORECAST).splitlines()) == 7


def test_a_precision_that_a_worker_decides() -> None:
    said = line("precision", replace(FORECAST, precision="auto"))
    assert "is tried on a worker before the first block" in said
    for known in ("float32", "bfloat16"):
        assert "precision" not in outlook_text(replace(FORECAST, precision=known))
