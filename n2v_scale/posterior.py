"""What a voxel's own value adds to a prediction that has not seen it.

A blind prediction is made from the neighbours alone, so the voxel's own value is independent
evidence. With a normal prior around the prediction and the camera's noise, Bayes weighs the two
(Laine et al. 2019, NeurIPS, equation 4; here for one channel)::

    mean     = (prior * noisy + noise * predicted) / (prior + noise)
    variance = prior * noise / (prior + noise)

``noise`` is the camera's variance where the signal is as predicted, ``prior`` the variance of
what the prediction misses: what the residuals in the neighbourhood show beyond the noise, their
mean square less the noise's variance. A network that predicts it itself says how it differs from
voxel to voxel; how large it is in a neighbourhood is still what the residuals show. (Believing
the network alone gave 29.9 dB on a mouse brain where residuals gave 31.3.)
"""

from __future__ import annotations

from math import exp

import torch
from torch import Tensor

from n2v_scale.line_sums import line_sum
from n2v_scale.methods.base import TensorEstimate
from n2v_scale.noise import REACH, NoiseModel

SIGMA = 2.0
"""Of the neighbourhood, in voxels along each axis."""
LEAST_PRIOR = 0.01
"""Of the noise's variance: a mean of neighbours has some of their noise, whatever residuals say."""
LEAST_NOISE = 1e-12
"""Of a normalised variance: a voxel without noise is left as it is, and nothing divides by zero."""


def with_own_value(
    noisy: Tensor, blind: TensorEstimate, noise: NoiseModel, there: Tensor | None = None
) -> TensorEstimate:
    """The posterior mean and standard deviation, (b, 1, z, y, x), normalised.

    Parameters
    ----------
    noisy
        The voxels themselves.
    blind
        The prediction, which has not seen them; its ``std`` is that of the prior, if the network
        knows it.
    noise
        Of normalised voxels.
    there
        1 where there is a voxel and 0 past the volume's end, where residuals say nothing; all ones
        when None.
    """
    noise_variance = signal_noise(blind.mean, noise)
    prior = residual_variance(noisy, blind.mean, noise_variance, there)
    if blind.std is not None:
        said = blind.std.square()
        prior = prior * said / neighbours_mean(said, there).clamp_min(LEAST_NOISE)
    return bayes(noisy, blind.mean, prior, noise_variance)


def bayes(noisy: Tensor, predicted: Tensor, prior: Tensor, noise: Tensor) -> TensorEstimate:
    """Mean and standard deviation of the product of two normal distributions.

    ``prior`` is the variance around ``predicted``, ``noise`` that around ``noisy``.
    """
    prior = torch.maximum(prior, LEAST_PRIOR * noise)
    weight = prior / (prior + noise)
    return TensorEstimate(torch.lerp(predicted, noisy, weight), (weight * noise).sqrt())


def signal_noise(mean: Tensor, noise: NoiseModel) -> Tensor:
    """The noise's variance where the signal is ``mean``."""
    above = (mean - noise.offset).clamp_min(0)
    return (noise.gain * above + noise.read_noise**2).clamp_min(LEAST_NOISE)


def residual_variance(
    noisy: Tensor, mean: Tensor, noise_variance: Tensor, there: Tensor | None = None
) -> Tensor:
    """What the residuals around each voxel, without its own, vary by beyond the noise; at least 0.

    Its own is left out: a voxel with much noise would seem to be one that is hard to predict.
    """
    excess = (noisy - mean).square() - noise_variance
    return neighbours_mean(excess, there).clamp_min(0)


def neighbours_mean(x: Tensor, there: Tensor | None = None) -> Tensor:
    """The weighted mean of the voxels around each, without its own, of those that are ``there``."""
    there = torch.ones_like(x) if there is None else there
    return _around(x * there) / _around(there).clamp_min(LEAST_NOISE)


def _around(x: Tensor) -> Tensor:
    """A Gaussian's weighted sum over the neighbourhood (b, c, z, y, x), without the centre."""
    line = [exp(-0.5 * (k / SIGMA) ** 2) for k in range(-REACH, REACH + 1)]
    out = x
    for axis in (2, 3, 4):
        out = line_sum(out, axis, line)
    return out - x  # the centre's weight is 1
