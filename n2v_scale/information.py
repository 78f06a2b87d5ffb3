"""What `n2v-scale info` says about a volume: facts, how it would be trained, and a sample."""

from __future__ import annotations

import shutil
from typing import Any

from n2v_scale.errors import N2VScaleError
from n2v_scale.io.volume import Volume, check_dtype
from n2v_scale.progress import amount_text
from n2v_scale.survey import ChannelSurvey, Survey


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


def training_reasons(volume: Volume) -> tuple[str, ...]:
    """What training would choose for a volume without any option, and why; a sentence each."""
    from n2v_scale.architecture import design_for
    from n2v_scale.config import TrainSettings

    memory = None
    if shutil.which("nvidia-smi"):  # torch takes a second to import
        from n2v_scale.devices import device_memory

        memory = device_memory()
    try:
        check_dtype(volume)
        design = design_for(TrainSettings(), volume.spatial_shape, volume.voxel_size, memory)
    except N2VScaleError as error:
        return (f"not possible: {error}",)
    return design.reasons


def survey_of(volume: Volume, *, seed: int = 0) -> Survey:
    """A stratified sample of a volume, read on the cores of this machine."""
    from n2v_scale.cores import available_cores
    from n2v_scale.geometry import as_shape
    from n2v_scale.local_cluster import thread_client
    from n2v_scale.regions import RegionSampler
    from n2v_scale.survey import survey_volume

    check_dtype(volume)
    times, channels = volume.shape[:2]
    shape = volume.spatial_shape
    patch = as_shape([min(n, 64) for n in shape])
    regions = RegionSampler(times, channels, shape, volume.chunk, patch, seed)
    with thread_client(available_cores()) as client:
        return survey_volume(volume, regions.survey_boxes(), client)


def survey_text(survey: Survey) -> str:
    """A sample's findings, one a line; the intervals hold the truth with 95% confidence."""
    lines = []
    for c, channel in enumerate(survey.channels):
        lines += [f"channel {c}", *(f"  {name:<15}{text}" for name, text in _found(channel))]
    return "\n".join(lines)


def _found(channel: ChannelSurvey) -> list[tuple[str, str]]:
    noise, moments = channel.noise, channel.moments
    rows = [
        ("sampled", amount_text(moments.voxels, "voxel")),
        ("mean", f"{moments.mean:.5g} ± {channel.mean_error:.2g}"),
        ("std", f"{moments.std:.5g} ± {channel.std_error:.2g}"),
        ("percentiles", ", ".join(f"{p:g}%: {v:.5g}" for p, v in channel.percentiles.items())),
        ("saturated", f"{channel.saturated:.3%}"),
        ("empty", f"{channel.empty:.0%}"),
    ]
    if noise is not None:
        read = noise.read_noise_electrons
        electrons = "" if read is None else f" ({read:.2g} electrons)"
        rows.append(("gain", f"{noise.gain:.3g} units an electron" if noise.gain else "none seen"))
        rows.append(("offset", f"{noise.offset:.5g}"))
        rows.append(("read noise", f"{noise.read_noise:.3g}{electrons}"))
        if not noise.trusted:
            rows.append(("", "not trusted: there is more structure than noise in the sample"))
    return rows


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
