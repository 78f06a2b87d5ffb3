"""What is hidden beside a voxel, where its neighbours' noise is like its own."""

from __future__ import annotations

from itertools import product

from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Shape, as_shape


def parse_blind_mask(text: str) -> tuple[Shape, ...]:
    """The offsets of a mask that is written down.

    ``x:5`` is a line along X that reaches five voxels to either side, ``x:5,y:2`` two lines,
    ``box:0,2,2`` all voxels within that reach (z, y, x).

    >>> parse_blind_mask("x:1,z:1")
    ((-1, 0, 0), (0, 0, -1), (0, 0, 1), (1, 0, 0))

    Raises
    ------
    ConfigError
        When it is none of these.
    """
    offsets: set[Shape] = set()
    try:
        if text.startswith("box:"):
            reach = [int(n) for n in text[4:].split(",")]
            z, y, x = (range(-n, n + 1) for n in reach)
            offsets.update(product(z, y, x))
        else:
            for part in text.split(","):
                axis, length = part.strip().split(":")
                number = ("z", "y", "x").index(axis)
                for k in range(-int(length), int(length) + 1):
                    offsets.add(as_shape([k if a == number else 0 for a in range(3)]))
    except ValueError:
        offsets = set()
    offsets.discard((0, 0, 0))
    if not offsets:
        raise ConfigError(
            f"blind mask {text!r}: write x:5 for a line along X, x:5,y:2 for two, box:0,2,2 for a "
            "box (z, y, x)"
        )
    return tuple(sorted(offsets))
