"""What happened while an output was written: what each block took, each run, what was set aside.

For people, and apart from the ledger: the ledger's bytes follow from the plan alone, and these do
not. Nothing depends on them; a block that is not in here is done all the same. The driver alone
writes, under the lock.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
import numpy.typing as npt

from n2v_scale.io.writer import get, put
from n2v_scale.ledger import LEDGER_FOLDER, SEGMENT

MOST_RUNS = 100
"""That are kept, the last ones."""
MOST_FAILED = 1000
"""Blocks whose failure is kept."""


@dataclass(frozen=True)
class Journal:
    """Of the array ``path`` of an output, under ``<path>/n2v_scale.ledger/journal/``."""

    store: str
    path: str

    def add_seconds(self, taken: Mapping[int, float]) -> None:
        """What blocks took to read, compute and write, by their number."""
        for index, numbers in groupby(sorted(taken), lambda number: number // SEGMENT):
            segment = self._segment(index)
            for number in numbers:
                segment[number % SEGMENT] = taken[number]
            put(self.store, self._key(f"{index:06d}"), zlib.compress(segment.tobytes()))

    def seconds(self, blocks: int) -> npt.NDArray[np.float32]:
        """By block; NaN where nothing is known."""
        segments = [self._segment(index) for index in range(-(-blocks // SEGMENT))]
        return np.concatenate(segments)[:blocks]

    def add_run(self, run: Mapping[str, Any], failed: Mapping[int, str]) -> None:
        """A run has ended; ``failed`` are the blocks that are set aside by now, and why."""
        runs = [*self.runs(), dict(run)][-MOST_RUNS:]
        listed = islice(failed.items(), MOST_FAILED)
        document = {"runs": runs, "failed": {str(n): why for n, why in listed}}
        put(self.store, self._key("runs.json"), json.dumps(document).encode())

    def runs(self) -> list[dict[str, Any]]:
        """The last hundred, the oldest first: ``ended`` (seconds since 1970), ``seconds``,
        ``workers`` (there were last), ``computed`` (blocks), ``asked`` (settings that were given).
        """
        found: list[dict[str, Any]] = self._document().get("runs", [])
        return found

    def failed(self) -> dict[int, str]:
        """Blocks that were set aside and not done since, the first thousand, and why."""
        return {int(n): str(why) for n, why in self._document().get("failed", {}).items()}

    def _document(self) -> dict[str, Any]:
        try:
            found = json.loads(get(self.store, self._key("runs.json")) or b"{}")
        except ValueError:  # torn
            return {}
        return found if isinstance(found, dict) else {}

    def _segment(self, index: int) -> npt.NDArray[np.float32]:
        raw = get(self.store, self._key(f"{index:06d}"))
        try:
            values = np.frombuffer(zlib.decompress(raw or b""), np.float32)
        except (zlib.error, ValueError):
            values = np.zeros(0, np.float32)
        return values.copy() if len(values) == SEGMENT else np.full(SEGMENT, np.nan, np.float32)

    def _key(self, name: str) -> str:
        return f"{self.path}/{LEDGER_FOLDER}/journal/{name}"
