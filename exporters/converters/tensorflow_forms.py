"""What every TensorFlow source shares: a serving function, and its two forms, SavedModel and ONNX.

Knows neither Keras nor checkpoints; the sources make the serving function.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.exporters.conversion import (
    LENGTHS,
    LOGITS,
    SAVED_MODEL_SIGNATURE,
    ConversionError,
    Ending,
    SourceError,
    SourceFiles,
    is_single_column,
)
from lockstep.exporters.converters.onnx_file import finish
from lockstep.exporters.gate.tensorflow_ending import ending_of

if TYPE_CHECKING:
    import tensorflow as tf

ONNX_FILE = "model.onnx"
_TF2ONNX_OPSET = 18
"""The newest that tf2onnx 1.17 writes."""

_COMPLAINT_CHARACTERS = 400

Answer = Callable[..., "tf.Tensor"]
"""From tensors by input name, each int64, to [batch, columns]."""

Handler = tuple[Callable[..., None], list[Any]]
"""Of tf2onnx: called with (graph, node, name, arguments) for each node of a type."""


def serving_function(answer: Answer, inputs: Sequence[str], files: SourceFiles) -> tf.Function:
    """Return the function that every artifact is: named int64 inputs, both axes free, `logits` out."""
    import tensorflow as tf

    # One parameter a name, so that the signature has these names and no others.
    signature = [tf.TensorSpec([None] if name == LENGTHS else [None, None], tf.int64, name=name) for name in inputs]

    def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = answer(**dict(zip(inputs, tensors, strict=True)))
        return {LOGITS: labelled(columns, files)}

    return tf.function(serve, input_signature=signature)


def labelled(columns: tf.Tensor, files: SourceFiles) -> tf.Tensor:
    """Return float32[batch, labels] of what the source answered; a single sigmoid column becomes two labels."""
    import tensorflow as tf

    if columns.shape.rank == 1:
        columns = tf.expand_dims(columns, 1)
    if columns.shape.rank != 2 or (columns.shape[1] is None and files.columns is None and files.output is not None):
        raise SourceError(f"the source answers {columns.shape}, not [batch, labels]")
    columns = tf.cast(columns, tf.float32)
    if columns.shape[1] is None and files.columns is not None:
        columns = tf.ensure_shape(columns, [None, files.columns])
    if files.output is None or not is_single_column(int(columns.shape[1]), files):
        return columns
    other = 1.0 - columns if files.output == "probabilities" else tf.zeros_like(columns)
    return tf.concat([other, columns], axis=1)


def ending(function: tf.Function) -> Ending | None:
    """Return the operator that a serving function, of an output of no known meaning yet, ends in."""
    traced = function.get_concrete_function()
    return ending_of(traced.graph, traced.structured_outputs[LOGITS].name)


def inside(input_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Return bool[batch, length]: is the position before its row's end."""
    import tensorflow as tf

    places = tf.range(tf.shape(input_ids, out_type=tf.int64)[1])
    return places[tf.newaxis, :] < lengths[:, tf.newaxis]


def save(function: tf.Function, trackable: object, folder: Path) -> None:
    """Write a SavedModel; `trackable` owns the variables that the function uses."""
    import tensorflow as tf

    holder = tf.Module()
    holder.source = trackable
    holder.serve = function
    tf.saved_model.save(holder, str(folder), signatures={SAVED_MODEL_SIGNATURE: function.get_concrete_function()})


def to_onnx(
    function: tf.Function,
    inputs: Sequence[str],
    folder: Path,
    handlers: Mapping[str, Handler] | None = None,
) -> dict[str, int]:
    """Write `model.onnx` and return its recurrent operators; raises `ConversionError`.

    `handlers` convert nodes that tf2onnx does not know, by their type.
    """
    import tf2onnx

    return _write(
        lambda known: tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=_TF2ONNX_OPSET, custom_op_handlers=known
        ),
        inputs,
        folder,
        handlers,
    )


def graph_to_onnx(
    graph: Any,
    tensors: Mapping[str, str],
    folder: Path,
    handlers: Mapping[str, Handler] | None = None,
) -> dict[str, int]:
    """As `to_onnx`, of a frozen GraphDef; `tensors` are its own names of the artifact's inputs and logits."""
    import tf2onnx

    inputs = [name for name in tensors if name != LOGITS]
    return _write(
        lambda known: tf2onnx.convert.from_graph_def(
            graph,
            input_names=[tensors[name] for name in inputs],
            output_names=[tensors[LOGITS]],
            tensors_to_rename={theirs: ours for ours, theirs in tensors.items()},
            opset=_TF2ONNX_OPSET,
            custom_op_handlers=known,
        ),
        inputs,
        folder,
        handlers,
    )


def _write(
    convert: Callable[[dict[str, Handler]], tuple[Any, Any]],
    inputs: Sequence[str],
    folder: Path,
    handlers: Mapping[str, Handler] | None,
) -> dict[str, int]:
    # It logs what it cannot convert, and goes on: count those as what they are.
    complaints = _Complaints()
    logging.getLogger("tf2onnx").addHandler(complaints)
    model, external = convert({"Erfc": (_complement_of_erf, []), **(handlers or {})})
    if complaints.messages:
        raise ConversionError(f"tf2onnx: {'; '.join(complaints.messages[:3])}")
    if external:
        raise ConversionError("tf2onnx put weights outside the graph; a model in one file holds less than 2 GiB")
    return finish(model, folder / ONNX_FILE, inputs)


def versions() -> dict[str, str]:
    """Return the versions of what these forms are made with."""
    import tensorflow as tf

    return {"tensorflow": str(tf.__version__)}


class _Complaints(logging.Handler):
    """Keeps the errors that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        if record.exc_info is not None and record.exc_info[1] is not None:
            message = f"{message[:120]}: {record.exc_info[1]}"
        self.messages.append(message[:_COMPLAINT_CHARACTERS])


def _complement_of_erf(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
    """Turn Erfc, of an exact gelu, into 1 - Erf: ONNX has no Erfc, and tf2onnx would write an invalid graph."""
    import numpy as np

    shape, dtype = graph.get_shape(node.output[0]), graph.get_dtype(node.output[0])
    outputs = list(node.output)
    one = graph.make_const(f"{node.name}/one", np.array(1, dtype=np.float32)).output[0]
    erf = graph.make_node("Erf", [node.input[0]], shapes=[shape], dtypes=[dtype]).output[0]
    graph.remove_node(node.name)
    graph.make_node("Sub", [one, erf], outputs=outputs, name=node.name, shapes=[shape], dtypes=[dtype])
