"""A model as one graph from a normalised image to a normalised estimate, for other programs.

What a consumer cannot be asked to do is part of the graph: the passes of a method that has several,
and the voxels' own values, where the noise is known.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from n2v_scale.geometry import NO_HALO
from n2v_scale.methods.base import Method, TensorEstimate
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.nets import Network
from n2v_scale.nets.recordable import recordable
from n2v_scale.noise import NoiseModel
from n2v_scale.posterior import with_own_value


class ExportedModel(nn.Module):
    """Maps an image (b, c, z, y, x), or (b, c, y, x) of a flat one, to its estimate, as large.

    Extents are multiples of the network's stride. With ``std`` there are two results: the mean and
    its standard deviation, both normalised.
    """

    def __init__(
        self,
        network: Network,
        method: Method,
        noise: tuple[NoiseModel, ...] | None,
        *,
        flat: bool = False,
        std: bool = False,
    ) -> None:
        """``noise`` is of normalised voxels, by channel; ``flat`` leaves Z away."""
        super().__init__()
        self.flat, self.std = flat, std
        several = isinstance(method, Noise2Self) and not method.plain
        self.one_pass = OnePass(network, method, flat=flat) if several else None
        self.seen = None if several else Seen(network, method, flat=flat, std=std)
        self.finish = None if noise is None else Finish(noise, flat=flat, std=std)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The mean, or mean and standard deviation."""
        found = self._passes(image) if self.seen is None else self.seen(image)
        if self.finish is not None:
            found = self.finish(image, *found)
        return tuple(found) if self.std else found[0]

    def _passes(self, image: Tensor) -> tuple[Tensor]:
        """Subset after subset, each hidden from its own prediction; phased by the image."""
        assert self.one_pass is not None
        mean = torch.zeros_like(image)
        for phase in self.one_pass.phases:
            mean = mean + self.one_pass(image, torch.tensor(phase, device=image.device))
        return (mean,)


class Seen(nn.Module):
    """The prediction in one pass: its mean, and the standard deviation if the network knows it."""

    def __init__(self, network: Network, method: Method, *, flat: bool, std: bool) -> None:
        super().__init__()
        self.network, self.method = recordable(network), method
        self.flat, self.std = flat, std

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Both in the image's shape; channels are treated alike, each by itself."""
        found = self.method.infer(self.network, spread(image, flat=self.flat), NO_HALO, None)
        mean = found.mean.reshape(image.shape)
        return (mean,) if found.std is None else (mean, found.std.reshape(image.shape))


class OnePass(nn.Module):
    """The prediction of one subset, which is hidden, and 0 elsewhere."""

    def __init__(self, network: Network, method: Method, *, flat: bool) -> None:
        super().__init__()
        assert isinstance(method, Noise2Self)
        self.network, self.method, self.flat = recordable(network), method, flat
        self.phases = list(product(*map(range, method.partition)))

    def forward(self, image: Tensor, phase: Tensor) -> Tensor:
        """In the image's shape; ``phase`` (3,) says which subset."""
        x = spread(image, flat=self.flat)
        subset, hidden = self.method.hidden(x, phase.unbind())
        found = torch.where(subset > 0, self.network(hidden), torch.zeros_like(x))
        return found.reshape(image.shape)


class Finish(nn.Module):
    """Puts each voxel's own value back; see :mod:`n2v_scale.posterior`."""

    def __init__(self, noise: tuple[NoiseModel, ...], *, flat: bool, std: bool) -> None:
        super().__init__()
        self.noise, self.flat, self.std = noise, flat, std

    def forward(self, image: Tensor, mean: Tensor, std: Tensor | None = None) -> tuple[Tensor, ...]:
        """The mean, or mean and standard deviation, in the image's shape."""
        found = []
        for c, noise in enumerate(self.noise):
            own, blind = (self._channel(t, c) for t in (image, mean))
            error = None if std is None else self._channel(std, c)
            estimate = TensorEstimate(blind, error)
            found.append(with_own_value(own, estimate, noise, std=self.std))
        means = torch.cat([f.mean for f in found], dim=1).reshape(image.shape)
        if not self.std:
            return (means,)
        stds = torch.cat([f.std for f in found if f.std is not None], dim=1)
        return means, stds.reshape(image.shape)

    def _channel(self, x: Tensor, c: int) -> Tensor:
        one = x[:, c : c + 1]
        return one.unsqueeze(2) if self.flat else one


def spread(image: Tensor, *, flat: bool) -> Tensor:
    """Channels as images of their own, (b * c, 1, z, y, x)."""
    x = image.unsqueeze(2) if flat else image
    return x.flatten(0, 1).unsqueeze(1)
