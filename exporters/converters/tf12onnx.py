"""TensorFlow 1 -> ONNX: loops over known cells by stand-ins, everything else by tf2onnx.

A loop over a cell that has no fused operator stays, and becomes a Loop or Scan: right, but slower; the notes
say why.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from lockstep.exporters.conversion import (
    LOGITS,
    Conversion,
    ConversionError,
    Say,
    SourceFiles,
    Status,
    activation_of,
    output_of,
)
from lockstep.exporters.converters.onnx_file import status_of
from lockstep.exporters.converters.tensorflow_forms import ONNX_FILE, graph_to_onnx
from lockstep.exporters.sources.tf1_source import build_graph, prepare
from lockstep.exporters.standins.recurrence import UnsupportedRecurrence
from lockstep.exporters.standins.tensorflow_markers import MARKER_NODE
from lockstep.exporters.standins.tf1_standins import Tf1Standins


def convert(files: SourceFiles, folder: Path, say: Say, *, fused: bool = True) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`.

    `fused=False` leaves every recurrence to tf2onnx, which makes a Scan or Loop of it: for measurements.
    """
    build = prepare(files)
    import tensorflow as tf
    import tf2onnx

    tf.compat.v1.disable_control_flow_v2()  # a frozen graph of the new control flow has no ONNX form
    standins = Tf1Standins()
    with standins.standing_in() if fused else nullcontext():
        source = build_graph(files, build)
    try:
        standins.describe(source.session)
    except UnsupportedRecurrence as error:
        raise ConversionError(str(error)) from error
    say(f"converting (tf2onnx); recurrent loops that become fused operators: {standins.operators}")
    frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
        source.session, source.session.graph.as_graph_def(), [source.logits.op.name]
    )
    # The author may have called something of his own so: TensorFlow then numbers ours.
    names = {name: tensor.name for name, tensor in {**source.tensors, LOGITS: source.logits}.items()}
    recurrent_ops = graph_to_onnx(frozen, names, folder, {MARKER_NODE: (standins.markers.handle, [])})
    status = status_of(recurrent_ops)
    return Conversion(
        path=ONNX_FILE,
        inputs=source.inputs,
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="tf2onnx" if status is Status.EXACT else status.value,
        status=status,
        recurrent_ops=recurrent_ops,
        notes=tuple(standins.markers.left) if status is Status.LOOP else (),
        versions={**source.versions, "tf2onnx": str(tf2onnx.__version__)},
    )
