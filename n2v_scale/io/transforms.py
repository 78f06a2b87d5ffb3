"""coordinateTransformations: read leniently, and carried over to other axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from n2v_scale.io.messages import odd


def scale_and_translation(
    raw: object, ndim: int, where: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...]]:
    """The scale and translation that a list of transformations amounts to, applied in order.

    What cannot be understood is warned of and left out. The scale is None where none stands.
    """
    scale: tuple[float, ...] | None = None
    translation = (0.0,) * ndim
    for transform in usable(raw, ndim, where):
        values = transform[transform["type"]]
        if transform["type"] == "scale":
            scale = _times(scale or (1.0,) * ndim, values)
            translation = _times(translation, values)
        else:
            translation = tuple(a + b for a, b in zip(translation, values, strict=True))
    return scale, translation


def usable(raw: object, ndim: int, where: str) -> tuple[dict[str, Any], ...]:
    """The scales and translations in a list of transformations, one number an axis each.

    Identities are left out; so is anything else, with a warning.
    """
    if raw is None:
        return ()
    if not isinstance(raw, list):
        odd(f"{where}: coordinateTransformations is no list and is ignored")
        return ()
    kept: list[dict[str, Any]] = []
    for transform in raw:
        kind = str(transform.get("type")) if isinstance(transform, dict) else ""
        values = _numbers(transform.get(kind), ndim) if kind in ("scale", "translation") else None
        if values is None or (kind == "scale" and min(values) <= 0):
            if kind != "identity":
                odd(f"{where}: the transformation {transform!r} is ignored: a scale (above 0) or "
                    f"a translation of {ndim} numbers was expected")  # fmt: skip
            continue
        kept.append({"type": kind, kind: list(values)})
    return tuple(kept)


def along(
    transforms: Iterable[dict[str, Any]], names: Sequence[str], wanted: Sequence[str]
) -> tuple[dict[str, Any], ...]:
    """``transforms`` of axes ``names``, for the axes ``wanted``: new axes keep their positions.

    >>> along([{"type": "scale", "scale": [0.5, 2.0]}], "yx", "zxy")
    ({'type': 'scale', 'scale': [1.0, 2.0, 0.5]},)
    """
    moved = []
    for transform in transforms:
        kind = transform["type"]
        of = dict(zip(names, transform[kind], strict=True))
        neutral = 1.0 if kind == "scale" else 0.0
        moved.append({"type": kind, kind: [of.get(name, neutral) for name in wanted]})
    return tuple(moved)


def _numbers(values: object, ndim: int) -> tuple[float, ...] | None:
    if not isinstance(values, list) or len(values) != ndim:
        return None
    if not all(isinstance(v, int | float) and isfinite(v) for v in values):
        return None
    return tuple(float(v) for v in values)


def _times(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    return tuple(x * y for x, y in zip(a, b, strict=True))
