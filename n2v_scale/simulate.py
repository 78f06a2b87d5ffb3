"""A synthetic light-sheet volume of tissue, with its ground truth."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from n2v_scale.camera import Camera
from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Shape, as_shape, grid_cell, grid_indices
from n2v_scale.tissue import Micrometres, Tissue

_BLOCK: Shape = (32, 256, 256)  # rendered at a time: bounds the memory, does not show
_RANGE_SAMPLE = 2**23  # voxels that the percentile of a large volume is taken from


@dataclass(frozen=True)
class LightSheetParameters:
    """Everything that a simulated volume depends on; the same parameters give the same bytes.

    Lengths are in µm along (z, y, x), light in photoelectrons. See :func:`simulate_light_sheet`.
    """

    shape: Shape = (64, 256, 256)
    seed: int = 0
    voxel_size: Micrometres = (2.0, 0.4, 0.4)
    psf_sigma: Micrometres = (1.3, 0.36, 0.36)
    photons: float = 40.0
    depth_loss: float = 0.5
    camera: Camera = field(default_factory=Camera)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ConfigError(f"shape is {self.shape}: give at least one voxel along z, y and x")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: give an integer of at least 0")
        if len(self.voxel_size) != 3 or not all(0 < v < math.inf for v in self.voxel_size):
            raise ConfigError(f"voxel_size is {self.voxel_size}: give three lengths in µm above 0")
        if len(self.psf_sigma) != 3 or not all(0 <= s < math.inf for s in self.psf_sigma):
            raise ConfigError(f"psf_sigma is {self.psf_sigma}: give three lengths in µm, 0 or more")
        if not 0 < self.photons < math.inf:
            raise ConfigError(f"photons is {self.photons}: give a number of electrons above 0")
        if not 0 <= self.depth_loss < 1:
            raise ConfigError(f"depth_loss is {self.depth_loss}: give a fraction from 0 to below 1")

    def to_json(self) -> str:
        """Return the parameters as a JSON object."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class LightSheetVolume:
    """A simulated image and what it would be without noise.

    Attributes
    ----------
    clean
        float32 (z, y, x): the expected counts, ``offset + gain * electrons``.
    noisy
        uint16 (z, y, x): one exposure of ``clean``.
    parameters
        What both were made from.
    """

    clean: NDArray[np.float32]
    noisy: NDArray[np.uint16]
    parameters: LightSheetParameters

    @property
    def electrons(self) -> NDArray[np.float32]:
        """Expected photoelectrons per voxel (z, y, x)."""
        camera = self.parameters.camera
        return (self.clean - np.float32(camera.offset)) / np.float32(camera.gain)

    @property
    def data_range(self) -> float:
        """The range to judge an estimate with: 99.9th percentile of ``clean`` minus its minimum.

        Of a volume beyond 8 million voxels, the percentile is that of an even sample.
        """
        flat = self.clean.reshape(-1)
        step = (flat.size // _RANGE_SAMPLE) | 1  # odd: does not fall in step with the rows
        return float(np.percentile(flat[::step], 99.9) - flat.min())


def simulate_light_sheet(
    shape: tuple[int, ...] = (64, 256, 256),
    *,
    seed: int = 0,
    voxel_size: Micrometres = (2.0, 0.4, 0.4),
    psf_sigma: Micrometres = (1.3, 0.36, 0.36),
    photons: float = 40.0,
    depth_loss: float = 0.5,
    gain: float = 2.2,
    offset: float = 100.0,
    read_noise: float = 1.6,
    read_noise_spread: float = 0.25,
    offset_spread: float = 0.0,
) -> LightSheetVolume:
    """Return a noisy light-sheet volume of dense tissue, and its ground truth.

    The sample is a rounded piece of tissue in empty space: cells with membranes, nuclei with
    chromatin texture, some of them dividing, thin neurites, bright granules, and smooth
    autofluorescence. The light sheet enters at ``x = 0`` and is shadowed in stripes; the objective
    looks from ``z = 0``; both lose light on their way through the tissue. The point spread
    function acts before the noise, so the noise is independent from voxel to voxel.

    Parameters
    ----------
    shape
        Voxels along (z, y, x).
    seed
        Same seed, same bytes (on one version of NumPy and SciPy).
    voxel_size, psf_sigma
        Distance of the voxels, and standard deviation of the Gaussian point spread function, µm.
    photons
        Expected photoelectrons in the bright parts of an average nucleus where no light is lost.
    depth_loss
        Fraction of the light lost by crossing the whole volume, along x and again along z.
    gain, offset, read_noise, read_noise_spread, offset_spread
        See :class:`~n2v_scale.camera.Camera`.

    Returns
    -------
    LightSheetVolume
        Six bytes a voxel; the peak while it is made is about that, plus about 200 MB.

    Raises
    ------
    ConfigError
        If a parameter is out of range.

    Examples
    --------
    >>> volume = simulate_light_sheet((4, 32, 32), seed=1)
    >>> volume.noisy.shape, volume.noisy.dtype.name, volume.clean.dtype.name
    ((4, 32, 32), 'uint16', 'float32')
    """
    if len(shape) != 3:
        raise ConfigError(f"shape is {shape}: give the voxels along z, y and x")
    camera = Camera(gain, offset, read_noise, read_noise_spread, offset_spread)
    parameters = LightSheetParameters(
        as_shape(shape), seed, voxel_size, psf_sigma, photons, depth_loss, camera
    )
    clean = camera.expected(_electrons(parameters))
    return LightSheetVolume(clean, camera.expose(clean, seed), parameters)


def _electrons(parameters: LightSheetParameters) -> NDArray[np.float32]:
    """Return the expected photoelectrons: the tissue, lit, and seen through the optics."""
    shape, voxel_size = parameters.shape, parameters.voxel_size
    tissue = Tissue(shape, voxel_size, parameters.seed)
    light = np.empty(shape, np.float32)
    for index in grid_indices(shape, _BLOCK):
        box = grid_cell(index, _BLOCK, shape)
        light[box.slices] = tissue.cells(box)
    tissue.add_fine_structure(light)
    tissue.attenuate(light, parameters.depth_loss)
    sigma = [s / v for s, v in zip(parameters.psf_sigma, voxel_size, strict=True)]
    ndimage.gaussian_filter(light, sigma, output=light, mode="nearest")
    light *= np.float32(parameters.photons)
    return light
