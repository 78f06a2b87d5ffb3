"""Which blocks are done, for which plan: markers beside the arrays.

An all-zero shard is not stored, so a shard's absence does not mean that its block is missing. A
worker sets one small key a block, after the block's last shard; whoever reads the markers knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from n2v_scale.errors import OutputError
from n2v_scale.io.writer import PROVENANCE, delete_keys, get, get_attributes, keys_under, put
from n2v_scale.io.writer import set_attributes as write_attributes


@dataclass(frozen=True)
class Marker:
    """A block of one array is written."""

    number: int
    checksum: int
    """CRC-32 of the stored bytes of its shards, in order."""
    read_checksum: int = 0
    """CRC-32 of the input's voxels in its read box; 0 in a pyramid."""


@dataclass(frozen=True)
class Ledger:
    """The record inside an output: the plan, and a marker a finished block.

    Markers of level ``path`` lie under ``n2v_scale/ledger/<path>/``; once every block of every
    level is done, they are replaced by one summary and ``complete`` is set.
    """

    store: str
    ome_version: str

    def begin(self, record: dict[str, Any]) -> None:
        """Start the record; its ``plan`` and ``key`` decide what a later run may resume."""
        self._write({**record, "complete": False})

    def record(self) -> dict[str, Any] | None:
        """What :meth:`begin` was given and whether it is complete; None when there is none."""
        attributes = get_attributes(self.store, PROVENANCE)
        return None if not attributes else attributes.get("run")

    def mark(self, path: str, marker: Marker) -> None:
        """A worker's last act on a block: one atomic set."""
        put(self.store, self._key(path, marker.number), json.dumps(asdict(marker)).encode())

    def done(self, path: str) -> dict[int, Marker]:
        """The markers of one array; one that is torn does not count."""
        found: dict[int, Marker] = {}
        for key in keys_under(self.store, self._folder(path)):
            try:
                marker = Marker(**json.loads(get(self.store, key) or b""))
            except (ValueError, TypeError):
                continue
            if key == self._key(path, marker.number):
                found[marker.number] = marker
        return found

    def unmark(self, path: str, numbers: Iterable[int] | None = None) -> None:
        """Forget blocks of one array, all of them when ``numbers`` is None."""
        if numbers is None:
            delete_keys(self.store, keys_under(self.store, self._folder(path)))
        else:
            delete_keys(self.store, [self._key(path, number) for number in numbers])

    def finish(self, paths: list[str]) -> None:
        """Everything is written: keep one checksum an array instead of one marker a block."""
        record = self.record()
        if record is None:
            raise OutputError(f"{self.store} lost its record while it was being written")
        summary = {path: [m.checksum for _, m in sorted(self.done(path).items())] for path in paths}
        self._write({**record, "complete": True, "checksums": summary})
        for path in paths:
            self.unmark(path)

    def _write(self, record: dict[str, Any]) -> None:
        write_attributes(self.store, PROVENANCE, {"run": record}, self.ome_version)

    @staticmethod
    def _folder(path: str) -> str:
        return f"{PROVENANCE}/ledger/{path}"

    def _key(self, path: str, number: int) -> str:
        return f"{self._folder(path)}/{number:08d}.json"
