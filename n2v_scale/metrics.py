"""How close an estimate is to a reference, in sums that grow with nothing.

Blocks of any shape go in, a few numbers stay; the sums of two halves add up to those of the whole.
All arithmetic is float64, and moments are kept about the means, so that a camera's offset costs no
digits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from skimage.metrics import structural_similarity

from n2v_scale.errors import ConfigError, InputError

Array = NDArray[Any]
"""Real numbers of any dtype."""

_SSIM_WINDOW = 11  # voxels; a Gaussian of sigma 1.5 cut at 3.5 sigma
_ROUNDING = 1e-13  # what the sums cannot tell from zero, relative to the reference's variance
_SEARCH_SHAPE = (128, 256, 256)  # the best Gaussian is looked for in at most this much
_LATERAL_SIGMAS = tuple(float(s) for s in np.arange(0, 4.25, 0.25))
_AXIAL_RATIOS = tuple(float(r) for r in np.arange(0, 1.6, 0.1))
_REFINEMENTS = 3


@dataclass(frozen=True)
class ErrorSums:
    """Sums over pairs of voxels from which the error of an estimate follows.

    ``ErrorSums.of(a, b) + ErrorSums.of(c, d)`` equals the sums over both pairs of blocks, whatever
    the partition, up to the rounding of float64 (pairwise update of Chan, Golub and LeVeque 1983,
    The American Statistician 37, 242). ``ErrorSums()`` is empty.

    Attributes
    ----------
    n
        Voxels.
    squared_error
        Sum of (estimate - reference)².
    mean_estimate, mean_reference
        Means.
    var_estimate, var_reference, covariance
        Sums of products of the deviations from the means.

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.arange(8.0)
    >>> halves = [ErrorSums.of(part + 1, part) for part in np.split(reference, 2)]
    >>> sum(halves, ErrorSums()).mse
    1.0
    """

    n: int = 0
    squared_error: float = 0.0
    mean_estimate: float = 0.0
    mean_reference: float = 0.0
    var_estimate: float = 0.0
    var_reference: float = 0.0
    covariance: float = 0.0

    @classmethod
    def of(cls, estimate: Array, reference: Array) -> ErrorSums:
        """Sum over one block; both arrays have the same shape, and any dtype.

        Raises
        ------
        InputError
            If the shapes differ, or a value is NaN or infinite.
        """
        _check_shapes(estimate, reference)
        if estimate.size == 0:
            return cls()
        with np.errstate(invalid="ignore", over="ignore"):  # reported below
            e, r = estimate.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
            error = float(np.sum((e - r) ** 2))
            mean_e, mean_r = float(e.mean()), float(r.mean())
            e -= mean_e
            r -= mean_r
            moments = float(e @ e), float(r @ r), float(e @ r)
        sums = cls(e.size, error, mean_e, mean_r, *moments)
        if not all(map(math.isfinite, astuple(sums))):
            raise InputError(
                "the estimate or the reference holds NaN or infinity, or numbers too large to "
                "square: an error cannot be computed; replace these voxels or leave them out"
            )
        return sums

    def __add__(self, other: ErrorSums) -> ErrorSums:
        n = self.n + other.n
        if n == 0:
            return self
        share = other.n / n
        step_e = other.mean_estimate - self.mean_estimate
        step_r = other.mean_reference - self.mean_reference
        weight = self.n * share
        return ErrorSums(
            n,
            self.squared_error + other.squared_error,
            self.mean_estimate + share * step_e,
            self.mean_reference + share * step_r,
            self.var_estimate + other.var_estimate + weight * step_e**2,
            self.var_reference + other.var_reference + weight * step_r**2,
            self.covariance + other.covariance + weight * step_e * step_r,
        )

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.squared_error / self._some()

    @property
    def fitted_mse(self) -> float:
        """Mean squared error of the best ``a * estimate + b``; 0 where only rounding is left."""
        n = self._some()
        explained = self.covariance**2 / self.var_estimate if self.var_estimate > 0 else 0.0
        residual = self.var_reference - explained
        return residual / n if residual > _ROUNDING * self.var_reference else 0.0

    def psnr(self, data_range: float) -> float:
        """Peak signal-to-noise ratio in dB, ``10 log10(data_range² / mse)``; inf if equal.

        ``data_range`` is the same for every estimate that is compared; it is never taken from the
        estimate.

        Raises
        ------
        ConfigError
            If ``data_range`` is not above 0.
        """
        return _decibel(self.mse, data_range)

    def si_psnr(self, data_range: float) -> float:
        """Scale-invariant PSNR in dB: that of the best ``a * estimate + b``.

        Least squares choose ``a`` and ``b`` once for all voxels, so a wrong gain or offset costs
        nothing; nor does a negative contrast. This is the comparison of Weigert et al. 2018 (CARE;
        Nature Methods 15, 1090), ``normalize_minmse`` in their code. Values beyond 130 dB are
        rounding, and are given as inf.

        Raises
        ------
        ConfigError
            If ``data_range`` is not above 0.
        """
        return _decibel(self.fitted_mse, data_range)

    def _some(self) -> int:
        """Return the number of voxels, of which there must be one."""
        if self.n == 0:
            raise InputError("no voxels were compared: give at least one block that is not empty")
        return self.n


@dataclass(frozen=True)
class SsimSums:
    """Structural similarity, summed over XY planes; sums of two sets of planes add up.

    Convention: that of Wang et al. 2004 (IEEE Transactions on Image Processing 13, 600), plane by
    plane: Gaussian window of sigma 1.5 (11 x 11), population covariance, K1 = 0.01, K2 = 0.03, the
    borders of five voxels left out; the mean over a plane, then over planes, each counting once.
    Computed by :func:`skimage.metrics.structural_similarity`.
    """

    planes: int = 0
    total: float = 0.0

    @classmethod
    def of(cls, estimate: Array, reference: Array, data_range: float) -> SsimSums:
        """Sum over whole planes (..., y, x) of at least 11 x 11 voxels.

        Raises
        ------
        InputError
            If the shapes differ, the planes are too small, or a value is NaN or infinite.
        ConfigError
            If ``data_range`` is not above 0.
        """
        _check_shapes(estimate, reference)
        _check_range(data_range)
        if reference.ndim < 2 or min(reference.shape[-2:]) < _SSIM_WINDOW:
            raise InputError(
                f"planes of {reference.shape[-2:]} voxels are too small for SSIM: give arrays "
                f"(..., y, x) with at least {_SSIM_WINDOW} voxels along y and x"
            )
        pairs = zip(_planes(estimate), _planes(reference), strict=True)
        values = [_plane_ssim(e, r, data_range) for e, r in pairs]
        return cls(len(values), math.fsum(values))

    def __add__(self, other: SsimSums) -> SsimSums:
        return SsimSums(self.planes + other.planes, self.total + other.total)

    @property
    def ssim(self) -> float:
        """Mean over the planes; 1 for equal images."""
        if self.planes == 0:
            raise InputError("no planes were compared: give at least one")
        return self.total / self.planes


def error_sums(estimate: Array, reference: Array) -> ErrorSums:
    """Sum over whole arrays, one index of the first axis at a time.

    Raises
    ------
    InputError
        If the shapes differ, or a value is NaN or infinite.
    """
    _check_shapes(estimate, reference)
    if reference.ndim < 3:
        return ErrorSums.of(estimate, reference)
    parts = (ErrorSums.of(e, r) for e, r in zip(estimate, reference, strict=True))
    return sum(parts, ErrorSums())


def psnr(estimate: Array, reference: Array, data_range: float) -> float:
    """Peak signal-to-noise ratio of whole arrays in dB: see :meth:`ErrorSums.psnr`."""
    return error_sums(estimate, reference).psnr(data_range)


def si_psnr(estimate: Array, reference: Array, data_range: float) -> float:
    """Scale-invariant PSNR of whole arrays in dB: see :meth:`ErrorSums.si_psnr`."""
    return error_sums(estimate, reference).si_psnr(data_range)


def ssim(estimate: Array, reference: Array, data_range: float) -> float:
    """Mean structural similarity of the planes of arrays (..., y, x): see :class:`SsimSums`."""
    return SsimSums.of(estimate, reference, data_range).ssim


def best_gaussian(
    noisy: Array, clean: Array, data_range: float, sigmas: Sequence[float] = _LATERAL_SIGMAS
) -> tuple[tuple[float, float, float], float]:
    """Find the Gaussian filter that comes closest to the truth, and the PSNR it reaches.

    This is an oracle: it looks at ``clean`` to choose, which nobody can do with a real image. It
    bounds from above what smoothing with one isotropic-in-plane Gaussian can do, and is there to
    be compared with, not to be used.

    Parameters
    ----------
    noisy, clean
        Volumes (z, y, x) of one shape.
    data_range
        Of the PSNR.
    sigmas
        Lateral sigmas to start from, in voxels. Each is tried with axial sigmas of 0 to 1.5 times
        as much; then three finer grids around the best follow.

    Returns
    -------
    sigma_zyx
        In voxels, for :func:`scipy.ndimage.gaussian_filter` in its default mode. Chosen in the
        middle of the volume where that is larger than 128 x 256 x 256.
    psnr
        In dB, of that filter over the whole volume.

    Raises
    ------
    InputError
        If the shapes differ or are not three-dimensional, or a value is NaN or infinite.
    ConfigError
        If ``data_range`` is not above 0, or no sigma or a negative one is given.
    """
    _check_shapes(noisy, clean)
    _check_range(data_range)
    if clean.ndim != 3 or clean.size == 0:
        raise InputError(f"the volumes have shape {clean.shape}: give volumes (z, y, x)")
    lateral = np.unique(np.asarray(sigmas, np.float64))
    if lateral.size == 0 or not np.all((lateral >= 0) & np.isfinite(lateral)):
        raise ConfigError(f"sigmas are {tuple(sigmas)}: give at least one, and none below 0")
    middle = _middle(clean.shape)
    sigma = _search(_GaussianErrors(noisy[middle], clean[middle]), lateral)
    smooth = ndimage.gaussian_filter(noisy, sigma, output=np.float32)
    return sigma, psnr(smooth, clean, data_range)


def _middle(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Index of the central part of a volume that the search is done in."""
    sizes = [min(n, limit) for n, limit in zip(shape, _SEARCH_SHAPE, strict=True)]
    starts = [(n - size) // 2 for n, size in zip(shape, sizes, strict=True)]
    return tuple(slice(a, a + size) for a, size in zip(starts, sizes, strict=True))


def _search(errors: _GaussianErrors, lateral: Array) -> tuple[float, float, float]:
    """Search a grid of lateral sigmas and axial ratios, then finer ones around the best."""
    ratios = np.array(_AXIAL_RATIOS)
    best, ratio = _best_on_grid(errors, lateral, ratios)
    step = float(np.diff(lateral).max()) if lateral.size > 1 else best / 2
    ratio_step = float(ratios[1])
    for _ in range(_REFINEMENTS):
        lateral = np.maximum(best + step * np.linspace(-1, 1, 9), 0)
        ratios = np.maximum(ratio + ratio_step * np.linspace(-1, 1, 9), 0)
        best, ratio = _best_on_grid(errors, lateral, ratios)
        step, ratio_step = step / 4, ratio_step / 4
    return ratio * best, best, best


def _best_on_grid(errors: _GaussianErrors, lateral: Array, ratios: Array) -> tuple[float, float]:
    """Lateral sigma and axial ratio of the smallest error on a grid."""
    table = np.array([errors.along_z(float(s), ratios * s) for s in lateral])
    row, column = np.unravel_index(int(np.argmin(table)), table.shape)
    return float(lateral[row]), float(ratios[column])


class _GaussianErrors:
    """Squared error of every Gaussian filter of one volume, without filtering it.

    A symmetric filter over half-sample symmetric borders (scipy's ``reflect``) is a product in the
    space of the type-II cosine transform, and the orthonormal transform keeps sums of squares.
    With the transforms N of the noisy and C of the clean volume and the filter's response g, the
    squared error is ``sum((g N - C)²)``; g is a product over the axes, so that the sums over y and
    x serve all axial sigmas.
    """

    def __init__(self, noisy: Array, clean: Array) -> None:
        level = float(clean.mean(dtype=np.float64))
        n = fft.dctn(noisy.astype(np.float64) - level, norm="ortho", overwrite_x=True)
        c = fft.dctn(clean.astype(np.float64) - level, norm="ortho", overwrite_x=True)
        self.cross = n * c
        self.power = n**2
        self.clean_power = float(np.vdot(c, c))

    def along_z(self, lateral: float, axial: Array) -> NDArray[np.float64]:
        """Squared errors for one lateral and several axial sigmas, in voxels."""
        gy, gx = (_response(lateral, n) for n in self.power.shape[1:])
        power = self.power @ gx**2 @ gy**2  # (z,)
        cross = self.cross @ gx @ gy
        gz = np.array([_response(float(sigma), len(power)) for sigma in axial])  # (sigma, z)
        errors: NDArray[np.float64] = gz**2 @ power - 2 * gz @ cross + self.clean_power
        return errors


def _response(sigma: float, n: int) -> NDArray[np.float64]:
    """Response of scipy's Gaussian kernel, which ends at 4 sigma, to the n cosines of an axis."""
    if sigma < 1e-15:  # below this, scipy leaves the axis alone
        return np.ones(n)
    distance = np.arange(int(4 * sigma + 0.5) + 1)
    weight = np.exp(-0.5 * (distance / sigma) ** 2)
    weight[1:] *= 2  # both sides
    cosines = np.cos(np.pi / n * np.outer(np.arange(n), distance))
    response: NDArray[np.float64] = cosines @ (weight / weight.sum())
    return response


def _check_shapes(estimate: Array, reference: Array) -> None:
    """Refuse arrays that cannot be compared voxel by voxel."""
    if estimate.shape != reference.shape:
        raise InputError(
            f"the estimate has shape {estimate.shape} and the reference {reference.shape}: "
            "give both the same shape"
        )


def _check_range(data_range: float) -> None:
    """Refuse a range that no ratio can be formed with."""
    if not 0 < data_range < math.inf:
        raise ConfigError(
            f"data_range is {data_range}: give the range of the reference, a number above 0"
        )


def _decibel(mse: float, data_range: float) -> float:
    """PSNR of a mean squared error."""
    _check_range(data_range)
    return 10 * math.log10(data_range**2 / mse) if mse > 0 else math.inf


def _planes(array: Array) -> Iterator[Array]:
    """Planes (y, x) of an array (..., y, x)."""
    for index in np.ndindex(array.shape[:-2]):
        yield array[index]


def _plane_ssim(estimate: Array, reference: Array, data_range: float) -> float:
    """SSIM of one plane."""
    e, r = estimate.astype(np.float64), reference.astype(np.float64)
    if not (np.isfinite(e).all() and np.isfinite(r).all()):
        raise InputError(
            "the estimate or the reference holds NaN or infinity: SSIM cannot be computed; "
            "replace these voxels or leave the plane out"
        )
    return float(
        structural_similarity(
            r,
            e,
            data_range=data_range,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
