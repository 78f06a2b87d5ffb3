"""A trained model written as files for other programs; none is there before it is checked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from n2v_scale.config import PredictSettings
from n2v_scale.errors import ConfigError, OutputError
from n2v_scale.export_extra import of_extra
from n2v_scale.export_package import ONNX, TORCHSCRIPT, About, check_license, write_package
from n2v_scale.exported import Checked, Export, export_files

NEEDED = {
    "bioimageio": ("onnx", "onnxscript", "onnxruntime", "bioimageio.spec"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torchscript": (),
}
PURPOSE = {"bioimageio": "a bioimage.io package", "onnx": "an ONNX file", "torchscript": ""}
SIMULATED = "the training volume is not there as it was, so the test images are simulated"
NOBODY = "the package names no author (--author)"


@dataclass(frozen=True)
class ExportSummary:
    """What was written, and what is in it."""

    files: tuple[str, ...]
    checks: tuple[Checked, ...]
    own_value: bool
    """Whether each voxel's own value is put back in the graph."""
    no_own_value: str | None
    """Why not, where the method is blind."""
    passes: int
    outputs: tuple[str, ...]
    sample: str
    """Where the image that was compared comes from."""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def text(self) -> str:
        """For the terminal."""
        lines = list(self.files)
        lines += [
            f"  {check.kind}: {check.bytes / 1e6:.2f} MB, differs from the model by at most "
            f"{check.difference:.1e} of its output's standard deviation"
            for check in self.checks
        ]
        lines.append(f"  compared on an image {self.sample}")
        if self.passes > 1:
            lines.append(f"  in the graph: the {self.passes} passes of the method")
        if self.own_value:
            lines.append("  in the graph: each voxel's own value is put back")
        if self.no_own_value is not None:
            lines.append(f"  not in the graph: each voxel's own value ({self.no_own_value})")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def export_to(
    folder: Path,
    targets: dict[str, Path],
    settings: PredictSettings,
    about: About,
    *,
    overwrite: bool = False,
) -> ExportSummary:
    """Write a model as the files that ``targets`` name by their kind.

    Raises
    ------
    ConfigError, ModelError, OutputError
        Before anything is written, or where a file does not say what the model says.
    """
    if not targets:
        raise ConfigError(
            "nothing to write: pass --bioimageio, --onnx or --torchscript, or several"
        )
    check_free(list(targets.values()), overwrite=overwrite)
    for kind in targets:
        for module in NEEDED[kind]:
            of_extra(module, PURPOSE[kind])
    if "bioimageio" in targets:
        check_license(about.license)
    export = Export(folder, settings)
    with tempfile.TemporaryDirectory(prefix="n2v-scale-export-") as scratch:
        inside = Path(scratch)
        made = {"torchscript": inside / TORCHSCRIPT, "onnx": inside / ONNX}
        kinds = [k for k in made if k in targets or "bioimageio" in targets]
        checks = export_files(export, [(kind, made[kind]) for kind in kinds])
        if "bioimageio" in targets:
            made["bioimageio"] = inside / "package.zip"
            write_package(export, about, inside, made["bioimageio"])
        for kind, to in targets.items():
            deliver(made[kind], to)
    return _summary(export, about, targets, checks)


def _summary(
    export: Export, about: About, targets: dict[str, Path], checks: list[Checked]
) -> ExportSummary:
    packaged = "bioimageio" in targets
    notes = [] if export.sample.real else [SIMULATED]
    notes += [NOBODY] if packaged and not about.authors else []
    return ExportSummary(
        files=tuple(map(str, targets.values())),
        checks=tuple(checks),
        own_value=export.known.noise is not None,
        no_own_value=export.known.why_not,
        passes=export.card.passes,
        outputs=tuple(export.metadata()["outputs"]),
        sample=export.sample.origin,
        notes=tuple(notes),
    )


def check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Raise an OutputError where a file exists that is not to be overwritten, or two are one."""
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{path} is a folder, and a file is to be written: choose a name")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists: choose another name or pass --overwrite")
    if len({path.absolute() for path in paths}) < len(paths):
        raise OutputError("two of the files have one name: choose another")


def deliver(written: Path, to: Path) -> None:
    """Put a finished file in its place, at once."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as scratch:
        copied = Path(scratch) / "new"
        shutil.copyfile(written, copied)
        copied.replace(to)
