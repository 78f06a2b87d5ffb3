"""What training measures as it goes: one row a look, as CSV, and for TensorBoard if asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from n2v_scale.errors import ConfigError

COLUMNS = ("step", "seconds", "training", "held_out", "learning_rate", "patches_per_s", "waiting")


class MetricsFile:
    """Rows of :data:`COLUMNS`; a resumed training writes those it knows again and goes on."""

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        self.path = path
        self.board = None if tensorboard is None else _board(tensorboard)

    def begin(self, rows: list[dict[str, float]], *, known: int = 0) -> None:
        """Start the file with ``rows``, of which TensorBoard has the first ``known`` already."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[:known])
        for row in rows[known:]:
            self.add(row)

    def add(self, row: Mapping[str, float]) -> None:
        """One row, on the disk when this returns."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS, extrasaction="ignore").writerow(row)
        if self.board is not None:
            for name, value in row.items():
                if name != "step":
                    self.board.add_scalar(name, value, int(row["step"]))
            self.board.flush()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "TensorBoard is not installed: pip install 'n2v-scale[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder))
