"""What a remote store needs to know: keys, secrets, endpoints. No value of it is ever shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from n2v_scale.errors import ConfigError

Leaf = str | int | float | bool | None

_SHOWN = ("endpoint_url", "region_name", "project", "anon", "use_ssl")
"""Last parts of the names whose values may stand in a message: none of them is a credential."""

_USER = re.compile(r"(://)[^/\s@]+@")


class StorageOptions:
    """Keywords for fsspec, such as key, secret and endpoint_url: frozen, hashable, picklable.

    No credential leaves it by accident: its text shows names only, and as it is no dataclass,
    ``dataclasses.asdict`` of what holds it does not open it.
    """

    __slots__ = ("_items",)
    _items: tuple[tuple[str, Leaf], ...]

    def __init__(self, items: tuple[tuple[str, Leaf], ...] = ()) -> None:
        object.__setattr__(self, "_items", items)

    @classmethod
    def of(cls, options: StorageOptions | Mapping[str, Any] | None) -> StorageOptions:
        """Options from ``{"key": "value"}``.

        Parameters
        ----------
        options
            Values are text, numbers, truth values or mappings of these. A dot in a name leads into
            a mapping: ``client_kwargs.region_name``. Text stands as it is, but ``true`` and
            ``false`` become truth values, and whole numbers below a dot become numbers.

        Raises
        ------
        ConfigError
            When a value is something else, or a name stands for a value and for a mapping.

        >>> StorageOptions.of({"secret": "s3cr3t", "client_kwargs.region_name": "eu-west-1"})
        StorageOptions(client_kwargs.region_name, secret)
        """
        if isinstance(options, StorageOptions):
            return options
        items = dict(_leaves(options or {}, ""))
        for name in items:
            parts = name.split(".")
            above = {".".join(parts[:n]) for n in range(1, len(parts))}
            if not all(parts) or above & items.keys():
                raise ConfigError(f"storage option {name!r} contradicts another, or has no name")
        return cls(tuple(sorted(items.items())))

    def keywords(self) -> dict[str, Any]:
        """The keywords, nested: what fsspec takes. It holds the credentials: do not show it."""
        nested: dict[str, Any] = {}
        for name, value in self._items:
            *folders, last = name.split(".")
            place = nested
            for folder in folders:
                place = place.setdefault(folder, {})
            place[last] = value
        return nested

    def redacted(self, text: str) -> str:
        """``text`` without any of the values that may be credentials."""
        hidden = [value for name, value in self._items if name.rpartition(".")[2] not in _SHOWN]
        numbers = [str(value) for value in hidden if isinstance(value, int) and value > 999]
        texts = [value for value in hidden if isinstance(value, str) and value]
        for value in sorted(texts + numbers, key=len, reverse=True):  # one may hold another
            text = text.replace(value, "***")
        return _USER.sub(r"\1***@", text)

    def __bool__(self) -> bool:
        return bool(self._items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorageOptions) and self._items == other._items

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"StorageOptions({', '.join(name for name, _ in self._items)})"

    def __reduce__(self) -> tuple[type[StorageOptions], tuple[Any, ...]]:
        return StorageOptions, (self._items,)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"storage options are frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"storage options are frozen: {name} cannot be deleted")


def _leaves(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Leaf]]:
    for key, value in options.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, str):
            yield name, _typed(value, nested="." in name)
        elif value is None or isinstance(value, int | float):
            yield name, value
        else:
            raise ConfigError(
                f"storage option {name!r} is a {type(value).__name__}: give text, a number, "
                "true or false, or a mapping of these"
            )


def _typed(text: str, *, nested: bool) -> Leaf:
    """A secret may be all digits: whole numbers are read only where no secret stands."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return int(text) if nested and text.isascii() and text.isdecimal() else text
