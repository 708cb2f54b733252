"""The last pass over any ONNX graph, whichever converter made it: named axes, one file, a checked model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lockstep.exporters.conversion import LENGTHS, LOGITS, ConversionError, Status
from lockstep.exporters.standins.recurrence import LOOPS, OPERATORS

OPSET = 20
"""Of the graphs we write: the newest that all our converters emit and ONNX Runtime has run for years."""

_MAX_BYTES = 2**31 - 1
"""Of a protobuf message, and so of a model in one file: https://protobuf.dev/programming-guides/proto-limits/."""


def finish(model: Any, path: Path, inputs: Sequence[str]) -> dict[str, int]:
    """Name the axes, check the graph and write it whole into `path`; return its recurrent operators by type.

    Raises `ConversionError` where an input or the output is not what every artifact must have.
    """
    import onnx

    graph = model.graph
    # Shapes that the converter inferred are not needed to run, and stale ones break later passes.
    del graph.value_info[:]
    declared = {value.name: value for value in graph.input}
    if set(declared) != set(inputs):
        raise ConversionError(
            f"the graph takes {sorted(declared)} where the source takes {sorted(inputs)}: "
            "an input that changes nothing was dropped, or the graph is not this source's"
        )
    for name in inputs:
        axes = ("batch",) if name == LENGTHS else ("batch", "length")
        _name_axes(declared[name], axes, onnx.TensorProto.INT64)
    if [value.name for value in graph.output] != [LOGITS]:
        raise ConversionError(f"the graph answers {[value.name for value in graph.output]}, not {LOGITS!r}")
    _name_axes(graph.output[0], ("batch",), onnx.TensorProto.FLOAT)
    for node in _nodes(graph):
        del node.metadata_props[:]  # stack traces of the exporting machine
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
    del graph.metadata_props[:]
    if model.ByteSize() > _MAX_BYTES:
        gigabytes = math.ceil(model.ByteSize() / 2**30)
        raise ConversionError(f"the graph takes {gigabytes} GiB; a model in one file holds less than 2")
    onnx.checker.check_model(model)
    onnx.save_model(model, str(path))
    found = Counter(node.op_type for node in _nodes(graph) if node.op_type in OPERATORS | LOOPS)
    return dict(sorted(found.items()))


def status_of(recurrent_ops: dict[str, int]) -> Status:
    """Return fused, loop, or exact where there is no recurrence."""
    if LOOPS & recurrent_ops.keys():
        return Status.LOOP
    return Status.FUSED if recurrent_ops else Status.EXACT


def _name_axes(value: Any, axes: Sequence[str], dtype: int) -> None:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    if tensor.elem_type != dtype:
        raise ConversionError(f"{value.name} has ONNX element type {tensor.elem_type}, expected {dtype}")
    for axis, (name, dim) in enumerate(zip(axes, dims, strict=False)):
        if dim.HasField("dim_value"):
            raise ConversionError(f"axis {axis} ({name}) of {value.name} is frozen at {dim.dim_value}")
        dim.dim_param = name


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
            for subgraph in attribute.graphs:
                yield from _nodes(subgraph)
