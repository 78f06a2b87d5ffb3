"""A plan's forecast for people."""

from __future__ import annotations

from n2v_scale.costs import Forecast
from n2v_scale.progress import amount_text, clock

DAY_S = 24 * 60 * 60


def outlook_text(forecast: Forecast) -> str:
    """A forecast in seven lines; one more for a blind model, and one where a worker is asked."""
    rows = {
        "blocks": f"{forecast.blocks:,} of {_shape(forecast.block)} voxels (z, y, x), shared out "
        f"among the workers{_empty(forecast)}",
        "tiles": f"{forecast.tiles:,} of {_shape(forecast.tile)} voxels, what the network gives "
        f"at once; it looks {_halo(forecast.halo)} voxels further along z, y, x (the halo)",
        "compute": f"{forecast.compute_overhead:.2f} times the volume, because of the halo: "
        "larger tiles need less",
        "read": f"{_bytes(forecast.read_bytes)}, {forecast.read_overhead:.2f} times the volume, "
        "because of the halo: larger blocks need less",
        "write": f"{_bytes(forecast.write_bytes)} before compression, with the lower resolutions"
        f"{_std(forecast)}, in at most {forecast.files:,} files of {_shape(forecast.shard)} "
        f"voxels in chunks of {_shape(forecast.chunk)}",
        "memory": _memory(forecast),
        "time": _time(forecast),
    }
    if forecast.posterior is not None:
        rows["own value"] = _own_value(forecast)
    if forecast.precision == "auto":
        rows["precision"] = (
            " is tried on a worker before the first block: half precision where it is faster there "
            "and changes the result by less than 1e-3 of its standard deviation, else float32"
        )
    return "\n".join(f"{name:<9}{text}" for name, text in rows.items())


def _own_value(forecast: Forecast) -> str:
    """Whether there is a posterior, and with which noise."""
    if forecast.noise is None:
        return f" is not put back: {forecast.no_posterior}"
    seen = "; ".join(
        f"gain {n['gain']:.3g}, offset {n['offset']:.4g}, read noise {n['read_noise']:.3g}"
        for n in forecast.noise
    )
    return f" of each voxel is put back, against noise of {seen}"


def _std(forecast: Forecast) -> str:
    return "" if forecast.write == "mean" else " and the standard deviations"


def _empty(forecast: Forecast) -> str:
    if not forecast.empty_blocks:
        return ""
    about = "about " if forecast.empty_is_estimate else ""
    return f"; {about}{forecast.empty_blocks:,} are empty and take hardly any time"


def _memory(forecast: Forecast) -> str:
    memory = forecast.memory
    allowed = f" of {_bytes(forecast.memory_allowed)} allowed" if forecast.memory_allowed else ""
    return (
        f"at most {_bytes(memory.total)} a worker{allowed}: {_bytes(memory.base)} for the program "
        f"and the model, {_bytes(memory.tile)} for the network at work, {memory.tasks} x "
        f"{_bytes(memory.block)} for blocks in hand"
    )


def _time(forecast: Forecast) -> str:
    each = f"{amount_text(forecast.speed, 'voxel')}/s each"
    source = "measured here on one tile" if forecast.speed_measured else "as given"
    crew = amount_text(forecast.workers, "worker")
    crew += " (one a block)" if forecast.workers == forecast.blocks else ""
    return f"about {_duration(forecast.seconds)} with {crew} at {each} ({source})"


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape))


def _halo(halo: list[list[int]]) -> str:
    """One number an axis, or two where its sides differ."""
    return ", ".join(str(low) if low == high else f"{low}+{high}" for low, high in halo)


def _duration(seconds: float) -> str:
    return clock(seconds) if seconds < 2 * DAY_S else f"{seconds / DAY_S:.0f} days"


def _bytes(size: int) -> str:
    return amount_text(size, "B")
