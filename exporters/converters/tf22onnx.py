"""TensorFlow -> ONNX: cells that declare their gates by stand-ins, everything else by tf2onnx.

A loop written by hand that declares nothing becomes a Loop: right, but slower; the notes say why.
"""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import Conversion, Say, SourceFiles, Status, activation_of, output_of
from lockstep.exporters.converters.onnx_file import status_of
from lockstep.exporters.converters.tensorflow_forms import ONNX_FILE, to_onnx
from lockstep.exporters.sources.tf2_source import open_source
from lockstep.exporters.standins.tensorflow_markers import MARKER_NODE
from lockstep.exporters.standins.tf2_standins import Tf2Standins

_UNDECLARED = (
    "a loop is written by hand around a cell that does not declare its gates (see docs/exporting-tensorflow.md)"
)


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`."""
    import tf2onnx

    standins = Tf2Standins()
    source = open_source(files, standins.install)
    standins.describe()
    say(f"converting (tf2onnx); cells that become fused operators: {standins.operators}")
    recurrent_ops = to_onnx(source.serving, source.inputs, folder, {MARKER_NODE: (standins.markers.handle, [])})
    status = status_of(recurrent_ops)
    notes = tuple(standins.markers.left) or (_UNDECLARED,)
    return Conversion(
        path=ONNX_FILE,
        inputs=source.inputs,
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="tf2onnx" if status is Status.EXACT else status.value,
        status=status,
        recurrent_ops=recurrent_ops,
        notes=notes if status is Status.LOOP else (),
        versions={**source.versions, "tf2onnx": str(tf2onnx.__version__)},
    )
