"""What the verbs' arguments may be."""

from __future__ import annotations

from os import PathLike

from n2v_scale.cluster_settings import ClusterSettings
from n2v_scale.io.open import open_volume
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume import Volume

Address = str | PathLike[str]
VolumeLike = Address | Volume
Cluster = ClusterSettings | str
"""``local``, a batch system, a scheduler's address or a preset, or what
:func:`n2v_scale.cluster_settings.read_cluster` makes of these with more settings."""


def as_volume(volume: VolumeLike, storage: StorageOptions | None = None) -> Volume:
    """The volume itself, where its address was given."""
    return volume if isinstance(volume, Volume) else open_volume(volume, storage_options=storage)
