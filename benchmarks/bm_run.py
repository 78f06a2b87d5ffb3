"""BM3D of images or BM4D of a volume, with the noise as it is known.

Run by quality.py in an environment of its own. Both are free for research without profit only.
"""

from __future__ import annotations

import argparse

import numpy as np


def main() -> None:
    """Denoise one file into another."""
    parser = argparse.ArgumentParser()
    parser.add_argument("noisy", help=".npy: images (n, y, x), or a volume (z, y, x) in electrons")
    parser.add_argument("out", help=".npy")
    parser.add_argument("method", choices=["bm3d", "bm4d"])
    parser.add_argument("noise", type=float, help="of bm3d, of the images; of bm4d, read noise")
    options = parser.parse_args()
    noisy = np.load(options.noisy).astype(np.float64)
    result = images(noisy, options.noise) if options.method == "bm3d" else volume(noisy, options)
    np.save(options.out, result.astype(np.float32))


def images(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Each by itself."""
    from bm3d import bm3d

    return np.stack([bm3d(image, sigma_psd=sigma) for image in noisy])


def volume(noisy: np.ndarray, options: argparse.Namespace) -> np.ndarray:
    """Made to have noise of deviation 1 everywhere, and back."""
    from bm4d import bm4d

    return from_stable(bm4d(to_stable(noisy, options.noise), 1.0), options.noise)


def to_stable(electrons: np.ndarray, read_noise: float) -> np.ndarray:
    """The generalised Anscombe transform (Starck, Murtagh and Bijaoui 1998)."""
    return 2 * np.sqrt(np.maximum(electrons + 3 / 8 + read_noise**2, 0))


def from_stable(values: np.ndarray, read_noise: float) -> np.ndarray:
    """Its unbiased inverse, in closed form (Mäkitalo and Foi 2013, IEEE TIP 22, 91)."""
    d = np.maximum(values, 2 * np.sqrt(3 / 8 + read_noise**2))
    root = np.sqrt(3 / 2)
    terms = d**2 / 4 + root / (4 * d) - 11 / (8 * d**2) + 5 * root / (8 * d**3)
    return terms - 1 / 8 - read_noise**2


if __name__ == "__main__":
    main()
