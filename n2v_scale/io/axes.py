"""Names and units of axes: what is allowed, what is meant, what is assumed."""

from __future__ import annotations

from collections.abc import Sequence

from n2v_scale.errors import InputError
from n2v_scale.geometry import Shape

AXES = "tczyx"
"""Every axis that a volume may have, in the order in which callers see them."""

REMEDY = "say what they are, in stored order, such as axes='tczyx'"

_DEFAULTS = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}

_ALIASES = {"time": "t", "channel": "c", "channels": "c"}

_SPACE = (
    "angstrom attometer centimeter decimeter exameter femtometer foot gigameter hectometer inch "
    "kilometer megameter meter micrometer mile millimeter nanometer parsec petameter picometer "
    "terameter yard yoctometer yottameter zeptometer zettameter"
)

_TIME = (
    "attosecond centisecond day decisecond exasecond femtosecond gigasecond hectosecond hour "
    "kilosecond megasecond microsecond millisecond minute nanosecond petasecond picosecond second "
    "terasecond yoctosecond yottasecond zeptosecond zettasecond"
)

_SPELLINGS = {
    "micron": "micrometer", "um": "micrometer", "µm": "micrometer", "μm": "micrometer",
    "\\u00b5m": "micrometer", "nm": "nanometer", "pm": "picometer", "mm": "millimeter",
    "cm": "centimeter", "m": "meter", "km": "kilometer", "å": "angstrom", "feet": "foot",
    "inche": "inch", "in": "inch", "s": "second", "sec": "second", "ms": "millisecond",
    "msec": "millisecond", "us": "microsecond", "µs": "microsecond", "μs": "microsecond",
    "ns": "nanosecond", "min": "minute", "h": "hour", "hr": "hour", "d": "day",
}  # fmt: skip

_NO_UNIT = {"", "pixel", "pixels", "px", "voxel", "voxels", "frame", "frames", "none", "null"}


def default_names(ndim: int) -> tuple[str, ...]:
    """The axes of an array that does not name them: yx, zyx, czyx or tczyx.

    >>> default_names(4)
    ('c', 'z', 'y', 'x')
    """
    if ndim not in _DEFAULTS:
        raise InputError(f"the array has {ndim} dimensions: 2 to 5 can be read")
    return tuple(_DEFAULTS[ndim])


def normal_name(name: object) -> str:
    """``name`` in lower case, with 'time' and 'channel' as t and c."""
    text = str(name).lower()
    return _ALIASES.get(text, text)


def known(names: Sequence[str]) -> bool:
    """Whether ``names`` are distinct, all known, and hold y and x."""
    return len(set(names)) == len(names) and {"y", "x"} <= set(names) <= set(AXES)


def check_names(names: Sequence[str], ndim: int, where: str) -> tuple[str, ...]:
    """``names``, when they make sense for an array of ``ndim`` dimensions.

    Raises
    ------
    InputError
        When a name is unknown or doubled, when y or x is missing, or when the count differs.
    """
    shown = ", ".join(map(str, names)) or "none"
    if not known(names):
        raise InputError(
            f"{where}: the axes ({shown}) make no sense: each of t, c, z, y, x may stand once, "
            f"and y and x must be there; {REMEDY}"
        )
    if len(names) != ndim:
        raise InputError(f"{where}: {len(names)} axes ({shown}) for {ndim} dimensions; {REMEDY}")
    return tuple(names)


def normal_unit(unit: object, name: str) -> tuple[str | None, bool]:
    """The UDUNITS name that OME-Zarr wants for ``unit`` on axis ``name``, and whether it is known.

    >>> normal_unit("µm", "z"), normal_unit("seconds", "t"), normal_unit("pixel", "x")
    (('micrometer', True), ('second', True), (None, True))
    >>> normal_unit("furlong", "x")
    (None, False)
    """
    text = "" if unit is None or name == "c" else str(unit).strip().lower()
    if text in _NO_UNIT:
        return None, True
    valid = set((_TIME if name == "t" else _SPACE).split())
    singular = text[:-1] if text.endswith("s") else text
    for spelling in (text, singular, singular.replace("metre", "meter")):
        full = _SPELLINGS.get(spelling, spelling)
        if full in valid:
            return full, True
    return None, False


def spatial(values: Sequence[int], names: Sequence[str]) -> Shape:
    """The entries of ``values`` (in the order of ``names``) along (z, y, x); 1 without a z."""
    of = dict(zip(names, values, strict=True))
    return int(of.get("z", 1)), int(of["y"]), int(of["x"])
