"""One array of an output: its layout, its shards and their keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from n2v_scale.errors import OutputError
from n2v_scale.geometry import Box, Shape, cells_touching


@dataclass(frozen=True)
class ArraySpec:
    """One array of an output, in the order of its own axes (t, c, z, y, x without those it lacks).

    ``shard`` equals ``chunk`` where the format has no shards.
    """

    store: str
    path: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    dtype: str
    codec: str
    codec_level: int
    ome_version: str

    @property
    def zarr_format(self) -> Literal[2, 3]:
        """3 for OME-Zarr 0.5, 2 for 0.4."""
        return 3 if self.ome_version == "0.5" else 2

    @property
    def spatial_shape(self) -> Shape:
        """Extent along (z, y, x)."""
        return _spatial(self.axes, self.shape)

    @property
    def spatial_chunk(self) -> Shape:
        """What is decoded at once, along (z, y, x)."""
        return _spatial(self.axes, self.chunk)

    @property
    def spatial_shard(self) -> Shape:
        """One stored object's extent along (z, y, x)."""
        return _spatial(self.axes, self.shard)

    @property
    def channels(self) -> int:
        """Extent along c; 1 without such an axis."""
        return self.shape[self.axes.index("c")] if "c" in self.axes else 1

    def shards_in(self, box: Box) -> list[Box]:
        """The shards that ``box`` is made of, in order.

        Raises
        ------
        OutputError
            When it cuts one.
        """
        shards = list(cells_touching(box, self.spatial_shard, self.spatial_shape))
        if not all(box.contains(shard) for shard in shards):
            raise OutputError(f"box {box} cuts shards of {self.spatial_shard}")
        return shards

    def key(self, t: int, c: int, shard: Box) -> str:
        """Where a shard is stored."""
        start = dict(zip("zyx", shard.start, strict=True)) | {"t": t, "c": c}
        index = [str(start[a] // s) for a, s in zip(self.axes, self.shard, strict=True)]
        return "/".join([self.path, *(["c"] if self.zarr_format == 3 else []), *index])


def _spatial(axes: tuple[str, ...], extents: tuple[int, ...]) -> Shape:
    z, y, x = (extents[axes.index(a)] if a in axes else 1 for a in "zyx")
    return z, y, x
