"""What is said about an input that is readable but odd."""

from __future__ import annotations

from warnings import warn


class InputWarning(UserWarning):
    """The input can be read, but its metadata is odd and something had to be assumed."""


def odd(message: str) -> None:
    """Warn with :class:`InputWarning`."""
    warn(message, InputWarning, stacklevel=3)
