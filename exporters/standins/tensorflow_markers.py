"""Markers: nodes that stand for a recurrence in TensorFlow's graph, and that the converter makes the operator of.

A marker is a Python function's node that TensorFlow keeps and never runs, named with a key. Knows neither Keras
nor TensorFlow 1: each makes the `Recurrence` that a key stands for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lockstep.exporters.standins.recurrence import Recurrence, UnsupportedRecurrence

if TYPE_CHECKING:
    import tensorflow as tf

MARKER_NODE = "PyFunc"
"""The type of node that a marker is in TensorFlow's graph."""

_MARKER = "lockstep_recurrence_"
_MASKED = "_masked"


class Markers:
    """The recurrences of one model, by key."""

    def __init__(self) -> None:
        self.recurrences: dict[str, Recurrence] = {}
        self.left: list[str] = []
        """Why each recurrence that is not marked could not be."""
        self._keys = 0

    def key(self) -> str:
        """Return a new key; whoever takes it sets `recurrences[key]` before the graph is converted."""
        self._keys += 1
        return f"{_MARKER}{self._keys}"

    def handle(self, graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
        """Turn one marker into its operator; called by tf2onnx (graph.Graph, graph.Node)."""
        found = re.search(rf"({_MARKER}\d+)(?:{_MASKED})?", node.name)
        if found is None:
            raise UnsupportedRecurrence(f"a Python function inside the model ({node.name}) has no ONNX form")
        recurrence = self.recurrences[found.group(1)]
        x, *more = node.input
        lengths = more.pop(0) if found.group().endswith(_MASKED) else ""  # "": an input left out
        initial = more
        outputs = list(node.output)
        shapes = [graph.get_shape(output) for output in outputs]
        dtypes = [graph.get_dtype(output) for output in outputs]
        weights = [
            graph.make_const(f"{node.name}/{part}", array).output[0]
            for part, array in (
                ("W", recurrence.weights),
                ("R", recurrence.recurrent_weights),
                ("B", recurrence.biases),
            )
        ]
        inputs = [x, *weights, lengths, *initial]
        if recurrence.peepholes is not None:
            peepholes = graph.make_const(f"{node.name}/P", recurrence.peepholes).output[0]
            inputs += [""] * (7 - len(inputs)) + [peepholes]  # after both initial states
        graph.remove_node(node.name)
        graph.make_node(
            recurrence.kind.value,
            inputs,
            attr=recurrence.attributes,
            outputs=outputs,
            name=node.name,
            shapes=shapes,
            dtypes=dtypes,
        )


def mark(
    key: str,
    x: tf.Tensor,
    lengths: tf.Tensor | None,
    initial: Sequence[tf.Tensor],
    *,
    hidden: int,
    directions: int,
    states: int,
) -> list[tf.Tensor]:
    """Return Y and the final states of a marker, shaped as the operator's (see `recurrence`).

    x: float32[length, batch, features]; lengths: [batch], None where no row ends before the others;
    initial: none, or float32[directions, batch, hidden] for each state.
    """
    import tensorflow as tf

    def never_run(*_: Any) -> Any:
        raise AssertionError("a stand-in is converted, never run")

    ends = [] if lengths is None else [tf.cast(lengths, tf.int32)]
    answered = tf.numpy_function(
        never_run,
        [x, *ends, *initial],
        [tf.float32] * (1 + states),
        name=f"{key}{_MASKED if ends else ''}",
    )
    y = tf.ensure_shape(answered[0], [None, directions, None, hidden])
    return [y, *(tf.ensure_shape(state, [directions, None, hidden]) for state in answered[1:])]


def batch_first(y: tf.Tensor, hidden: int) -> tf.Tensor:
    """Return [batch, length, directions * hidden] of Y [length, directions, batch, hidden], by one transposition."""
    import tensorflow as tf

    width = y.shape[1] * hidden
    together = tf.transpose(y, [2, 0, 1, 3])
    shape = tf.shape(together)
    return tf.ensure_shape(tf.reshape(together, [shape[0], shape[1], width]), [None, None, width])
