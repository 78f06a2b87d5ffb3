"""Which blocks are done, for which plan: markers that workers set, folded into segments.

An all-zero shard is not stored, so a shard's absence does not mean that its block is missing. A
worker sets one small key a block, after the block's last shard. The driver folds these markers
into segments of 4096 blocks and deletes them, so that 372,000 blocks (100 TB) are 91 keys; it is
the only one to write segments, which the lock holds. A marker is deleted after its segment is
written: a kill in between leaves it twice, and that does no harm.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.errors import OutputError
from n2v_scale.io.writer import PROVENANCE, delete_keys, get, get_attributes, keys_under, put
from n2v_scale.io.writer import set_attributes as write_attributes

LEDGER_FOLDER = "n2v_scale.ledger"
SEGMENT = 4096
"""Blocks a segment."""
READERS = 16
"""Threads that read markers."""
ROW = np.dtype([("done", "?"), ("checksum", "<u4"), ("read_checksum", "<u4"), ("size", "<u8")])
"""What a segment says of a block."""

log = logging.getLogger(__name__)

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class Marker:
    """A block of one array is written."""

    number: int
    checksum: int
    """CRC-32 of the stored bytes of its shards, in order."""
    size: int
    """Bytes of these."""
    read_checksum: int = 0
    """CRC-32 of the input's voxels in its read box; 0 in a pyramid."""


@dataclass(frozen=True)
class Ledger:
    """The record inside an output: the plan, and what is done of every level.

    The record is an attribute of the subgroup ``n2v_scale``. Markers of level ``path`` lie under
    ``<path>/n2v_scale.ledger/blocks/``, segments under ``<path>/n2v_scale.ledger/segments/``: zarr
    lists what is in groups, and warns of what it does not know; what is in an array it never lists.
    """

    store: str
    ome_version: str

    def begin(self, record: dict[str, Any]) -> None:
        """Start the record; its ``plan`` and ``key`` decide what a later run may resume."""
        self.write_record({**record, "complete": False})

    def record(self) -> dict[str, Any] | None:
        """What :meth:`begin` was given and whether it is complete; None when there is none."""
        attributes = get_attributes(self.store, PROVENANCE)
        return None if not attributes else attributes.get("run")

    def update(self, **changes: Any) -> None:
        """Change entries of the record."""
        record = self.record()
        if record is None:
            raise OutputError(f"{self.store} lost its record while it was being written")
        self.write_record({**record, **changes})

    def add_processor(self, name: str) -> None:
        """Record one more type of processor that blocks were computed on."""
        known: list[str] = (self.record() or {}).get("processors", [])
        if name not in known:
            if known:
                log.warning(
                    "%s was begun on %s and goes on on %s: the last digits may differ (1e-5 of "
                    "the standard deviation)",
                    self.store,
                    ", ".join(known),
                    name,
                )
            self.update(processors=[*known, name])

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record."""
        write_attributes(self.store, PROVENANCE, {"run": record}, self.ome_version)

    def mark(self, path: str, marker: Marker) -> None:
        """A worker's last act on a block: one atomic set."""
        put(self.store, self._marker_key(path, marker.number), json.dumps(asdict(marker)).encode())

    def fold(self, path: str, markers: Iterable[Marker]) -> None:
        """Write markers into their segments, then delete them; the driver alone may do this."""
        ordered = sorted(markers, key=lambda marker: marker.number)
        for index, group in groupby(ordered, lambda marker: marker.number // SEGMENT):
            rows = self.rows(path, index)
            members = list(group)
            for m in members:
                rows[m.number % SEGMENT] = (True, m.checksum, m.read_checksum, m.size)
            self._write_rows(path, index, rows)
            delete_keys(self.store, [self._marker_key(path, m.number) for m in members])

    def fold_loose(self, path: str) -> int:
        """Fold what workers marked and no driver folded; returns how many.

        A marker that is torn does not count, and goes.
        """
        count = 0
        for found in self._loose(path):
            markers = [marker for marker in found.values() if marker is not None]
            self.fold(path, markers)
            delete_keys(self.store, [key for key, marker in found.items() if marker is None])
            count += len(markers)
        return count

    def loose(self, path: str) -> Iterator[Marker]:
        """What workers marked and no driver folded, in a run that is going on or was killed."""
        for found in self._loose(path):
            yield from (marker for marker in found.values() if marker is not None)

    def _loose(self, path: str) -> Iterator[dict[str, Marker | None]]:
        """Markers by key, some thousand at a time; None for one that is torn."""
        keys = keys_under(self.store, f"{self._folder(path)}/blocks")
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(keys), SEGMENT):
                some = keys[start : start + SEGMENT]
                yield dict(zip(some, pool.map(partial(self._read_marker, path), some), strict=True))

    def done(self, path: str, blocks: int, *, loose: bool = False) -> npt.NDArray[np.bool_]:
        """Whether each of ``blocks`` blocks is in a segment, or a ``loose`` marker says so."""
        found = np.zeros(-(-blocks // SEGMENT) * SEGMENT, bool)
        if loose:  # before the segments: it may be folded at this moment
            found[[marker.number for marker in self.loose(path)]] = True
        for index in range(len(found) // SEGMENT):
            found[index * SEGMENT : (index + 1) * SEGMENT] |= self.rows(path, index)["done"]
        return found[:blocks]

    def markers(self, path: str, blocks: int, *, loose: bool = False) -> Iterator[Marker]:
        """What the segments say of the blocks that are done, and then the ``loose`` markers."""
        others = {marker.number: marker for marker in self.loose(path)} if loose else {}
        for index in range(-(-blocks // SEGMENT)):
            rows = self.rows(path, index)
            for place in np.flatnonzero(rows["done"]).tolist():
                row, number = rows[place], index * SEGMENT + place
                others.pop(number, None)
                yield Marker(
                    number, int(row["checksum"]), int(row["size"]), int(row["read_checksum"])
                )
        yield from others.values()

    def rows(self, path: str, index: int) -> Rows:
        """A segment, (4096,) of :data:`ROW`; one that is torn says that nothing is done."""
        raw = get(self.store, self._segment_key(path, index))
        try:
            values = np.frombuffer(zlib.decompress(raw or b""), ROW)
        except (zlib.error, ValueError):
            values = np.zeros(0, ROW)
        return values.copy() if len(values) == SEGMENT else np.zeros(SEGMENT, ROW)

    def unmark(self, path: str, numbers: Iterable[int] | None = None) -> None:
        """Forget blocks of one array, all of them when ``numbers`` is None."""
        if numbers is None:
            delete_keys(self.store, keys_under(self.store, self._folder(path)))
            return
        ordered = sorted(numbers)
        delete_keys(self.store, [self._marker_key(path, number) for number in ordered])
        for index, group in groupby(ordered, lambda number: number // SEGMENT):
            rows = self.rows(path, index)
            rows[[number % SEGMENT for number in group]] = np.zeros((), ROW)
            self._write_rows(path, index, rows)

    def _read_marker(self, path: str, key: str) -> Marker | None:
        try:
            marker = Marker(**json.loads(get(self.store, key) or b""))
        except (ValueError, TypeError):
            return None
        return marker if key == self._marker_key(path, marker.number) else None

    def _write_rows(self, path: str, index: int, rows: Rows) -> None:
        put(self.store, self._segment_key(path, index), zlib.compress(rows.tobytes()))

    @staticmethod
    def _folder(path: str) -> str:
        return f"{path}/{LEDGER_FOLDER}"

    def _marker_key(self, path: str, number: int) -> str:
        return f"{self._folder(path)}/blocks/{number:09d}.json"

    def _segment_key(self, path: str, index: int) -> str:
        return f"{self._folder(path)}/segments/{index:06d}"
