"""TensorFlow -> ONNX by tf2onnx: a cell written by hand under `tf.while_loop` becomes a Loop."""

from __future__ import annotations

from pathlib import Path

from exporters.conversion import Conversion, Say, SourceFiles, Status, activation_of
from exporters.onnx_file import status_of
from exporters.tensorflow_forms import ONNX_FILE, to_onnx
from exporters.tf2_source import open_source


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`."""
    import tf2onnx

    source = open_source(files)
    say("converting")
    recurrent_ops = to_onnx(source.serving, source.inputs, folder)
    status = status_of(recurrent_ops)
    notes = ("the cell is written by hand, and no fused operator is known for it",)
    return Conversion(
        path=ONNX_FILE,
        inputs=source.inputs,
        output=files.output,
        activation=activation_of(source.columns, files),
        method="tf2onnx" if status is Status.EXACT else status.value,
        status=status,
        recurrent_ops=recurrent_ops,
        notes=notes if status is Status.LOOP else (),
        versions={**source.versions, "tf2onnx": str(tf2onnx.__version__)},
    )
