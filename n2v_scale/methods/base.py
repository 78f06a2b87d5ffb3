"""The contract of a method: how a network is trained, and how it is applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from n2v_scale.geometry import Box, Halo, Shape
from n2v_scale.streams import Streams


@dataclass(frozen=True)
class Example:
    """One training example, all (b, c, z, y, x)."""

    input: Tensor
    """What the network sees."""
    target: Tensor
    """What it should say."""
    weight: Tensor
    """How much each voxel counts in the loss; 0 leaves it out."""


@dataclass(frozen=True)
class TensorEstimate:
    """What a network says of a core, (b, c, z, y, x), normalised."""

    mean: Tensor
    std: Tensor | None = None


class Method(Protocol):
    """Everything that differs between Noise2Void and its relatives."""

    @property
    def name(self) -> str:
        """As in the model card."""

    @property
    def blind(self) -> bool:
        """Whether :meth:`infer` predicts a voxel without having seen it."""

    @property
    def closed_form(self) -> bool:
        """Whether the network's initial weights are all there is to learn."""

    @property
    def reach(self) -> Shape:
        """How far :meth:`infer` looks further than the network does, per axis."""

    @property
    def passes(self) -> int:
        """Forward passes of :meth:`infer`."""

    def prepare(self, batch: Tensor, streams: Streams) -> Example:
        """An example from noisy patches (b, c, z, y, x), normalised, NaN where there is no data.

        All randomness comes from ``streams``, which live on the batch's device.
        """

    def loss(self, output: Tensor, example: Example) -> Tensor:
        """The scalar to minimise."""

    def infer(
        self,
        network: nn.Module,
        tile: Tensor,
        crop: Halo,
        inside: Box | None,
        origin: Shape = (0, 0, 0),
    ) -> TensorEstimate:
        """The estimate of a tile's core; ``crop`` and ``inside`` as in the network's forward.

        ``origin`` is where the tile begins in the volume, so that what is periodic does not depend
        on the tiles.

        Of a blind method that knows it, ``std`` is what the prediction misses.
        """
