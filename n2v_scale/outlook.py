"""A plan's forecast for people."""

from __future__ import annotations

from n2v_scale.costs import Forecast
from n2v_scale.progress import amount_text, clock


def outlook_text(forecast: Forecast) -> str:
    """A forecast in a dozen lines."""
    memory = forecast.memory
    rows = {
        "blocks": f"{forecast.blocks:,} of {_shape(forecast.block)}{_empty(forecast)}",
        "tiles": f"{forecast.tiles:,} of {_shape(forecast.tile)}, halo {_halo(forecast.halo)}",
        "read": f"{_bytes(forecast.read_bytes)}, {forecast.read_overhead:.2f} times the volume",
        "write": f"{_bytes(forecast.write_bytes)} before compression, with the pyramid, in at most "
        f"{forecast.files:,} files (chunks {_shape(forecast.chunk)}, shards "
        f"{_shape(forecast.shard)})",
        "halo": f"the network is given {forecast.compute_overhead:.2f} times the useful voxels, "
        "and crops as it goes",
        "memory": f"at most {_bytes(memory.total)} a worker"
        + (f" of {_bytes(forecast.memory_allowed)} allowed" if forecast.memory_allowed else "")
        + f": {_bytes(memory.base)} program and model, {_bytes(memory.tile)} forward pass, "
        f"{memory.tasks} x {_bytes(memory.block)} blocks in hand",
        "time": f"{clock(forecast.seconds)} on {forecast.workers} workers at "
        f"{amount_text(forecast.speed, 'voxel')}/s each "
        f"({'measured here on one tile' if forecast.speed_measured else 'as given'})",
    }
    return "\n".join(f"{name:<8}{text}" for name, text in rows.items())


def _empty(forecast: Forecast) -> str:
    if not forecast.empty_blocks:
        return ""
    about = "about " if forecast.empty_is_estimate else ""
    return f", {about}{forecast.empty_blocks:,} of them known to be empty"


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape))


def _halo(halo: list[list[int]]) -> str:
    return ", ".join(f"{low}+{high}" for low, high in halo)


def _bytes(size: int) -> str:
    return amount_text(size, "B")
