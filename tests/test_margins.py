"""How far every layer is needed: no farther than there is, and no farther than it must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from n2v_scale.geometry import NO_HALO
from n2v_scale.margins import levels_of, slabs
from n2v_scale.network_config import UNetConfig

side = st.integers(0, 9)


@given(
    depth=st.integers(0, 3),
    kernel=st.tuples(*[st.sampled_from([1, 3, 5])] * 3),
    steps=st.tuples(*[st.tuples(side, side)] * 3),
    data=st.data(),
)
def test_margins_never_exceed_what_there_is_and_never_grow(depth, kernel, steps, data):
    pooled = data.draw(st.tuples(*[st.integers(0, depth)] * 3))
    config = UNetConfig(depth=depth, kernel=kernel, pooled=pooled)
    stride = config.stride
    crop = tuple((a * s, b * s) for (a, b), s in zip(steps, stride, strict=True))
    core = tuple(2 * s for s in stride)
    levels = levels_of(config, core, crop)
    assert len(levels) == depth + 1
    assert levels[0].core == core
    assert levels[0].decoded == NO_HALO
    available = crop
    for number, level in enumerate(levels):
        for axis in range(3):
            for k in range(2):
                have = available[axis][k]
                chain = (level.given, level.hidden, level.encoded)
                values = [have, *(halo[axis][k] for halo in chain)]
                assert values == sorted(values, reverse=True)
                out = [halo[axis][k] for halo in (level.skip, level.between, level.decoded)]
                assert out == sorted(out, reverse=True)
                assert out[0] <= level.encoded[axis][k]
        if number < depth:
            factors = config.factors(number)
            available = tuple(
                (-(-a // f), -(-b // f)) for (a, b), f in zip(available, factors, strict=True)
            )


def test_the_decoder_computes_a_thin_rim_only():
    levels = levels_of(UNetConfig(depth=2), (64, 64, 64), ((24, 24),) * 3)
    assert levels[0].skip == ((2, 2),) * 3
    assert levels[0].between == ((1, 1),) * 3
    assert levels[1].decoded == ((1, 1),) * 3


@given(
    start=st.integers(-9, 9),
    count=st.integers(1, 60),
    multiple=st.sampled_from([1, 2, 4]),
    plane=st.integers(1, 50),
    most=st.integers(1, 500),
)
def test_slabs_cover_the_planes_once(start, count, multiple, plane, most):
    parts = list(slabs((start, start + count), multiple, plane, most))
    assert [z for a, b in parts for z in range(a, b)] == list(range(start, start + count))
    assert all((b - a) % multiple == 0 for a, b in parts[:-1])
