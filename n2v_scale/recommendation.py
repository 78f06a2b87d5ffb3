"""Which method suits a noise, and why: one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from n2v_scale.correlation import AXES, PATTERN, WEAK, AxisCorrelation
from n2v_scale.noise import NoiseModel
from n2v_scale.progress import amount_text

FEWEST_VOXELS = 2**18
"""A volume with fewer holds too little for a network to learn from."""

ChannelNoise = tuple[NoiseModel | None, Sequence[AxisCorrelation]]


@dataclass(frozen=True)
class Recommendation:
    """What to train with."""

    method: str
    """``n2v``, ``structn2v``, ``ssdn`` or ``linear``."""
    mask: str
    """What is hidden with a voxel, as ``--blind-mask`` takes it, such as ``x:5``; empty when it is
    hidden alone."""
    reason: str
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Method, mask and reason."""
        mask = f" with the blind mask {self.mask}" if self.mask else ""
        return f"{self.method}{mask}: {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "notes": list(self.notes), "sentence": self.sentence}


def recommend(channels: Sequence[ChannelNoise], voxels: int) -> Recommendation:
    """For all channels together, as one network serves them.

    Parameters
    ----------
    channels
        The noise of each, and its correlation along the axes.
    voxels
        Of one channel.
    """
    along = [axis for _, axes in channels for axis in axes]
    strong = [
        axis
        for noise, axes in channels
        for axis in axes
        if axis.strong and ((noise is not None and noise.trusted) or axis.sure)
    ]
    noises = [noise for noise, _ in channels]
    known = [noise for noise in noises if noise is not None and noise.trusted]
    notes = _notes(along, noises)
    if strong:
        method = "linear" if voxels < FEWEST_VOXELS else "structn2v"
        return Recommendation(method, _mask(strong), _correlated(strong), notes)
    apart = _independent(along)
    if voxels < FEWEST_VOXELS:
        few = f"{voxels:,} voxels are too few for a network to learn from, and {apart}"
        return Recommendation("linear", "", few, notes)
    if len(known) < len(noises):
        reason = f"{apart}, and n2v is the method that needs no noise model"
        return Recommendation("n2v", "", reason, notes)
    reason = (
        f"{apart} and its variance lies on the camera's line, so that each voxel's own value can "
        "be put back into a blind prediction"
    )
    return Recommendation("ssdn", "", reason, notes)


def _worst(strong: Sequence[AxisCorrelation]) -> dict[str, AxisCorrelation]:
    """Of the channels, along each axis, the one that reaches farthest."""
    return {
        name: max((axis for axis in strong if axis.axis == name), key=lambda axis: axis.reach)
        for name in sorted({axis.axis for axis in strong}, key=AXES.index)
    }


def _mask(strong: Sequence[AxisCorrelation]) -> str:
    """Lines; a box where the noise reaches across corners, and does not go on for ever."""
    worst = _worst(strong)
    sizes = sorted((abs(axis.strongest) for axis in worst.values()), reverse=True)
    first, second = (*sizes, 0.0)[:2]
    if first * second >= WEAK and not any(axis.pattern >= PATTERN for axis in worst.values()):
        return "box:" + ",".join(str(worst[n].reach if n in worst else 0) for n in AXES)
    return ",".join(f"{name}:{axis.reach}" for name, axis in worst.items())


def _correlated(strong: Sequence[AxisCorrelation]) -> str:
    said = " and ".join(
        f"along {name} ({axis.strongest:.2f}, out to {amount_text(axis.reach, 'voxel')})"
        for name, axis in _worst(strong).items()
    )
    return f"the noise is correlated {said}, so that a voxel hidden alone shows in its neighbours"


def _independent(along: Sequence[AxisCorrelation]) -> str:
    seen = [axis for axis in along if axis.lags]
    if not seen:
        return "there is too little to see whether the noise is correlated"
    most = max(seen, key=lambda axis: abs(axis.strongest))
    if abs(most.strongest) < WEAK:
        return f"the noise is independent from voxel to voxel (correlations below {WEAK:g})"
    if most.strong:
        return f"what looks like noise is alike along {most.axis}, but more structure than noise"
    return (
        f"the noise is nearly independent from voxel to voxel (at most {most.strongest:.2f}, along "
        f"{most.axis})"
    )


def _notes(
    along: Sequence[AxisCorrelation], noises: Sequence[NoiseModel | None]
) -> tuple[str, ...]:
    notes = [
        f"a share of {axis.pattern:.2f} of the noise's variance repeats along {axis.axis} however "
        f"far apart: {_cure(axis.axis)}"
        for axis in along
        if axis.pattern >= PATTERN
    ]
    if any(axis.axis in "yx" and (axis.strong or axis.sure) for axis in along):
        notes.append("gain and read noise are corrected for the correlation along y and x")
    if any(noise is None for noise in noises):
        notes.append("there is too little to see the noise: pass --gain, --offset, --read-noise")
    elif any(noise is not None and not noise.trusted for noise in noises):
        notes.append(
            "the noise's variance lies on no line (more structure than noise, or no camera's): "
            "gain and read noise are not to be trusted"
        )
    return tuple(dict.fromkeys(notes))


def _cure(axis: str) -> str:
    if axis == "z":
        return "a pattern of the sensor, which subtracting a dark frame takes away"
    return "lines, which subtracting each line's background takes away"
