"""Passes over an image as a loop in an ONNX graph.

A graph with every pass written out is large, and takes minutes to make. So one pass is recorded,
and what follows the passes, and the two are put together here::

    image -> Loop(phases: sum of the pass) -> mean -> what follows -> outputs
"""

from __future__ import annotations

from typing import Any

from n2v_scale.export_extra import of_extra


def looped(one_pass: Any, follows: Any | None, phases: list[tuple[int, ...]], output: str) -> Any:
    """One ONNX model of two.

    Parameters
    ----------
    one_pass
        From ``image`` and ``phase`` (3,) to ``part``, as large as the image.
    follows
        From ``image`` and ``mean`` to the outputs; None where the mean is the output.
    phases
        Of the passes; their parts are added.
    output
        Name of the mean, where nothing follows.
    """
    onnx, compose, inliner = (
        of_extra(name, "writing ONNX") for name in ("onnx", "onnx.compose", "onnx.inliner")
    )
    make, types = onnx.helper, onnx.TensorProto
    body = compose.add_prefix(
        inliner.inline_local_functions(one_pass), "pass_", rename_inputs=False
    ).graph
    part = body.output[0].name
    mean = "mean" if follows is not None else output
    inside = make.make_graph(
        [
            make.make_node("Gather", ["phases", "number"], ["phase"], axis=0),
            *body.node,
            make.make_node("Add", ["sum_before", part], ["sum_after"]),
            make.make_node("Identity", ["go_on"], ["go_on_still"]),
        ],
        "passes",
        [
            make.make_tensor_value_info("number", types.INT64, []),
            make.make_tensor_value_info("go_on", types.BOOL, []),
            make.make_tensor_value_info("sum_before", types.FLOAT, None),
        ],
        [
            make.make_tensor_value_info("go_on_still", types.BOOL, []),
            make.make_tensor_value_info("sum_after", types.FLOAT, None),
        ],
    )
    nodes = [
        make.make_node("Shape", ["image"], ["image_shape"]),
        make.make_node("ConstantOfShape", ["image_shape"], ["nothing"]),
        make.make_node("Loop", ["passes_count", "yes", "nothing"], [mean], body=inside),
    ]
    values = [
        make.make_tensor(
            "phases", types.INT64, [len(phases), 3], [n for phase in phases for n in phase]
        ),
        make.make_tensor("passes_count", types.INT64, [], [len(phases)]),
        make.make_tensor("yes", types.BOOL, [], [True]),
        *body.initializer,
    ]
    outputs = [_renamed(make, one_pass.graph.output[0], output)]
    if follows is not None:
        after = inliner.inline_local_functions(follows)
        outputs = list(after.graph.output)
        after = compose.add_prefix(after, "after_", rename_inputs=False, rename_outputs=False).graph
        nodes += after.node
        values += after.initializer
    image = next(value for value in one_pass.graph.input if value.name == "image")
    graph = make.make_graph(nodes, "n2v_scale", [image], outputs, values)
    return make.make_model(
        graph, opset_imports=one_pass.opset_import, ir_version=one_pass.ir_version
    )


def _renamed(make: Any, value: Any, name: str) -> Any:
    shape = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
    return make.make_tensor_value_info(name, value.type.tensor_type.elem_type, shape)
