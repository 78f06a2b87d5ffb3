"""Empty space: what is classified against brute force, and that blocks and tiles do not matter."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from n2v_scale.denoiser import (
    Denoiser,
    Estimate,
    Identity,
    Normalisation,
    OpenOptions,
    Region,
    TileBoxes,
    tile_boxes,
)
from n2v_scale.empty import Cells, classify, constant_response, repeated, tiles_to_run
from n2v_scale.errors import PlanError
from n2v_scale.geometry import (
    NO_HALO,
    Box,
    Halo,
    Shape,
    as_shape,
    cells_touching,
    grid_cell,
    grid_indices,
)
from n2v_scale.model import Model
from n2v_scale.nets.filter_unet import FilterUNetConfig
from n2v_scale.nets.unet import UNetConfig

Outside = Callable[[Box], bool]

CONSTANTS = Normalisation((100.0, 50.0), (10.0, 20.0))
PALETTES: dict[str, list[float]] = {
    "uint8": [0, 1, 2, 255],
    "int16": [-32768, -1, 0, 3],
    "uint16": [0, 1, 2, 65535],
    "float32": [0.0, -0.0, 1.0, 2.5, np.nan, np.inf],
}


@st.composite
def images(draw: st.DrawFn, dtypes: tuple[str, ...] = tuple(PALETTES)) -> np.ndarray:
    """Boxes of noise or of one value, one over the other, on two halves of one value each."""
    shape = draw(st.tuples(*[st.integers(1, 3) | st.integers(4, 12)] * 3))
    dtype = draw(st.sampled_from(dtypes))
    palette = np.array(PALETTES[dtype], dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    image = np.full(shape, draw(st.sampled_from(list(palette))))
    image[:, : shape[1] // 2] = draw(st.sampled_from(list(palette)))
    for value in draw(st.lists(st.none() | st.sampled_from(list(palette)), max_size=4)):
        sides = [draw(st.tuples(*[st.integers(0, n)] * 2)) for n in shape]
        part = image[tuple(slice(min(s), max(s)) for s in sides)]
        part[...] = rng.choice(palette, part.shape) if value is None else value
    return image


side = st.integers(0, 2)
halos = st.tuples(*[st.tuples(side, side)] * 3)
cells_of = st.tuples(*[st.integers(1, 5)] * 3)


def times(shape: Shape, counts: Shape) -> Shape:
    return as_shape([n * k for n, k in zip(shape, counts, strict=True)])


def some_outside(seed: int, shape: Shape) -> Outside:
    """A third of all cells, whatever their size, decided by where they are."""
    chosen = np.random.default_rng(seed).random(shape) < 1 / 3
    return lambda box: bool(chosen[box.start])


def is_kept(values: np.ndarray, nodata: float | None, outside: Outside, box: Box) -> bool:
    cell = values[box.slices].astype(np.float64)
    if nodata is None:
        return outside(box)
    return outside(box) or bool(np.all(np.isnan(cell) if np.isnan(nodata) else cell == nodata))


def constant_of(values: np.ndarray, halo: Halo, box: Box) -> float | None:
    around = box.expand(halo)
    if not Box.whole(as_shape(values.shape)).contains(around):
        return None
    found = {v.tobytes(): v for v in values[around.slices].flat}
    if len(found) != 1:
        return None
    (value,) = found.values()
    negative_zero = value == 0 and np.signbit(value)
    return float(value) if np.isfinite(value) and not negative_zero else None


@settings(max_examples=300, deadline=None)
@given(image=images(), cell=cells_of, halo=halos, data=st.data())
def test_cells_are_what_brute_force_says(
    image: np.ndarray, cell: Shape, halo: Halo, data: st.DataObject
) -> None:
    shape = as_shape(image.shape)
    block = times(cell, data.draw(st.tuples(*[st.integers(1, 3)] * 3)))
    write = grid_cell(data.draw(st.sampled_from(list(grid_indices(shape, block)))), block, shape)
    more = data.draw(halos)  # a tile's stride makes the read box larger than the halo
    read = write.expand(halo).expand(more).intersect(Box.whole(shape))
    nodata = data.draw(st.none() | st.sampled_from([*PALETTES[image.dtype.name], -7.5, 1e39]))
    seed = data.draw(st.integers(0, 9))
    outside = some_outside(seed, shape) if seed else lambda _: False
    found = classify(
        image[read.slices],
        read,
        write,
        cell=cell,
        halo=halo,
        shape=shape,
        nodata=nodata,
        outside=outside if seed else None,
    )
    boxes = list(cells_touching(write, cell, shape))
    kept = [box for box in boxes if is_kept(image, nodata, outside, box)]
    assert list(found.kept) == kept
    constant = [(box, constant_of(image, halo, box)) for box in boxes if box not in kept]
    assert list(found.constant) == [(box, v) for box, v in constant if v is not None]
    assert found.voxels == sum(box.size for box in found.boxes)


@pytest.mark.parametrize(
    ("dtype", "value", "nodata", "kept"),
    [
        ("float32", 0.1, 0.1, True),  # which no float32 is
        ("float32", -3.4028235e38, -3.4028235e38, True),
        ("float32", np.inf, 1e39, False),
        ("float32", np.nan, np.nan, True),
        ("float32", 0.0, np.nan, False),
        ("float32", -0.0, 0.0, True),
        ("uint8", 44, 300, False),  # modulo 256 they are the same
        ("uint8", 2, 2.5, False),
        ("uint16", 0, np.nan, False),
        ("int16", -1, 65535, False),
        ("uint16", 65535, 65535.0, True),
    ],
)
def test_what_a_no_data_value_is_equal_to(
    dtype: str, value: float, nodata: float, kept: bool
) -> None:
    values = np.full((2, 2, 2), value, dtype)
    whole = Box.whole((2, 2, 2))
    found = classify(
        values, whole, whole, cell=(2, 2, 2), halo=((1, 1),) * 3, shape=(2, 2, 2), nodata=nodata
    )
    assert found == Cells((whole,) if kept else ())


def test_a_cell_with_other_values_beside_no_data_is_not_kept() -> None:
    whole = Box.whole((1, 1, 3))
    for nodata in (np.nan, 2.0):
        for place in range(3):
            values = np.full((1, 1, 3), nodata, np.float32)
            values[0, 0, place] = 1
            found = classify(
                values, whole, whole, cell=(1, 1, 3), halo=NO_HALO, shape=(1, 1, 3), nodata=nodata
            )
            assert found == Cells()


def test_one_voxel_in_the_halo_makes_a_cell_no_constant() -> None:
    """Wherever in the cell and around it; and one beyond the halo does not."""
    halo: Halo = ((1, 2), (0, 1), (2, 0))
    shape, cell = (15, 9, 9), (5, 3, 3)
    whole, write = Box.whole(shape), Box((5, 3, 3), (10, 6, 6))
    around = write.expand(halo)
    for place in np.ndindex(shape):
        values = np.full(shape, 5, np.uint16)
        values[place] = 6
        found = classify(values, whole, write, cell=cell, halo=halo, shape=shape)
        inside = around.contains(Box(place, as_shape([i + 1 for i in place])))
        assert found == (Cells() if inside else Cells((), ((write, 5.0),)))


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ([0.0, 0.0], 0.0),
        ([0.0, -0.0], None),
        ([-0.0, -0.0], None),
        ([np.nan, np.nan], None),
        ([-np.inf, -np.inf], None),
        ([-1.5, -1.5], -1.5),
    ],
)
def test_which_floats_are_constant(values: list[float], constant: float | None) -> None:
    image = np.array(values, np.float32).reshape(1, 1, 2)
    whole = Box.whole((1, 1, 2))
    found = classify(image, whole, whole, cell=(1, 1, 2), halo=NO_HALO, shape=(1, 1, 2))
    assert found == Cells((), () if constant is None else ((whole, constant),))


def test_boxes_that_would_make_the_result_depend_on_blocks_are_refused() -> None:
    values = np.zeros((8, 8, 8), np.uint16)
    sizes: dict[str, Any] = {"cell": (4, 4, 4), "shape": (8, 8, 8)}
    whole, half = Box.whole((8, 8, 8)), Box.whole((4, 8, 8))
    with pytest.raises(PlanError, match=r"reads \(0, 0, 0\)..\(4, 8, 8\), .* needs .*\(5, 8, 8\)"):
        classify(values[:4], half, half, halo=((1, 1),) * 3, **sizes)
    with pytest.raises(PlanError, match=r"cuts cell \(4, 0, 0\)..\(8, 4, 4\)"):
        classify(values, whole, Box.whole((6, 8, 8)), halo=NO_HALO, **sizes)


# Tiles


@settings(deadline=None)
@given(data=st.data(), shape=st.tuples(*[st.integers(1, 10)] * 3), cell=cells_of, tile=cells_of)
def test_the_tiles_that_are_run_hold_every_computed_voxel_and_each_holds_one(
    data: st.DataObject, shape: Shape, cell: Shape, tile: Shape
) -> None:
    block = times(cell, data.draw(st.tuples(*[st.integers(1, 3)] * 3)))
    write = grid_cell(data.draw(st.sampled_from(list(grid_indices(shape, block)))), block, shape)
    computed = np.zeros(shape, bool)
    kept, constant = [], []
    for box in cells_touching(write, cell, shape):
        kind = data.draw(st.sampled_from(["kept", "constant", "computed"]))
        computed[box.slices] = kind == "computed"
        if kind == "kept":
            kept.append(box)
        elif kind == "constant":
            constant.append((box, 0.0))
    tiles = tiles_of(write, tile, Identity(), shape)
    run = tiles_to_run(tiles, write, Cells(tuple(kept), tuple(constant)))
    assert run == [t for t in tiles if computed[t.core.intersect(write).slices].any()]


def tiles_of(write: Box, tile: Shape, denoiser: Denoiser, shape: Shape) -> list[TileBoxes]:
    cores = cells_touching(write, tile, shape)
    return [tile_boxes(core, denoiser.halo, denoiser.stride, shape) for core in cores]


def assembled(
    denoiser: Denoiser,
    values: np.ndarray,
    *,
    block: Shape,
    tile: Shape,
    cell: Shape,
    nodata: float | None = None,
    outside: Outside | None = None,
) -> np.ndarray:
    """A volume (z, y, x), block by block, as float32."""
    shape = as_shape(values.shape)
    out = np.full(shape, -12345, np.float32)
    for index in grid_indices(shape, block):
        write = grid_cell(index, block, shape)
        tiles = tiles_of(write, tile, denoiser, shape)
        read = tiles[0].data
        for other in tiles:
            read = read.union(other.data)
        raw = values[read.slices]
        cells = classify(
            raw, read, write, cell=cell, halo=denoiser.halo, shape=shape, nodata=nodata,
            outside=outside,
        )  # fmt: skip
        for boxes in tiles_to_run(tiles, write, cells):
            data = raw[boxes.data.slices_in(read)].astype(np.float32)
            estimate = denoiser.denoise(data, Region(0, 0, boxes.core, shape))
            part = boxes.core.intersect(write)
            out[part.slices] = estimate.mean[part.slices_in(boxes.core)]
        for box in cells.kept:
            out[box.slices] = values[box.slices]
        for box, value in cells.constant:
            out[box.slices] = repeated(constant_response(denoiser, value, 0).mean, box)
    return out


class WindowSum(Identity):
    """An exact denoiser that shows its halo, its phase and the volume's faces.

    The sum over the window of the halo, 1000 for each voxel of it that does not exist, and the
    position modulo the stride.
    """

    def denoise(self, tile: Any, region: Region) -> Estimate:
        data = tile_boxes(region.core, self.halo, self.stride, region.shape).data
        assert tile.shape == data.shape
        keep = region.core.slices_in(data)
        total = windowed(tile, self.halo)[keep]
        missing = windowed(np.ones_like(tile), self.halo)[keep]
        missing = prod(low + high + 1 for low, high in self.halo) - missing
        places = np.meshgrid(
            *(np.arange(a, b) % s for a, b, s in zip(region.core.start, region.core.stop,
                                                     self.stride, strict=True)),
            indexing="ij",
        )  # fmt: skip
        return Estimate(total + 1000 * missing + places[0] + 0.25 * places[1] + 0.5 * places[2])


def windowed(values: np.ndarray, halo: Halo) -> np.ndarray:
    for axis, (low, high) in enumerate(halo):
        pad = [(0, 0)] * 3
        pad[axis] = (low, high)
        padded = np.pad(values, pad)
        n = values.shape[axis]
        values = sum(np.take(padded, range(k, k + n), axis) for k in range(low + high + 1))
    return values


strides = st.tuples(*[st.sampled_from([1, 2, 3])] * 3)
counts = st.tuples(*[st.integers(1, 3)] * 3)


@settings(max_examples=80, deadline=None)
@given(
    image=images(("uint8",)), cell=cells_of, halo=halos, stride=strides, blocks=counts, tiles=counts
)
def test_constant_cells_are_what_the_whole_volume_gives(
    image: np.ndarray, cell: Shape, halo: Halo, stride: Shape, blocks: Shape, tiles: Shape
) -> None:
    """Whatever the blocks and the tiles, with a denoiser that sees faces and its own phase."""
    denoiser = WindowSum(halo, stride)
    whole = Region(0, 0, Box.whole(as_shape(image.shape)), as_shape(image.shape))
    expected = denoiser.denoise(image.astype(np.float32), whole).mean
    found = assembled(
        denoiser, image, block=times(cell, blocks), tile=times(stride, tiles), cell=cell
    )
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=80, deadline=None)
@given(image=images(), cell=cells_of, halo=halos, blocks=counts, data=st.data())
def test_the_identity_keeps_every_bit(
    image: np.ndarray, cell: Shape, halo: Halo, blocks: Shape, data: st.DataObject
) -> None:
    """Also -0.0, NaN and infinity, with a mask and with a no-data value."""
    nodata = data.draw(st.none() | st.sampled_from(PALETTES[image.dtype.name]))
    found = assembled(
        Identity(halo, (2, 1, 2)),
        image,
        block=times(cell, blocks),
        tile=data.draw(st.sampled_from([(2, 3, 4), (4, 2, 2), (8, 8, 8)])),
        cell=cell,
        nodata=nodata,
        outside=some_outside(data.draw(st.integers(0, 9)), as_shape(image.shape)),
    )
    assert found.astype(image.dtype).tobytes() == image.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    image=images(("uint16", "float32")),
    cell=cells_of,
    halo=halos,
    stride=strides,
    blockings=st.tuples(counts, counts),
    data=st.data(),
)
def test_blocks_do_not_change_what_is_kept(
    image: np.ndarray,
    cell: Shape,
    halo: Halo,
    stride: Shape,
    blockings: tuple[Shape, Shape],
    data: st.DataObject,
) -> None:
    options: dict[str, Any] = {
        "tile": times(stride, data.draw(counts)),
        "cell": cell,
        "nodata": data.draw(st.none() | st.sampled_from(PALETTES[image.dtype.name])),
        "outside": some_outside(data.draw(st.integers(0, 9)), as_shape(image.shape)),
    }
    with np.errstate(invalid="ignore"):
        one, other = (
            assembled(WindowSum(halo, stride), image, block=times(cell, blocks), **options)
            for blocks in blockings
        )
    assert one.tobytes() == other.tobytes()


class Counted:
    """Counts the forward passes of another denoiser."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.calls = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def denoise(self, tile: Any, region: Region) -> Estimate:
        self.calls += 1
        estimate: Estimate = self.inner.denoise(tile, region)
        return estimate


def test_empty_tiles_are_not_run_and_a_constant_is_asked_for_once() -> None:
    image = np.full((16, 16, 48), 7, np.uint16)
    image[:, :, 32:] = np.random.default_rng(0).integers(0, 99, (16, 16, 16))
    counted: Any = Counted(WindowSum(((2, 2),) * 3))
    sizes: dict[str, Any] = {"block": (16, 16, 16), "tile": (8, 8, 8), "cell": (8, 8, 8)}
    found = assembled(counted, image, **sizes)
    assert counted.calls == 2 * 2 * 6  # no cell is free of faces
    image = np.pad(image, ((8, 8), (8, 8), (8, 0)), constant_values=7)
    found = assembled(counted, image, **sizes)
    inner = 2 * 2 * 3  # along X those that begin at 8, 16 and 24: the next has noise in its halo
    assert counted.calls == 2 * 2 * 6 + (4 * 4 * 7 - inner) + 1
    assert (found[8:24, 8:24, 8:32] == 7 * 5**3).all()


# Responses


def test_a_response_is_of_the_denoiser_the_value_and_the_channel() -> None:
    one, other = WindowSum(((1, 0), (0, 0), (0, 2)), (2, 1, 2)), WindowSum()
    response = constant_response(one, 3.0, 0).mean
    assert response.dtype == np.float32
    np.testing.assert_array_equal(response, [[[18, 18.5]], [[19, 19.5]]])
    assert constant_response(one, 3.0, 0).mean is response
    assert not response.flags.writeable
    assert constant_response(one, 4.0, 0).mean.tolist() == (response + 6).tolist()
    assert constant_response(other, 3.0, 0).mean.tolist() == [[[3.0]]]


@given(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(0, 9)] * 3), cells_of)
def test_a_response_is_repeated_from_the_volumes_origin(
    period: Shape, start: Shape, extent: Shape
) -> None:
    response = np.arange(prod(period), dtype=np.float32).reshape(period)
    box = Box(start, as_shape([a + n for a, n in zip(start, extent, strict=True)]))
    tiled = np.tile(response, [-(-b // p) for b, p in zip(box.stop, period, strict=True)])
    np.testing.assert_array_equal(repeated(response, box), tiled[box.slices])


# Networks


def scene(model: Model) -> np.ndarray:
    """Noise beside two constants, each with a cell of 8³ that sees nothing else; (z, y, x)."""
    z, y, x = (low + high + 15 for low, high in model.halo)
    image = np.random.default_rng(3).poisson(100, (z, 2 * y, x + 16)).astype(np.uint16)
    image[:, :y, :x] = 100
    image[:, y:, :x] = 0
    image[2:6, 2:6, x + 4 : x + 8] = 300
    return image


def blockings_of(image: np.ndarray) -> list[Shape]:
    whole = as_shape([-(-n // 8) * 8 for n in image.shape])
    return [(8, 24, 40), (40, 16, 24), whole]


@pytest.fixture(scope="module")
def folding(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> Path:
    """A model whose network makes channels of every 2 x 2 voxels."""
    unet = UNetConfig(
        in_channels=2, depth=1, filters=2, kernel=(1, 3, 3), pooled=(0, 1, 1), fold=(1, 2, 2)
    )
    folder = tmp_path_factory.mktemp("models") / "folding"
    return write_model(folder, FilterUNetConfig((3, 3, 3), unet))


@pytest.fixture(params=["tiny", "folding"])
def model(request: pytest.FixtureRequest, tiny_model: Path, folding: Path) -> Model:
    folder = {"tiny": tiny_model, "folding": folding}[request.param]
    return Model(folder, OpenOptions(CONSTANTS, threads=1))


def test_a_network_with_constants_filled_in_equals_its_whole_volume_pass(model: Model) -> None:
    image = scene(model)
    shape = as_shape(image.shape)
    expected = model.denoise(image.astype(np.float32), Region(0, 0, Box.whole(shape), shape)).mean
    counted: Any = Counted(model)
    results = [
        assembled(counted, image, block=block, tile=(8, 16, 24), cell=(8, 8, 8))
        for block in blockings_of(image)
    ]
    assert len({result.tobytes() for result in results}) == 1
    assert np.abs(results[0] - expected).max() <= 1e-5 * expected.std()
    whole = Box.whole(shape)
    cells = classify(image, whole, whole, cell=(8, 8, 8), halo=model.halo, shape=shape)
    assert {value for _, value in cells.constant} == {0.0, 100.0}  # not in vain


def test_blocks_do_not_change_a_network_with_a_mask_and_no_data(model: Model) -> None:
    image = scene(model)
    shape = as_shape(image.shape)
    options: dict[str, Any] = {"nodata": 0, "outside": lambda box: box.start[1] == 16}
    results = [
        assembled(model, image, block=block, tile=(8, 16, 24), cell=(8, 8, 8), **options)
        for block in blockings_of(image)
    ]
    assert len({result.tobytes() for result in results}) == 1
    np.testing.assert_array_equal(results[0][:, 16:24], image[:, 16:24])
    half = -(-shape[1] // 2 // 8) * 8
    assert not results[0][:, half:, : shape[2] - 24].any()
    assert (results[0] != image).mean() > 0.25


def test_a_network_answers_a_channel_in_its_own_units(model: Model) -> None:
    responses = [
        constant_response(model, offset, c).mean for c, offset in enumerate(CONSTANTS.offset)
    ]
    normalised = [
        (response - offset) / scale
        for response, offset, scale in zip(
            responses, CONSTANTS.offset, CONSTANTS.scale, strict=True
        )
    ]
    np.testing.assert_allclose(normalised[0], normalised[1], rtol=1e-4)
    assert np.abs(normalised[0]).min() > 1e-3
    assert model.stride == responses[0].shape


def test_a_network_that_folds_has_an_answer_for_each_position(folding: Path) -> None:
    response = constant_response(Model(folding, OpenOptions(CONSTANTS)), 123.0, 0).mean
    assert np.ptp(response) > 1e-2
    np.testing.assert_allclose(response[:, :2, :2], response[:, 2:, 2:], rtol=1e-6)
