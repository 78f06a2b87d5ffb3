"""The method of a training, from what was asked for and what a sample says of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from n2v_scale.architecture import Design
from n2v_scale.blind_masks import parse_blind_mask
from n2v_scale.config import TrainSettings
from n2v_scale.errors import ConfigError, TrainingError
from n2v_scale.geometry import Shape
from n2v_scale.learned_noise import first_camera, of_both
from n2v_scale.methods.base import Method
from n2v_scale.methods.linear import Linear
from n2v_scale.methods.n2s import Noise2Self
from n2v_scale.methods.n2v import Noise2Void
from n2v_scale.methods.paired import Paired
from n2v_scale.methods.ssdn import BlindSpot, LearningNoise
from n2v_scale.noise import NoiseModel
from n2v_scale.sources import Source, common_noise

FLAT_PARTITION = (1, 5, 5)
"""The 25 subsets of the paper, for images without depth."""
PARTITION = (2, 2, 2)
"""Every hidden voxel keeps all of its 26 neighbours, and eight passes are enough."""


def chosen_method(settings: TrainSettings, design: Design, sources: Sequence[Source]) -> Method:
    """The method that ``settings`` name.

    Raises
    ------
    TrainingError
        When it needs to know the noise, and neither the settings nor the sample tell.
    """
    if settings.method == "linear":
        return Linear()
    if settings.method in ("n2n", "supervised"):
        return Paired(settings.loss, settings.method == "n2n", settings.method)
    camera = None if settings.camera is None else NoiseModel(*settings.camera)
    noise = common_noise(sources, camera)
    if settings.method == "ssdn":
        return _learning(sources) if settings.noise == "learned" else _knowing(noise)
    grows = noise if noise is not None and noise.gain > 0 else None
    if settings.method == "n2s":
        return Noise2Self(_partition(settings, design.patch), grows)
    return Noise2Void(
        settings.voxels_per_site,
        design.radius,
        grows,
        "median" if settings.method == "n2v2" else "uniform",
        parse_blind_mask(settings.blind_mask) if settings.blind_mask else (),
        settings.method,
    )


def _knowing(noise: NoiseModel | None) -> BlindSpot:
    if noise is None:
        raise TrainingError(
            "the sample does not show the camera's noise, which --method ssdn needs: pass its "
            "--gain, --offset and --read-noise, or --noise learned, or use another method"
        )
    return BlindSpot(noise)


def _learning(sources: Sequence[Source]) -> LearningNoise:
    """Beginning with what the samples show, whether it is to be trusted or not."""
    camera = first_camera(sources)
    first = None if camera is None else common_noise(sources, camera)
    if first is None:
        raise TrainingError(
            "the sample is too small, or too even, to begin to learn the noise from: pass the "
            "camera's --gain, --offset and --read-noise without --noise learned, or use another "
            "method"
        )
    return LearningNoise(of_both(first))


def _partition(settings: TrainSettings, patch: Shape) -> Shape:
    """As asked for, if it makes sense.

    Raises
    ------
    ConfigError
        When one subset would be everything, or a patch would lack one.
    """
    asked = settings.partition
    if asked is None:
        return FLAT_PARTITION if patch[0] == 1 else PARTITION
    if prod(asked) < 2 or any(a > n for a, n in zip(asked, patch, strict=True)):
        raise ConfigError(
            f"partition {asked}: a cell holds at least two voxels and fits into a patch of {patch}"
        )
    return asked
