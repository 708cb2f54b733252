"""The operator that computes the output of an ONNX graph: what the numbers mean, where that can be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep.exporters.conversion import Ending, EndingKind

_PASSING = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout"})
"""Operators that pass numbers on as they are, in their first input; what runs has no dropout."""

_PICKING = frozenset({"Slice", "Gather", "GatherND", "GatherElements"})
"""Operators that pass some of the numbers on, of their first input."""

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
    node, picked = _producer(producers, output)
    if node is None:
        return None
    where = f"{node.op_type} ({node.name or node.output[0]})"
    if node.op_type in _KINDS:
        return Ending.of(_KINDS[node.op_type], where, picked=picked)
    before = [_producer(producers, name)[0] for name in node.input]
    if node.op_type == "Add" and any(one is not None and one.op_type == "MatMul" for one in before):
        return Ending(kind="affine", where=where)
    if node.op_type == "Log" and before[0] is not None and before[0].op_type == "Sigmoid":
        return Ending(kind="log_sigmoid", where=f"Log of {before[0].op_type} ({node.name or node.output[0]})")
    if node.op_type == "Log" and before[0] is not None and before[0].op_type == "Softmax":
        return Ending.of("log_softmax", f"Log of {before[0].op_type} ({node.name or node.output[0]})", picked=picked)
    return None


def _producer(producers: Mapping[str, Any], name: str) -> tuple[Any | None, bool]:
    """Return the node that computes a value, through those that pass numbers on, and whether they pass only some.

    An input or a weight has none.
    """
    node, picked = producers.get(name), False
    while node is not None and (node.op_type in _PASSING or node.op_type in _PICKING):
        picked |= node.op_type in _PICKING
        node = producers.get(node.input[0])
    return node, picked
