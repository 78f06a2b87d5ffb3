"""Docstrings name things as Sphinx does, ``:func:`open_volume```; here they become links."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|obj|exc):`~?([\w.]+)`")
TITLED = re.compile(r":(?:func|class|meth|mod|data|attr|obj|exc):`([^`<]+) <[\w.]+>`")


class Roles(Extension):  # type: ignore[misc]
    """Rewrites every docstring as it is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """``:class:`Plan``` becomes ``[`Plan`][]`` where it can be looked up, else code."""
        if obj.docstring is not None:
            text = TITLED.sub(r"\1", obj.docstring.value)
            obj.docstring.value = ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)
