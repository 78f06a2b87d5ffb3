"""The documentation of an exported model, made from its card."""

from __future__ import annotations

import re
from typing import Any

from n2v_scale.exported import Export
from n2v_scale.method_facts import FACTS
from n2v_scale.model_card import ModelCard, TrainedOn
from n2v_scale.model_text import Rows, method_rows, trained_rows, training_rows

VALIDATION = (
    "Each file was opened again when it was written and compared with the model itself on images "
    "of two sizes and in a batch. New data: with a clean reference PSNR and SSIM tell. Two "
    "captures of the same show by their Fourier shell correlation what is resolved. Without "
    "either, `n2v-scale evaluate --noisy` estimates the error, and the difference of noisy and "
    "denoised must look like noise, without structure. The loss on held-out regions, above, is "
    "that of the training volume."
)


def documentation(export: Export, license_name: str) -> str:
    """README.md of a bioimage.io package."""
    return "\n".join(
        [
            f"# {title(export)}",
            "",
            _what(export),
            "",
            "## What to give it",
            "",
            _how(export),
            "",
            "## What is in the graph, and what is not",
            "",
            *(f"- {line}" for line in contents(export)),
            "",
            "## The model",
            "",
            _table(method_rows(export.card)),
            "",
            "## Training",
            "",
            _table([*trained_rows(without_folders(export.card)), *training_rows(export.card)]),
            "",
            "## Validation",
            "",
            VALIDATION,
            "",
            "## Test images",
            "",
            f"The test input is {export.sample.origin}. The test output is what n2v-scale itself "
            "makes of it.",
            "",
            f"Weights: {license_name}. Made with n2v-scale {export.card.package_version}.",
            "",
        ]
    )


def without_folders(card: ModelCard) -> ModelCard:
    """The card with its volumes' names alone: where they lie is nobody else's business."""

    def named(trained: TrainedOn) -> TrainedOn:
        name = re.split(r"[/\\]", trained.address.rstrip("/"))[-1]
        return trained.model_copy(update={"address": name})

    others = tuple(named(trained) for trained in card.also_trained_on)
    return card.model_copy(update={"trained_on": named(card.trained_on), "also_trained_on": others})


def title(export: Export) -> str:
    """Of a model nobody has named."""
    facts = FACTS.get(export.card.method)
    name = export.card.method if facts is None else facts.title
    return f"{name} denoising in {'2D' if export.flat else '3D'} (n2v-scale {export.card.method})"


def description(export: Export) -> str:
    """In one sentence."""
    seen = "a microscopy image" if export.flat else "a microscopy volume"
    facts = FACTS.get(export.card.method)
    assumed = "" if facts is None else f" It assumes that {facts.assumes}."
    return f"Removes the noise of {seen} like the one that it was trained on.{assumed}"


def _what(export: Export) -> str:
    return (
        f"{description(export)} It denoises images of the kind that it has seen: the same "
        "microscope, stain, voxel size and exposure. Another kind needs a training of its own."
    )


def _how(export: Export) -> str:
    axes = "(batch, channel, y, x)" if export.flat else "(batch, channel, z, y, x)"
    names = "yx" if export.flat else "zyx"
    steps = export.step[3 - len(names) :]
    halo = export.halo[3 - len(names) :]
    many = f"{export.channels} channel" + ("s" if export.channels > 1 else "")
    each = zip(export.constants.offset, export.constants.scale, strict=True)
    constants = "; ".join(f"mean {offset:.6g}, scale {scale:.6g}" for offset, scale in each)
    return (
        f"An image {axes} with {many}, in the camera's units, not normalised: the package's "
        "preprocessing does that with the constants of the training volume, the same for every "
        f"tile ({constants}), and its postprocessing goes back. An image with another background "
        "or another exposure needs constants of its own, measured over all of it.\n\n"
        f"Extents along ({', '.join(names)}) are multiples of ({_list(steps)}). A voxel sees up to "
        f"({_list(halo)}) voxels around it, so tiles need that much more at each side, which is "
        "cropped afterwards. Nothing in the graph looks at a whole tile: with such a halo, at "
        "tiles that begin at multiples of the above, the result is that of one pass over the "
        "whole image, up to rounding. At the image's own faces the network was trained with "
        "zeros (after normalisation) outside; programs that mirror instead differ there, within "
        "the halo."
    )


def contents(export: Export) -> list[str]:
    """What the graph does, and what is left to others."""
    card, known = export.card, export.known
    lines = ["In it: the trained network, in float32, from normalised to normalised values."]
    if card.passes > 1:
        lines.append(
            f"In it: the {card.passes} passes of the method, each of which hides another subset of "
            "the voxels and predicts it. The subsets are counted from the tile's origin."
        )
    if known.noise is not None:
        cameras = "; ".join(
            f"gain {n.gain:.4g}, offset {n.offset:.6g}, read noise {n.read_noise:.4g}"
            for n in known.noise
        )
        lines.append(
            "In it: each voxel's own value is put back by Bayes' rule (Laine et al. 2019). The "
            f"camera's noise is fixed for that ({cameras}, in the camera's units): with another "
            "camera, gain or exposure it weighs wrongly."
        )
    elif known.why_not is not None:
        lines.append(
            "Not in it: putting each voxel's own value back. What comes out is the prediction from "
            f"the neighbours alone, because {known.why_not}."
        )
    lines.append(
        "Its second output is the standard deviation of the estimate."
        if export.std
        else "Not in it: a standard deviation (`n2v-scale export --output mean,std` adds it, for "
        "methods that know one)."
    )
    lines.append(
        "Not in it: constants and noise measured anew for another volume, skipping of empty "
        "space, mirror averaging (--tta), rounding to whole numbers. `n2v-scale predict` does so."
    )
    return lines


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _table(rows: Rows) -> str:
    lines = ["| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {n.strip()} | {t.replace('|', '/')} |" for n, t in rows)])


def summary_of_training(export: Export) -> dict[str, Any]:
    """For the package's machine-readable part."""
    training = export.card.training
    found = {
        "training_batch_size": training.get("batch"),
        "initial_learning_rate": training.get("learning_rate"),
    }
    return {name: float(value) for name, value in found.items() if value is not None}
