"""What people need to know of a method: what it does, what it assumes, and who found it."""

from __future__ import annotations

from dataclasses import dataclass

INDEPENDENT = "the noise is independent from voxel to voxel and has mean zero"
KNOWN = "the noise is independent from voxel to voxel and its variance is known"


@dataclass(frozen=True)
class Source:
    """A publication."""

    text: str
    doi: str


@dataclass(frozen=True)
class MethodFacts:
    """Of one method."""

    title: str
    assumes: str
    source: Source


KRULL = Source(
    "Krull, Buchholz, Jug: Noise2Void - Learning Denoising from Single Noisy Images. CVPR 2019",
    "10.48550/arXiv.1811.10980",
)
BATSON = Source(
    "Batson, Royer: Noise2Self: Blind Denoising by Self-Supervision. ICML 2019",
    "10.48550/arXiv.1901.11365",
)
FACTS = {
    "n2v": MethodFacts("Noise2Void", INDEPENDENT, KRULL),
    "n2v2": MethodFacts(
        "N2V2",
        INDEPENDENT,
        Source(
            "Hoeck, Buchholz, Brachmann, Jug, Freytag: N2V2 - Fixing Noise2Void Checkerboard "
            "Artifacts with Modified Sampling Strategies and a Tweaked Network Architecture. ECCV "
            "Workshops 2022",
            "10.48550/arXiv.2211.08512",
        ),
    ),
    "structn2v": MethodFacts(
        "structN2V",
        "the noise is alike within the blind mask, independent beyond it, and has mean zero",
        Source(
            "Broaddus, Krull, Weigert, Schmidt, Myers: Removing Structured Noise with "
            "Self-Supervised Blind-Spot Networks. ISBI 2020",
            "10.1109/ISBI45749.2020.9098336",
        ),
    ),
    "n2s": MethodFacts("Noise2Self", KNOWN, BATSON),
    "linear": MethodFacts("blind linear filter", KNOWN, BATSON),
    "ssdn": MethodFacts(
        "self-supervised denoising with a blind-spot network",
        KNOWN,
        Source(
            "Laine, Karras, Lehtinen, Aila: High-Quality Self-Supervised Deep Image Denoising. "
            "NeurIPS 2019",
            "10.48550/arXiv.1901.10277",
        ),
    ),
    "n2n": MethodFacts(
        "Noise2Noise",
        "the noise of two captures of the same is independent, and its mean is zero",
        Source(
            "Lehtinen, Munkberg, Hasselgren, Laine, Karras, Aittala, Aila: Noise2Noise: Learning "
            "Image Restoration without Clean Data. ICML 2018",
            "10.48550/arXiv.1803.04189",
        ),
    ),
    "supervised": MethodFacts(
        "supervised learning",
        "new images look like the pairs of noisy and clean ones that it was trained on",
        Source(
            "Weigert et al.: Content-aware image restoration: pushing the limits of fluorescence "
            "microscopy. Nature Methods 2018",
            "10.1038/s41592-018-0216-7",
        ),
    ),
}
