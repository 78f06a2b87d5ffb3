"""A volume through a network in one pass, and tile by tile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from n2v_scale.denoiser import tile_boxes
from n2v_scale.geometry import NO_HALO, Box, Halo, Shape, as_shape, padded_shape


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Tiling:
    """What is compared: the whole volume padded to the stride, and one padded tile."""

    @staticmethod
    @torch.no_grad()
    def whole(network: nn.Module, volume: Tensor, stride: Shape) -> Tensor:
        shape = as_shape(list(volume.shape))
        padded = volume.new_zeros(padded_shape(shape, stride))
        inside = Box.whole(shape)
        padded[inside.slices] = volume
        return network(padded[None, None], NO_HALO, inside)[0, 0][inside.slices]

    @staticmethod
    @torch.no_grad()
    def tile(network: nn.Module, volume: Tensor, core: Box, halo: Halo, stride: Shape) -> Tensor:
        boxes = tile_boxes(core, halo, stride, as_shape(list(volume.shape)))
        padded = volume.new_zeros(boxes.padded.shape)
        padded[boxes.data.slices_in(boxes.padded)] = volume[boxes.data.slices]
        around = zip(
            boxes.padded.start,
            boxes.aligned.start,
            boxes.aligned.stop,
            boxes.padded.stop,
            strict=True,
        )
        z, y, x = ((a - p, q - b) for p, a, b, q in around)
        inside = boxes.data.shift(tuple(-a for a in boxes.padded.start))
        out = network(padded[None, None], (z, y, x), inside)[0, 0]
        assert tuple(out.shape) == boxes.aligned.shape
        return out[core.slices_in(boxes.aligned)]


@pytest.fixture(scope="session")
def tiling() -> type[Tiling]:
    return Tiling
