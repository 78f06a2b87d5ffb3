"""A package for bioimage.io: description, weights, test images, cover; valid, or not written.

Nothing here asks the network: no address is on the description, and nothing is looked up.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from PIL import Image

from n2v_scale.denoiser import Region, tile_boxes
from n2v_scale.errors import ConfigError, ModelError
from n2v_scale.export_extra import INSTALL, of_extra
from n2v_scale.export_files import INPUT, OPSET, OUTPUTS
from n2v_scale.export_samples import cover_box
from n2v_scale.export_text import description, documentation, summary_of_training, title
from n2v_scale.exported import Export
from n2v_scale.method_facts import FACTS

COVER_SIDE = 512
LEAST_SCALE = 1e-6
"""Of the standard deviations that the description may name."""
FLOAT32 = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
TORCHSCRIPT, ONNX = "weights-torchscript.pt", "weights.onnx"


@dataclass(frozen=True)
class About:
    """What nobody but the user knows."""

    name: str | None = None
    license: str = "CC-BY-4.0"
    authors: tuple[str, ...] = ()


def write_package(export: Export, about: About, folder: Path, to: Path) -> None:
    """Write a package to ``to`` from ``folder``, which holds the weights already.

    Raises
    ------
    ConfigError
        When the extra is not installed, or name, licence or authors are not accepted.
    ModelError
        When the package is not valid.
    """
    spec = specification()
    check_license(about.license)
    _write_images(export, folder)
    (folder / "README.md").write_text(documentation(export, about.license), encoding="utf-8")
    content = _content(export, about)
    context = spec.ValidationContext(root=folder, perform_io_checks=True, log_warnings=False)
    with context, _unclosed():
        found = spec.build_description(content, context=context)
        if isinstance(found, spec.InvalidDescr):
            raise ModelError(f"the package would not be valid: {_reason(found)}")
        with to.open("wb") as file:
            spec.save_bioimageio_package_to_stream(found, output_stream=file)
    check_package(to)


def specification() -> Any:
    """The package that knows bioimage.io's specification.

    Raises
    ------
    ConfigError
        When it is not installed, or too old.
    """
    spec = of_extra("bioimageio.spec", "a bioimage.io package")
    used = ("ValidationContext", "save_bioimageio_package_to_stream", "build_description")
    if not all(hasattr(spec, name) for name in used):
        raise ConfigError(f"the bioimageio.spec that is installed is too old: {INSTALL}")
    return spec


def check_package(path: Path) -> None:
    """Raise a ModelError unless a package passes the specification's validation, files and all."""
    spec = specification()
    context = spec.ValidationContext(perform_io_checks=True, log_warnings=False)
    with context, ZipFile(path) as archive, _unclosed():
        summary = spec.load_description_and_validate_format_only(archive, perform_io_checks=True)
    if summary.status == "failed":
        errors = [e for detail in summary.details for e in detail.errors]
        said = "; ".join(f"{'.'.join(map(str, e.loc))}: {e.msg}" for e in errors[:3])
        raise ModelError(f"the package is not valid, and is not written: {said}")


@contextmanager
def _unclosed() -> Iterator[None]:
    """The specification's package leaves the files that it has read to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def check_license(name: str) -> None:
    """Raise a ConfigError when bioimage.io does not know the licence."""
    spec = specification()
    generic = of_extra("bioimageio.spec.generic.v0_3", "a bioimage.io package")
    try:
        with spec.ValidationContext(perform_io_checks=False, log_warnings=False):
            generic.LicenseId(name)
    except ValueError:
        raise ConfigError(
            f"licence {name!r} is no SPDX identifier that bioimage.io knows, such as CC-BY-4.0, "
            "CC0-1.0 or MIT"
        ) from None


def _reason(invalid: Any) -> str:
    return str(invalid.get_reason()).replace("\n", " ")


def _write_images(export: Export, folder: Path) -> None:
    values = export.sample.values
    for name, image in zip((INPUT, *OUTPUTS), (values, *export.own_answer(values)), strict=False):
        stored = image[:, 0] if export.flat else image
        np.save(folder / f"{name}.npy", stored[None].astype(np.float32))
    cover(export).save(folder / "cover.png", optimize=True)


def cover(export: Export) -> Image.Image:
    """A plane of the training data, 512 pixels a side: noisy on the left, denoised on the right."""
    sample, model = export.sample, export.model
    box = cover_box(sample)
    region = Region(0, 0, box, sample.shape)
    data = tile_boxes(box, model.halo, model.stride, sample.shape).data
    with torch.inference_mode():
        denoised = model.denoise(sample.read(0, data), region).mean[0]
    noisy = sample.read(0, box)[0]
    low, high = np.percentile(denoised, [0.5, 99.8])
    joined = noisy.copy()
    half = noisy.shape[1] // 2
    joined[:, half:] = denoised[:, half:]
    grey = np.clip((joined - low) / max(high - low, 1e-12), 0, 1)
    picture = Image.fromarray((255 * grey).astype(np.uint8)).convert("RGB")
    shown = picture.resize((COVER_SIDE, COVER_SIDE), Image.Resampling.NEAREST)
    line = Image.new("RGB", (2, COVER_SIDE), (255, 255, 255))
    shown.paste(line, (COVER_SIDE * half // noisy.shape[1] - 1, 0))
    return shown


def _content(export: Export, about: About) -> Any:
    """The description as the specification has it."""
    card = export.card
    facts = FACTS.get(card.method)
    cited = [] if facts is None else [{"text": facts.source.text, "doi": facts.source.doi}]
    return {
        "format_version": _format_version(),
        "type": "model",
        "name": _name(about.name or title(export)),
        "description": description(export),
        "authors": [{"name": name} for name in about.authors],
        "license": about.license,
        "cite": cited,
        "tags": _tags(export),
        "documentation": {"source": "README.md"},
        "covers": [{"source": "cover.png"}],
        "inputs": [_input(export)],
        "outputs": [_output(export, name) for name in OUTPUTS[: 2 if export.std else 1]],
        "weights": {
            "torchscript": {"source": TORCHSCRIPT, "pytorch_version": _torch_version()},
            "onnx": {
                "source": ONNX,
                "opset_version": OPSET,
                "parent": "torchscript",
                "comment": "recorded from the same network as the TorchScript, and checked against "
                "it",
            },
        },
        "config": {
            "n2v_scale": export.metadata(),
            "bioimageio": {
                "architecture_type": card.network,
                "model_parameter_count": card.parameters,
                "training": summary_of_training(export),
                "task": "denoising",
            },
        },
    }


def _format_version() -> str:
    """The one that the validation is for."""
    described = of_extra("bioimageio.spec.model.v0_5", "a bioimage.io package")
    return str(described.ModelDescr.implemented_format_version)


def _torch_version() -> str:
    return re.split(r"[+a-z]", torch.__version__)[0].rstrip(".")


def _name(name: str) -> str:
    """With the letters that are allowed, at most 64 of them."""
    allowed = re.sub(r"[^A-Za-z0-9_+\-() ]+", " ", name)
    return allowed[:64].strip().ljust(5, "_")


def _tags(export: Export) -> list[str]:
    framework = ["pytorch", "n2v"] + (["unet"] if "unet" in export.card.network else [])
    dims = "2d" if export.flat else "3d"
    return ["denoising", dims, *framework, "fluorescence-light-microscopy", "n2v-scale"]


def _input(export: Export) -> dict[str, Any]:
    pairs = zip(export.constants.offset, export.constants.scale, strict=True)
    if min(export.constants.scale) >= LEAST_SCALE:
        step: Any = {
            "id": "fixed_zero_mean_unit_variance",
            "kwargs": {
                "axis": "channel",
                "mean": list(export.constants.offset),
                "std": list(export.constants.scale),
            },
        }
    else:
        inverse = [(1 / scale, -offset / scale) for offset, scale in pairs]
        step = _linear([gain for gain, _ in inverse], [offset for _, offset in inverse])
    return {
        "id": INPUT,
        "description": "Noisy, in the camera's units",
        "axes": [*_first_axes(export), *_space(export, None)],
        "test_tensor": {"source": f"{INPUT}.npy"},
        "data": {"type": "float32"},
        "preprocessing": [FLOAT32, step, FLOAT32],
    }


def _output(export: Export, name: str) -> dict[str, Any]:
    scale = list(export.constants.scale)
    offset = list(export.constants.offset) if name == OUTPUTS[0] else [0.0] * len(scale)
    what = "Denoised" if name == OUTPUTS[0] else "Standard deviation of the estimate"
    return {
        "id": name,
        "description": f"{what}, in the camera's units",
        "axes": [*_first_axes(export), *_space(export, INPUT)],
        "test_tensor": {"source": f"{name}.npy"},
        "data": {"type": "float32"},
        "postprocessing": [_linear(scale, offset), FLOAT32],
    }


def _linear(gain: list[float], offset: list[float]) -> dict[str, Any]:
    return {"id": "scale_linear", "kwargs": {"axis": "channel", "gain": gain, "offset": offset}}


def _first_axes(export: Export) -> list[dict[str, Any]]:
    names = [f"channel{c}" for c in export.card.trained_on.channels]
    return [{"type": "batch"}, {"type": "channel", "channel_names": names}]


def _space(export: Export, refers_to: str | None) -> list[dict[str, Any]]:
    """The spatial axes of the input, or of an output as large as it."""
    trained = export.card.trained_on
    first = 1 if export.flat else 0
    axes = []
    for axis in range(first, 3):
        step, halo = export.step[axis], export.halo[axis]
        described: dict[str, Any] = {"type": "space", "id": "zyx"[axis]}
        described["scale"] = trained.voxel_size[axis]
        if trained.unit in UNITS:
            described["unit"] = trained.unit
        if refers_to is None:
            described["size"] = {"min": export.least[axis], "step": step}
        else:
            described["size"] = {"tensor_id": refers_to, "axis_id": "zyx"[axis]}
            described |= {"halo": halo} if halo else {}
        axes.append(described)
    return axes


UNITS = ("nanometer", "micrometer", "millimeter", "centimeter", "meter", "angstrom")
"""Of those that images have, the ones that the description may name."""
