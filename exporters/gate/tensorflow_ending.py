"""The operator that computes the output of a TensorFlow graph: what the numbers mean, where that can be seen.

Reads a GraphDef and its functions; imports no framework. A Keras model, a `tf.Module`, a TensorFlow 1 graph and a
SavedModel's signature all are such graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep.exporters.conversion import Ending, EndingKind

_PASSING = frozenset(
    {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "EnsureShape", "StopGradient", "PreventGradient"}
)
"""Operators that pass numbers on as they are, in their first input."""

_PICKING = frozenset({"StridedSlice", "Slice", "GatherV2", "GatherNd"})
"""Operators that pass some of the numbers on, of their first input."""

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_KINDS: Mapping[str, EndingKind] = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    "LogSoftmax": "log_softmax",
    "BiasAdd": "affine",
}
_SUMS, _PRODUCTS = frozenset({"Add", "AddV2"}), frozenset({"MatMul", "BatchMatMulV2"})


def ending_of(graph: Any, tensor: str) -> Ending | None:
    """Return what a `tf.Graph` computes a tensor (`name:0`) by; None where that does not tell what it means."""
    definition = graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    nodes, node, picked = _producer({node.name: node for node in definition.node}, tensor, functions)
    if node is None:
        return None
    where = f"{node.op} ({node.name})"
    if node.op in _KINDS:
        return Ending.of(_KINDS[node.op], where, picked=picked)
    before = [_producer(nodes, name, functions)[1] for name in node.input if not name.startswith("^")]
    if node.op in _SUMS and any(one is not None and one.op in _PRODUCTS for one in before):
        return Ending(kind="affine", where=where)
    if node.op == "Neg" and before and before[0] is not None and before[0].op == "Softplus":
        return Ending(kind="log_sigmoid", where=f"log_sigmoid ({node.name})")
    return None


def _producer(
    nodes: Mapping[str, Any], tensor: str, functions: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Any | None, bool]:
    """Return the node that computes a tensor, the nodes it is among, and whether only some of its numbers are passed.

    Looks through calls and what passes numbers on. The node of a function's argument is None. A tensor is
    `name`, `name:1` or, within a function, `name:output:1`.
    """
    picked = False
    while True:
        name, *rest = tensor.split(":")
        node = nodes.get(name)
        if node is None:
            return nodes, None, picked
        if node.op in _PASSING or node.op in _PICKING:
            picked |= node.op in _PICKING
            tensor = node.input[0]
        elif node.op in _CALLS and node.attr["f"].func.name in functions:
            function = functions[node.attr["f"].func.name]
            place = int(rest[-1]) if rest else 0
            tensor = function.ret[function.signature.output_arg[place].name]
            nodes = {inner.name: inner for inner in function.node_def}
        else:
            return nodes, node, picked
