"""An exported model as a file: TorchScript and ONNX, and what they answer when opened again."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from n2v_scale.export_extra import of_extra
from n2v_scale.export_graph import ExportedModel
from n2v_scale.export_loop import looped

FloatArray = npt.NDArray[np.float32]
Constants = dict[str, Any]

OPSET = 20
INPUT = "image"
OUTPUTS = ("denoised", "std")
KEY = "n2v_scale"
"""Of the metadata, in ONNX; in TorchScript the name of the extra file is this and ``.json``."""
EXAMPLE_CELLS = 4
"""Of the stride, along each axis of the image that a graph is recorded with."""


def torchscript_file(graph: ExportedModel, example: Tensor, constants: Constants, to: Path) -> None:
    """Write ``graph`` as TorchScript, with its constants as an extra file inside."""
    with _quietly(), torch.no_grad():
        traced = torch.jit.trace(graph, (example,), check_trace=False)
        extra = {f"{KEY}.json": json.dumps(constants)}
        torch.jit.save(traced, str(to), _extra_files=extra)


def onnx_file(graph: ExportedModel, example: Tensor, constants: Constants, to: Path) -> None:
    """Write ``graph`` as ONNX, with its constants among the metadata.

    Raises
    ------
    ConfigError
        When a package of the extra is not there.
    """
    onnx = of_extra("onnx", "writing ONNX")
    of_extra("onnxscript", "writing ONNX")
    axes = ("batch", "channel", "y", "x") if graph.flat else ("batch", "channel", "z", "y", "x")
    outputs = list(OUTPUTS[: 2 if graph.std else 1])
    if graph.one_pass is None:
        model = _recorded(graph, (example,), [INPUT], outputs)
    else:
        phase = torch.zeros(3, dtype=torch.int64)
        one = _recorded(graph.one_pass, (example, phase), [INPUT, "phase"], ["part"])
        follows = None
        if graph.finish is not None:
            follows = _recorded(graph.finish, (example, 0.5 * example), [INPUT, "mean"], outputs)
        model = looped(one, follows, graph.one_pass.phases, outputs[0])
    _name_sizes(model, axes)
    onnx.helper.set_model_props(model, {KEY: json.dumps(constants)})
    onnx.checker.check_model(model)
    onnx.save(model, str(to))


def _recorded(
    module: nn.Module, examples: tuple[Tensor, ...], inputs: list[str], outputs: list[str]
) -> Any:
    """An ONNX model of ``module``, for every batch and every size of images."""
    shapes = tuple(
        dict.fromkeys((0, *range(2, x.ndim)), torch.export.Dim.DYNAMIC) if x.ndim > 1 else None
        for x in examples
    )
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _name_sizes(model: Any, axes: tuple[str, ...]) -> None:
    """Sizes by their axes' names; those of what is between follow from them."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for name, size in zip(axes, value.type.tensor_type.shape.dim, strict=True):
            if name != "channel":
                size.dim_param = name


def answers_of_torchscript(path: Path, image: FloatArray) -> list[FloatArray]:
    """What the file says of a normalised image (b, c, …)."""
    with _quietly(), torch.inference_mode():
        loaded = torch.jit.load(str(path))
        found = loaded(torch.from_numpy(image))
    return [t.numpy() for t in (found if isinstance(found, tuple) else (found,))]


def answers_of_onnx(path: Path, image: FloatArray) -> list[FloatArray]:
    """What the file says of a normalised image (b, c, …), in onnxruntime on the CPU."""
    runtime = of_extra("onnxruntime", "checking ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {INPUT: image}))


@contextmanager
def _quietly() -> Iterator[None]:
    """Recording warns of what is meant: constants, and torch's plans for its own interfaces."""
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        loud.setLevel(level)
