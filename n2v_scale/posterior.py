"""What a voxel's own value adds to a prediction that has not seen it.

A blind prediction is made from the neighbours alone, so the voxel's own value is independent
evidence. With a normal prior around the prediction and the camera's noise, Bayes weighs the two
(Laine et al. 2019, NeurIPS, equation 4; here for one channel)::

    mean     = (prior * noisy + noise * predicted) / (prior + noise)
    variance = prior * noise / (prior + noise)

``noise`` is the camera's variance where the signal is as predicted, ``prior`` the variance of
what the prediction misses: what the residuals in the neighbourhood show beyond the noise, their
mean square less the noise's variance. A network that predicts it itself says how it differs from
voxel to voxel, and where residuals show more or less than it says, it is scaled by the ratio, as
far as they can tell: their mean is of a few hundred voxels, whose noise it has. (A mouse brain
after 300, 1,000 and 3,000 steps: 31.1, 32.5 and 33.3 dB by the network alone, 31.5, 32.3 and 33.1
by residuals alone, 31.5, 32.5 and 33.4 by both.) Without such a network, where residuals show next
to nothing by chance, the standard deviation is that of what they may hide.
"""

from __future__ import annotations

from math import exp, pi, sqrt

import torch
from torch import Tensor

from n2v_scale.line_sums import line_sum
from n2v_scale.methods.base import TensorEstimate
from n2v_scale.noise import REACH, NoiseModel

SIGMA = 2.0
"""Of the neighbourhood, in voxels along each axis."""
LEAST_PRIOR = 0.01
"""Of the noise's variance: a mean of neighbours has some of their noise, whatever residuals say."""
UNSURE = 0.15
"""Of the voxels' variance, noise and all: how unsure the mean excess of a neighbourhood is. Twice
its standard error, which is sqrt(2 / 356) of the variance where 356 voxels count."""
LOWEST = -3.0
"""Of the residuals' excess, in its own errors: what lies further below 0 says no more."""
LINE = [exp(-0.5 * (k / SIGMA) ** 2) for k in range(-REACH, REACH + 1)]
"""Weights of the neighbourhood along an axis."""
SQUARED = (sum(w**2 for w in LINE) ** 3 - 1) / (sum(LINE) ** 3 - 1)
"""The sum of the weights' squares over their sum: the share that one of them has in the error."""
LEAST_NOISE = 1e-12
"""Of a normalised variance: a voxel without noise is left as it is, and nothing divides by zero."""


def with_own_value(
    noisy: Tensor,
    blind: TensorEstimate,
    noise: NoiseModel,
    there: Tensor | None = None,
    *,
    std: bool = True,
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
    std
        Whether the standard deviation is wanted, which takes as long again.
    """
    noise_variance = signal_noise(blind.mean, noise)
    if blind.std is None:
        seen = excess_variance(noisy, blind.mean, noise_variance, there)
        prior = seen.clamp_min(0)
    else:
        prior = scaled_by_residuals(blind.std.square(), noisy, blind.mean, noise_variance, there)
    weight = weight_of(prior, noise_variance)
    mean = torch.lerp(blind.mean, noisy, weight)
    if not std:
        return TensorEstimate(mean)
    if blind.std is None:
        prior = torch.maximum(prior, likely_variance(seen, noise_variance, there))
    return TensorEstimate(mean, error_of(weight, prior, noise_variance))


def weight_of(prior: Tensor, noise: Tensor) -> Tensor:
    """Of a voxel's own value in the mean of the product of two normal distributions.

    ``prior`` is the variance around what is predicted, ``noise`` that around the value.
    """
    prior = torch.maximum(prior, LEAST_PRIOR * noise)
    return prior / (prior + noise)


def error_of(weight: Tensor, prior: Tensor, noise: Tensor) -> Tensor:
    """The standard deviation of a mean so weighed: with Bayes' weight, the posterior's."""
    prior = torch.maximum(prior, LEAST_PRIOR * noise)
    return ((1 - weight).square() * prior + weight.square() * noise).sqrt()


def signal_noise(mean: Tensor, noise: NoiseModel) -> Tensor:
    """The noise's variance where the signal is ``mean``."""
    above = (mean - noise.offset).clamp_min(0)
    return (noise.gain * above + noise.read_noise**2).clamp_min(LEAST_NOISE)


def excess_variance(
    noisy: Tensor, mean: Tensor, noise_variance: Tensor, there: Tensor | None = None
) -> Tensor:
    """What the residuals around each voxel, without its own, vary by beyond the noise.

    Below 0 where chance has made them smaller than the noise. A voxel's own is left out: one with
    much noise would seem to be one that is hard to predict.
    """
    return neighbours_mean((noisy - mean).square() - noise_variance, there)


def likely_variance(seen: Tensor, noise_variance: Tensor, there: Tensor | None = None) -> Tensor:
    """What the prediction's error is expected to vary by, where residuals show ``seen``.

    A mean of so few squares errs itself, by a known amount, and no variance is below 0: of a
    normal distribution around ``seen``, the mean of what lies above 0.
    """
    weight = _around(torch.ones_like(seen) if there is None else there).clamp_min(SQUARED)
    error = (noise_variance + seen.clamp_min(0)) * (2 * SQUARED / weight).sqrt()
    ratio = (seen / error).clamp_min(LOWEST)
    density = torch.exp(-0.5 * ratio.square()) / sqrt(2 * pi)
    return error * (ratio + density / (0.5 + 0.5 * torch.erf(ratio / sqrt(2))))


def scaled_by_residuals(
    said: Tensor, noisy: Tensor, mean: Tensor, noise_variance: Tensor, there: Tensor | None = None
) -> Tensor:
    """A predicted variance, times what the residuals around each voxel show over what it says.

    Both sums have :data:`UNSURE` added, so that a ratio of small numbers is near 1.
    """
    shown = excess_variance(noisy, mean, noise_variance, there)
    predicted = neighbours_mean(said, there)
    unsure = UNSURE * (neighbours_mean(noise_variance, there) + predicted)
    return said * (shown + unsure).clamp_min(0) / (predicted + unsure).clamp_min(LEAST_NOISE)


def neighbours_mean(x: Tensor, there: Tensor | None = None) -> Tensor:
    """The weighted mean of the voxels around each, without its own, of those that are ``there``."""
    there = torch.ones_like(x) if there is None else there
    return _around(x * there) / _around(there).clamp_min(LEAST_NOISE)


def _around(x: Tensor) -> Tensor:
    """A Gaussian's weighted sum over the neighbourhood (b, c, z, y, x), without the centre."""
    out = x
    for axis in (2, 3, 4):
        out = line_sum(out, axis, LINE)
    return out - x  # the centre's weight is 1
