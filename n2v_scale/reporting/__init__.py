"""The report on a denoised volume: one HTML file that asks nobody for anything."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from n2v_scale.progress import amount_text
from n2v_scale.reporting.findings import Findings, find_out
from n2v_scale.reporting.page import check_writable, write_page
from n2v_scale.reporting.plots import check_matplotlib
from n2v_scale.reporting.words import headline

__all__ = ["Findings", "ReportSummary", "check_ready", "find_out", "write_page", "write_report"]


@dataclass(frozen=True)
class ReportSummary:
    """What the report says in short, and where it is."""

    report: str
    size_bytes: int
    headline: str
    estimate: dict[str, Any] | None
    """As :class:`n2v_scale.SelfEvaluation` has it; None where no error could be estimated."""
    evaluation: dict[str, Any] | None
    """Against the reference, if there is one."""
    missing: dict[str, str]
    """What could not be found out, and why."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def text(self) -> str:
        """For the terminal."""
        lines = [f"{self.report} ({amount_text(self.size_bytes, 'B')}): {self.headline}"]
        return "\n".join([*lines, *(f"  not in it: {why}" for why in self.missing.values())])


def check_ready(output: Path) -> None:
    """Raise what would keep a report from being written."""
    check_matplotlib()
    check_writable(output)


def write_report(output: Path, found: Findings, *, seed: int = 0) -> ReportSummary:
    """Write the page, and say in short what it says."""
    write_page(output, found, seed=seed)
    return ReportSummary(
        report=os.fspath(output),
        size_bytes=output.stat().st_size,
        headline=headline(found),
        estimate=None if found.estimate is None else found.estimate.to_dict(),
        evaluation=found.evaluations["denoised"].to_dict() if found.evaluations else None,
        missing=found.missing,
    )
