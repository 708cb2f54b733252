"""The operator that computes the output of an ONNX graph: what the numbers mean, where that can be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporters.conversion import Ending, EndingKind

_PASSING = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout"})
"""Operators that pass numbers on as they are, in their first input; what runs has no dropout."""

_KINDS: Mapping[str, EndingKind] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "LogSoftmax": "log_softmax",
    "Gemm": "affine",
}


def ending_of(model: Any, output: str) -> Ending | None:
    """Return what the graph computes an output by; None where that does not tell what it means."""
    producers = {name: node for node in model.graph.node for name in node.output if name}
    node = _producer(producers, output)
    if node is None:
        return None
    where = f"{node.op_type} ({node.name or node.output[0]})"
    if node.op_type in _KINDS:
        return Ending(kind=_KINDS[node.op_type], where=where)
    before = [_producer(producers, name) for name in node.input]
    if node.op_type == "Add" and any(one is not None and one.op_type == "MatMul" for one in before):
        return Ending(kind="affine", where=where)
    if node.op_type == "Log" and before[0] is not None and before[0].op_type == "Sigmoid":
        return Ending(kind="log_sigmoid", where=f"Log of {before[0].op_type} ({node.name or node.output[0]})")
    if node.op_type == "Log" and before[0] is not None and before[0].op_type == "Softmax":
        return Ending(kind="log_softmax", where=f"Log of {before[0].op_type} ({node.name or node.output[0]})")
    return None


def _producer(producers: Mapping[str, Any], name: str) -> Any | None:
    """Return the node that computes a value, through those that pass numbers on; None of an input or a weight."""
    node = producers.get(name)
    while node is not None and node.op_type in _PASSING:
        node = producers.get(node.input[0])
    return node
