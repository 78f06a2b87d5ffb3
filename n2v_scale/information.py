"""What `n2v-scale info` says about a volume."""

from __future__ import annotations

from typing import Any

from n2v_scale.io.volume import Volume
from n2v_scale.progress import amount_text


def information_text(volume: Volume) -> str:
    """The facts about a volume, one a line, with units."""
    facts = volume.describe()
    rows = [
        ("address", facts["address"]),
        ("array", facts["array_path"] or "(the store itself)"),
        ("format", facts["format"]),
        ("axes", "  ".join(_axis(axis) for axis in facts["axes"])),
        ("voxel type", facts["dtype"]),
        *[
            ("level" if i == 0 else "", f"{level['path'] or '(only)'}: {_times(level['shape'])}")
            for i, level in enumerate(facts["levels"])
        ],
        ("chunk (z, y, x)", _times(facts["chunk_zyx"])),
        ("shard (z, y, x)", _times(facts["shard_zyx"]) if facts["shard_zyx"] else "not sharded"),
        ("codec", facts["codec"]),
        ("size", _size(facts)),
    ]
    return "\n".join(f"{name:<17}{value}" for name, value in rows)


def _axis(axis: dict[str, Any]) -> str:
    if axis["name"] == "c" or (axis["unit"] is None and axis["scale"] == 1):
        return f"{axis['name']} {axis['size']}"
    return f"{axis['name']} {axis['size']} × {axis['scale']:g} {axis['unit'] or '(no unit)'}"


def _times(shape: list[int]) -> str:
    return " × ".join(map(str, shape))


def _size(facts: dict[str, Any]) -> str:
    text = amount_text(facts["size_bytes"], "B")
    stored = facts.get("stored_bytes")
    if not stored:
        return text
    ratio = facts["size_bytes"] / stored
    return f"{text}, stored in {amount_text(stored, 'B')} (compressed {ratio:.2f} times)"
