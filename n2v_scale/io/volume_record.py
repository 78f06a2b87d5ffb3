"""A volume as JSON and back, for the record of a run; how to reach a store is never part of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.volume import Axis, Level, Volume

TUPLES = ("stored_shape", "timepoints", "channels", "chunk", "multiscale_transforms")


def volume_to_dict(volume: Volume) -> dict[str, Any]:
    """Every field but the storage options."""
    content = asdict(volume)
    del content["storage"]
    return content


def volume_from_dict(content: dict[str, Any], storage: StorageOptions) -> Volume:
    """The volume of :func:`volume_to_dict`; nothing is opened."""
    fields = dict(content)
    for name in TUPLES:
        fields[name] = tuple(fields[name])
    fields["shard"] = tuple(fields["shard"]) if fields["shard"] else None
    fields["axes"] = tuple(Axis(**axis) for axis in fields["axes"])
    fields["levels"] = tuple(_level(level) for level in fields["levels"])
    return Volume(**fields, storage=storage)


def _level(content: dict[str, Any]) -> Level:
    shape, scale, start = (tuple(content[name]) for name in ("shape", "scale", "translation"))
    return Level(content["path"], shape, scale, start)
