"""What is hidden beside a voxel, where its neighbours' noise is like its own."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from itertools import product

from n2v_scale.errors import ConfigError
from n2v_scale.geometry import Shape, as_shape

LISTED = "offsets:"
"""Begins a mask whose offsets are all written down: what a file held."""


def parse_blind_mask(text: str) -> tuple[Shape, ...]:
    """The offsets of a mask that is written down.

    ``x:5`` is a line along X that reaches five voxels to either side, ``x:5,y:2`` two lines,
    ``box:0,2,2`` all voxels within that reach (z, y, x), ``offsets:0,0,-1;0,0,1`` those.

    >>> parse_blind_mask("x:1,z:1")
    ((-1, 0, 0), (0, 0, -1), (0, 0, 1), (1, 0, 0))

    Raises
    ------
    ConfigError
        When it is none of these.
    """
    offsets: set[Shape] = set()
    try:
        if text.startswith(LISTED):
            for part in text.removeprefix(LISTED).split(";"):
                offsets.add(as_shape([int(n) for n in part.split(",")]))
        elif text.startswith("box:"):
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
            "box (z, y, x), or name a file of offsets"
        )
    return tuple(sorted(offsets))


def listed_mask(offsets: Iterable[Shape]) -> str:
    """``offsets`` written down, completed by their mirror images along each axis.

    Patches are mirrored in training, and so is what is hidden beside a voxel. The voxel itself is
    always hidden, and no offset.

    >>> listed_mask([(0, 0, 1)])
    'offsets:0,0,-1;0,0,1'
    """
    mirrored = {
        as_shape([n * sign for n, sign in zip(offset, signs, strict=True)])
        for offset in offsets
        for signs in product((-1, 1), repeat=3)
    } - {(0, 0, 0)}
    return LISTED + ";".join(",".join(map(str, offset)) for offset in sorted(mirrored))


def mask_name(text: str) -> str:
    """A mask for people: as it is written, or how many offsets there are and a mark of them."""
    if not text.startswith(LISTED):
        return text
    mark = sha256(text.encode()).hexdigest()[:8]
    return f"of {text.count(';') + 1} offsets from a file ({mark})"
