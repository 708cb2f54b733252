"""Keras -> ONNX: recurrent layers by stand-ins, everything else by tf2onnx.

A recurrent layer that has no fused operator stays, and becomes a Loop: right, but slower; the notes say why.
"""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import Conversion, Say, SourceFiles, Status, activation_of, output_of
from lockstep.exporters.converters.onnx_file import status_of
from lockstep.exporters.converters.tensorflow_forms import ONNX_FILE, to_onnx
from lockstep.exporters.sources.keras_source import has_layer_graph, open_source, swapped
from lockstep.exporters.standins.keras_standins import swap
from lockstep.exporters.standins.tensorflow_markers import MARKER_NODE, Markers


def convert(files: SourceFiles, folder: Path, say: Say, *, fused: bool = True) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`.

    `fused=False` leaves every recurrence to tf2onnx, which makes a Loop of it: for measurements.
    """
    import tf2onnx

    source = open_source(files)
    markers = Markers()
    if not fused:
        model = source.model
    elif has_layer_graph(source.model):
        model = swapped(source.model, lambda layer: swap(layer, markers))
    else:
        model = source.model
        markers.left.append("a subclassed model: its layers cannot be swapped")
    say(f"converting (tf2onnx); recurrent layers that become fused operators: {len(markers.recurrences)}")
    recurrent_ops = to_onnx(source.serving(model), source.inputs, folder, {MARKER_NODE: (markers.handle, [])})
    status = status_of(recurrent_ops)
    return Conversion(
        path=ONNX_FILE,
        inputs=source.inputs,
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="tf2onnx" if status is Status.EXACT else status.value,
        status=status,
        recurrent_ops=recurrent_ops,
        notes=tuple(markers.left) if status is Status.LOOP else (),
        versions={**source.versions, "tf2onnx": str(tf2onnx.__version__)},
    )
