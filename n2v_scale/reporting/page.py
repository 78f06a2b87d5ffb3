"""The page: findings, plots and slices put into one file."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from n2v_scale._version import __version__
from n2v_scale.diagnosis_text import channel_rows
from n2v_scale.errors import OutputError
from n2v_scale.io.volume import Volume
from n2v_scale.reporting import plots, words
from n2v_scale.reporting.commands import commands, wrapped
from n2v_scale.reporting.findings import Findings
from n2v_scale.reporting.slices import slices_json

MOST_FAILURES = 100
"""That are listed."""
SECTIONS = (
    ("slices", "Slices"),
    ("error", "Quality"),
    ("noise", "Noise"),
    ("training", "Training"),
    ("blocks", "Blocks"),
    ("storage", "Storage"),
    ("record", "What was run"),
)
PLOTS = {
    "training_plot": "Training loss and held-out loss by step",
    "calibration_plot": "Loss by the filter's parameter, with voxels hidden and without",
    "noise_plot": "Variance of the noise over the mean, and correlation of the noise by lag",
    "residual_plot": "Correlation of the residual by lag along each axis",
    "spectrum_plot": "Power by spatial frequency before and after",
    "block_plot": "Map of the blocks: time, and estimated error",
    "overview": "The whole volume from above, with the places marked and numbered",
}


def write_page(path: Path, found: Findings, *, seed: int = 0) -> None:
    """Write the report as one HTML file, replacing what is there.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    text = page_text(found, seed=seed)
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def check_writable(path: Path) -> None:
    """Refuse a place where no report can be, before anything is looked at.

    Raises
    ------
    OutputError
        When it is a folder, or lies in none that may be written to.
    """
    if path.is_dir():
        raise OutputError(
            f"{path} is a folder: say which file the report is to be, as in -o "
            f"{path / 'report.html'}"
        )
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path} cannot be written: {path.parent} may not be written to")


def page_text(found: Findings, *, seed: int = 0) -> str:
    """The whole file."""
    from jinja2 import Environment
    from markupsafe import Markup

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals["table"] = lambda rows: Markup(
        environment.from_string(TABLE).render(rows=rows)
    )
    environment.filters["sentence"] = words.sentence
    pictures = {
        name: None if svg is None else Markup(_titled(svg, PLOTS[name]))
        for name, svg in _pictures(found).items()
    }
    return environment.from_string(_own("page.html")).render(
        css=Markup(_own("page.css")),
        js=Markup(_own("page.js")),
        slices=Markup(slices_text(found)),
        seed=seed,
        **pictures,
        **_words(found),
    )


TABLE = """<table><tbody>
{% for name, value in rows %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table>"""


def _pictures(found: Findings) -> dict[str, str | None]:
    card, estimate, noisy = found.card, found.estimate, found.noisy
    history = getattr(card, "history", None)
    overview = None
    if found.overview is not None:
        _, high, wide = noisy.spatial_shape
        overview = plots.overview_plot(found.overview, found.places, (high, wide))
    return {
        "training_plot": plots.training_plot(history) if history else None,
        "calibration_plot": plots.calibration_plot(found.calibration)
        if found.calibration
        else None,
        "noise_plot": plots.noise_plot(found.diagnosis) if found.diagnosis else None,
        "residual_plot": plots.residual_plot(estimate) if estimate else None,
        "spectrum_plot": plots.spectrum_plot(
            found.spectra,
            found.shown_noise,
            *_frequencies(noisy),
        ),
        "block_plot": plots.block_plot(found.blocks),
        "overview": overview,
    }


def _frequencies(volume: Volume) -> tuple[float, str]:
    """What a voxel is along x, and in which unit; 1 where y is another, or no unit is known."""
    _, dy, dx = volume.voxel_size
    unit = words.unit_of(volume)
    return (dx, unit) if unit and abs(dy - dx) <= 1e-6 * dx else (1.0, "voxel")


def _words(found: Findings) -> dict[str, Any]:
    estimate, card = found.estimate, found.card
    diagnosis = found.diagnosis
    return {
        "title": found.noisy.name or Path(found.noisy.address).name,
        "headline": words.headline(found),
        "figures": words.figures(found),
        "sections": SECTIONS,
        "missing": found.missing,
        "estimate_rows": words.estimate_rows(found),
        "notes": estimate.notes if estimate else (),
        "residual": estimate is not None,
        "residual_words": words.residual_sentence(estimate) if estimate else "",
        "residual_rows": words.residual_rows(estimate) if estimate else [],
        "diagnosis": diagnosis.recommendation if diagnosis else None,
        "noise_words": words.noise_words(found),
        "diagnosis_rows": [channel_rows(c) for c in diagnosis.channels] if diagnosis else [],
        "model_rows": words.model_rows(found),
        "blocks": found.blocks,
        "failed": list(found.blocks.failed.items())[:MOST_FAILURES],
        "has_errors": bool(np.isfinite(found.blocks.rmse).any()),
        "run_rows": words.run_rows(found),
        "storage_words": words.storage_sentence(found),
        "storage_rows": words.storage_rows(found),
        "commands": "\n".join(map(wrapped, commands(found))),
        "volume_rows": words.volume_rows(found),
        "plan_rows": words.plan_rows(found),
        "version_rows": words.version_rows(found),
        "card": None if card is None else _pretty(card.model_dump(mode="json")),
        "plan": _pretty(found.record["plan"]),
        "version": __version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def slices_text(found: Findings) -> str:
    """The JSON that the viewer reads."""
    data = slices_json(
        found.places,
        found.planes,
        found.noisy.voxel_size,
        words.unit_of(found.noisy),
        whole=np.dtype(found.denoised.dtype).kind in "iu",
    )
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")  # no tag ends the script


def _titled(svg: str, title: str) -> str:
    """With what it shows, for who cannot see it."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _pretty(document: Any) -> str:
    return json.dumps(document, indent=2, default=str)
