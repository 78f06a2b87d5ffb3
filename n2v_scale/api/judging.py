"""What to think of a volume: its noise, its error, its resolution."""

from __future__ import annotations

import os
from pathlib import Path

from n2v_scale.api.arguments import Address, VolumeLike, as_volume
from n2v_scale.config import (
    CameraSettings,
    read_settings,
)
from n2v_scale.diagnosis import Diagnosis, diagnose_volume
from n2v_scale.evaluation import Evaluation, evaluate_volumes
from n2v_scale.io.stores import normalise
from n2v_scale.io.volume import Volume
from n2v_scale.pair_evaluation import PairEvaluation, evaluate_captures
from n2v_scale.progress import Progress
from n2v_scale.reporting import ReportSummary, check_ready, find_out, write_report
from n2v_scale.self_evaluation import SelfEvaluation, evaluate_itself


def diagnose(volume: VolumeLike, *, seed: int = 0) -> Diagnosis:
    """What noise a volume has, from a sample, and which method suits it.

    Gain, offset and read noise; the noise's correlation along z, y and x, at which the signal's own
    is held off; saturated, clipped and empty shares. ``recommendation.sentence`` says which method
    and which blind mask, and why.

    Raises
    ------
    InputError
        When the volume's voxel type is none that can be trained on.
    """
    return diagnose_volume(as_volume(volume), seed=seed)


def evaluate(
    volume: VolumeLike,
    reference: VolumeLike,
    *,
    data_range: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare a volume with a clean reference: PSNR, scale-invariant PSNR, SSIM.

    ``data_range`` is the PSNR's peak; by default the reference's 99.9th percentile minus its
    minimum, from a sample. Nothing grows with the volumes.
    """
    return evaluate_volumes(
        as_volume(volume), as_volume(reference), data_range=data_range, progress=progress
    )


def estimate_error(
    volume: VolumeLike,
    noisy: VolumeLike,
    *,
    model: Address | None = None,
    gain: float | None = None,
    offset: float | None = None,
    read_noise: float | None = None,
    data_range: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> SelfEvaluation:
    """The error of a denoised volume, estimated from the noisy one, without a clean one.

    Right where the noise is independent from voxel to voxel and its variance is known: at 30 dB one
    percent of it is some tenths of a decibel. The interval says what is not known. A prediction
    that has not seen the voxels it predicts is taken as it is stored; for others, their model is
    applied again to sampled boxes (:mod:`n2v_scale.blind_error`).

    Parameters
    ----------
    volume
        The denoised one.
    noisy
        What it was made from.
    model
        The folder of the model that made it; the one on the output's record when None.
    gain, offset, read_noise
        Of the camera, in the volume's units; seen in a sample when None.
    data_range
        The PSNR's peak; by default the denoised volume's 99.9th minus its 0.1th percentile.

    Raises
    ------
    InputError, ModelError, ConfigError
        Each says what was seen and what to do.
    """
    told = read_settings(CameraSettings, None, gain=gain, offset=offset, read_noise=read_noise)
    return evaluate_itself(
        as_volume(volume),
        as_volume(noisy),
        model=None if model is None else normalise(model),
        camera=told.camera,
        data_range=data_range,
        seed=seed,
        progress=progress,
    )


def evaluate_pair(
    volume: VolumeLike,
    pair: VolumeLike,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> PairEvaluation:
    """The resolution of two captures of the same, where their Fourier shell correlation is 1/7.

    Both are noisy, or each was denoised on its own; voxel for voxel on one grid, each with noise of
    its own. The resolution is that of their mean (Rosenthal and Henderson 2003), over all of the
    volume, in all directions together, along XY and along Z. What is in both without being in the
    specimen counts as resolved: a camera's pattern, or what one model makes of noise by habit.

    Parameters
    ----------
    volume, pair
        The two captures.
    seed
        Of the sample: 64³ voxels or a chunk each, about 2^25 voxels a channel.

    Raises
    ------
    InputError
        When the two are not on one grid, or nothing of them can be compared.
    """
    return evaluate_captures(as_volume(volume), as_volume(pair), seed=seed, progress=progress)


def report(
    volume: VolumeLike,
    output: Address = "report.html",
    *,
    model: Address | None = None,
    noisy: VolumeLike | None = None,
    reference: VolumeLike | None = None,
    gain: float | None = None,
    offset: float | None = None,
    read_noise: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ReportSummary:
    """Write one HTML file that shows a denoised volume and whether to trust it.

    It holds all that it shows: no request leaves it, and it stays below 15 MB whatever the volume's
    size. Voxels are read from samples alone, but with a ``reference``, which is compared whole.

    Parameters
    ----------
    volume
        An output of :func:`predict` or :func:`baseline`.
    output
        The file; one that is there is replaced.
    model
        The folder of the model that made it; the one on the output's record when None.
    noisy
        What it was made from; the volume on the output's record when None.
    reference
        A clean volume, voxel for voxel.
    gain, offset, read_noise
        Of the camera, in the volume's units; seen in a sample when None.
    seed
        Of the places that are shown, and of the samples.

    Raises
    ------
    InputError, ConfigError, OutputError
        When this package did not write the volume, the noisy one is gone, a library is missing or
        the file cannot be written.
    """
    told = read_settings(CameraSettings, None, gain=gain, offset=offset, read_noise=read_noise)
    check_ready(Path(output))  # before minutes of looking
    found = find_out(
        as_volume(volume),
        noisy=noisy if noisy is None or isinstance(noisy, Volume) else os.fspath(noisy),
        reference=None if reference is None else as_volume(reference),
        model=None if model is None else os.fspath(model),
        camera=told.camera,
        seed=seed,
        progress=progress,
    )
    return write_report(Path(output), found, seed=seed)
