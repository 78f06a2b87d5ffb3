"""Classical filters with one parameter each, by name; the libraries' own implementations."""

from __future__ import annotations

from n2v_scale.classical.base import Filter, axis_ratio
from n2v_scale.classical.restoration import NonLocalMeans, TotalVariation
from n2v_scale.classical.smoothing import Gaussian, Median
from n2v_scale.classical.wavelets import Wavelet
from n2v_scale.errors import ConfigError

FILTERS: dict[str, type[Filter]] = {
    "gaussian": Gaussian,
    "median": Median,
    "nlm": NonLocalMeans,
    "tv": TotalVariation,
    "wavelet": Wavelet,
}

__all__ = ["FILTERS", "Filter", "axis_ratio", "filter_named"]


def filter_named(name: str) -> type[Filter]:
    """The class of a filter.

    Raises
    ------
    ConfigError
        When there is none of that name.
    """
    if name not in FILTERS:
        raise ConfigError(f"there is no filter {name!r}: choose one of {', '.join(FILTERS)}")
    return FILTERS[name]
