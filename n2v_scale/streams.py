"""Random numbers that depend on the patch they are for, not on its batch or process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Streams:
    """One generator for each patch of a batch."""

    def __init__(self, keys: Sequence[tuple[int, ...]], device: torch.device | str = "cpu") -> None:
        """``keys`` seed the patches' generators: the same key gives the same numbers."""
        self.device = torch.device(device)
        self.generators = [torch.Generator(self.device).manual_seed(_seed(key)) for key in keys]

    def rand(self, rows: int, *shape: int) -> Tensor:
        """Uniform in [0, 1), (rows, *shape); each patch has an equal number of the rows."""
        each, rest = divmod(rows, len(self.generators))
        if rest:
            raise ValueError(f"{rows} rows for {len(self.generators)} patches")
        drawn = [
            torch.rand(each, *shape, generator=generator, device=self.device)
            for generator in self.generators
        ]
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn)


def _seed(key: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)
