"""ONNX -> ONNX: a file made elsewhere, its tensors renamed, cast and folded to an artifact's signature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lockstep.exporters.conversion import (
    INPUT_IDS,
    LENGTHS,
    LOGITS,
    Conversion,
    ConversionError,
    Say,
    SourceFiles,
    activation_of,
    is_single_column,
    output_of,
)
from lockstep.exporters.converters.onnx_file import finish, status_of
from lockstep.exporters.sources.found_tensors import Found
from lockstep.exporters.sources.onnx_source import found_in, read

_FILE = "model.onnx"


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`."""
    import onnx

    model = read(files.weights)
    found = found_in(model, files)
    say(f"mapping its tensors: {', '.join(f'{one.name} is {ours}' for ours, one in found.inputs.items())}")
    columns = _fold(model, found, files)
    recurrent_ops = finish(model, folder / _FILE, tuple(found.inputs))
    return Conversion(
        path=_FILE,
        inputs=tuple(found.inputs),
        output=output_of(files),
        activation=activation_of(columns, files),
        method="imported",
        status=status_of(recurrent_ops),
        recurrent_ops=recurrent_ops,
        versions={"onnx": str(onnx.__version__)},
    )


def _fold(model: Any, found: Found, files: SourceFiles) -> int:
    """Give the graph an artifact's inputs and output; return the columns of its own."""
    from onnx import TensorProto, helper

    graph = model.graph
    types = {"int64": TensorProto.INT64, "int32": TensorProto.INT32}
    declared = {value.name: value for value in graph.input}
    before, inputs = [], []
    for ours, theirs in found.inputs.items():
        axes = len(declared[theirs.name].type.tensor_type.shape.dim)
        if axes != (1 if ours == LENGTHS else 2):
            raise ConversionError(f"{theirs.name} has {axes} axes, which {ours} cannot have")
        dims = list(declared[theirs.name].type.tensor_type.shape.dim)
        shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
        inputs.append(helper.make_tensor_value_info(ours, TensorProto.INT64, shape))
        if theirs.name != ours or theirs.dtype != "int64":
            inner = f"lockstep/{ours}"
            _rename(graph, theirs.name, inner)
            before.append(helper.make_node("Cast", [ours], [inner], to=types[theirs.dtype]))
    for theirs in found.zeros:
        zero = helper.make_tensor("zero", types[theirs.dtype], [1], [0])
        shape_of = f"lockstep/shape of {theirs.name}"
        before += [
            helper.make_node("Shape", [INPUT_IDS], [shape_of]),
            helper.make_node("ConstantOfShape", [shape_of], [theirs.name], value=zero),
        ]
    weights = [value for value in graph.input if value.name in {tensor.name for tensor in graph.initializer}]
    nodes = [*before, *graph.node]
    output = next(value for value in graph.output if value.name == found.logits.name)
    dims = output.type.tensor_type.shape.dim
    columns = dims[1].dim_value if len(dims) == 2 and dims[1].HasField("dim_value") else files.columns or files.labels
    if len(dims) == 1:
        columns = 1
    answer = "lockstep/answer"
    for node in graph.node:
        node.output[:] = [answer if name == found.logits.name else name for name in node.output]
    _rename(graph, found.logits.name, answer)
    after, constants = _labelled(answer, is_single_column(columns, files), files)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes, *after])
    graph.input.extend([*inputs, *weights])
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [None, files.labels]))
    graph.initializer.extend(constants)
    return columns


def _labelled(name: str, single: bool, files: SourceFiles) -> tuple[list[Any], list[Any]]:
    """Return the nodes and constants that make the output [batch, labels] and call it `logits`."""
    from onnx import TensorProto, helper, numpy_helper

    def part(suffix: str) -> str:
        return f"lockstep/logits/{suffix}"

    nodes = [helper.make_node("Cast", [name], [part("float")], to=TensorProto.FLOAT)]
    if not single:
        return [*nodes, helper.make_node("Identity", [part("float")], [LOGITS])], []
    constants = [numpy_helper.from_array(np.array([-1, 1], dtype=np.int64), part("shape"))]
    nodes.append(helper.make_node("Reshape", [part("float"), part("shape")], [part("column")]))
    if files.output == "probabilities":
        constants.append(numpy_helper.from_array(np.float32(1), part("one")))
        nodes.append(helper.make_node("Sub", [part("one"), part("column")], [part("other")]))
    else:
        nodes.append(helper.make_node("Sub", [part("column"), part("column")], [part("other")]))
    nodes.append(helper.make_node("Concat", [part("other"), part("column")], [LOGITS], axis=1))
    return nodes, constants


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value wherever the graph, or a graph inside it, reads it."""
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, old, new)
            for subgraph in attribute.graphs:
                _rename(subgraph, old, new)
