"""SavedModel -> ONNX by tf2onnx, in whatever form it can be had: a recurrence stays a Loop or Scan."""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import Conversion, Say, SourceFiles, Status, activation_of, output_of
from lockstep.exporters.converters.onnx_file import status_of
from lockstep.exporters.converters.tensorflow_forms import ONNX_FILE, to_onnx
from lockstep.exporters.sources.saved_model_source import open_source

_NOTE = "a SavedModel has no cells any more, only their loop: export the model it was made of for the fused operator"


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`."""
    import tf2onnx

    source = open_source(files)
    say("converting (tf2onnx)")
    recurrent_ops = to_onnx(source.serving, source.inputs, folder)
    status = status_of(recurrent_ops)
    return Conversion(
        path=ONNX_FILE,
        inputs=source.inputs,
        output=output_of(files),
        activation=activation_of(source.columns, files),
        method="tf2onnx" if status is Status.EXACT else status.value,
        status=status,
        recurrent_ops=recurrent_ops,
        notes=(_NOTE,) if status is Status.LOOP else (),
        versions={**source.versions, "tf2onnx": str(tf2onnx.__version__)},
    )
