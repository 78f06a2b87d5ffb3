"""Which volumes are shown: those that were named, and the noisy one that they were made from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2v_scale.denoiser import IDENTITY
from n2v_scale.errors import InputError
from n2v_scale.io.open import open_volume
from n2v_scale.io.storage_options import StorageOptions
from n2v_scale.io.stores import is_url, normalise
from n2v_scale.io.volume import Volume
from n2v_scale.own_record import record_of
from n2v_scale.viewing.chunk_cache import ChunkCache
from n2v_scale.viewing.shown import ShownVolume


@dataclass
class Choice:
    """The volumes, the noisy one first, and what a user should know of them."""

    volumes: list[ShownVolume] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def chosen_volumes(
    addresses: Sequence[str],
    *,
    noisy: str | None = None,
    storage_options: StorageOptions | None = None,
) -> Choice:
    """The volumes at ``addresses``, and before them the noisy one where it is known.

    It is ``noisy``, or what the record in the first denoised volume that has one says it was made
    from. Where that is gone, a remark says so.

    Raises
    ------
    InputError
        When one that was named cannot be opened.
    """
    choice, cache, taken = Choice(), ChunkCache(), set[str]()
    opened = [open_volume(a, any_dtype=True, storage_options=storage_options) for a in addresses]
    records = [record_of(volume) for volume in opened]
    source: Volume | None = None
    if noisy is not None:
        source = open_volume(noisy, any_dtype=True, storage_options=storage_options)
    else:
        made = [(v, r) for v, r in zip(opened, records, strict=True) if r and _denoised(r)]
        if made:
            source = _source(*made[0], choice.remarks)
    places = [volume.location for volume in opened]
    if source is not None and source.location not in places:
        choice.volumes.append(ShownVolume(_name(source, taken), source, "noisy", cache))
    for volume, record in zip(opened, records, strict=True):
        known = source is not None and volume.location == source.location
        role = "noisy" if known else "denoised" if record and _denoised(record) else "volume"
        choice.volumes.append(ShownVolume(_name(volume, taken), volume, role, cache))
    choice.volumes.sort(key=lambda shown: shown.role != "noisy")
    return choice


def _denoised(record: dict[str, Any]) -> bool:
    """Whether a run computed anything: an import copies."""
    made_by = record["plan"].get("denoiser", {}).get("address")
    return "volume" in record and made_by != IDENTITY


def _source(output: Volume, record: dict[str, Any], remarks: list[str]) -> Volume | None:
    """What ``output`` was made from, where its record says that it lies, or else beside it."""
    stored = record["volume"]
    address = str(stored["address"])
    places = [address]
    if not is_url(address) and not is_url(output.address):
        places.append(os.fspath(Path(output.address).parent / Path(address).name))
    for place in dict.fromkeys(places):
        try:
            return _as_recorded(place, stored, output.storage)
        except InputError as error:
            reason = str(error)
            if place == address:
                first = reason
    remarks.append(f"{output.address} is shown alone: the noisy volume is gone ({first})")
    return None


def _as_recorded(place: str, stored: dict[str, Any], storage: StorageOptions) -> Volume:
    tiff = stored["kind"] == "tiff"
    inner = stored["array_path"] if stored["kind"] == "zarr" else ""
    volume = open_volume(
        f"{normalise(place)}/{inner}".rstrip("/"),
        axes="".join(axis["name"] for axis in stored["axes"]),
        series=int(stored["array_path"] or 0) if tiff else None,
        channels=stored["channels"],
        timepoints=stored["timepoints"],
        any_dtype=True,
        storage_options=storage or None,
    )
    if list(volume.stored_shape) != list(stored["stored_shape"]):
        raise InputError(f"{place} holds another volume now, of shape {volume.stored_shape}")
    return volume


def _name(volume: Volume, taken: set[str]) -> str:
    """The last part of the address, as a name that no other volume has."""
    base = volume.address.rstrip("/").replace("\\", "/").rpartition("/")[2] or "volume"
    base = "".join(c if c.isalnum() or c in "._-" else "-" for c in base)
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    taken.add(name)
    return name
