"""PyTorch -> ONNX: recurrent layers by stand-ins, everything else by `torch.onnx.export(dynamo=True)`.

For a process of its own: `torch.onnx.export` leaves state behind.
"""

from __future__ import annotations

from pathlib import Path

from lockstep.exporters.conversion import (
    LOGITS,
    Conversion,
    ConversionError,
    Say,
    SourceFiles,
    activation_of,
    output_of,
)
from lockstep.exporters.converters.onnx_file import OPSET, finish, status_of
from lockstep.exporters.standins.recurrence import UnsupportedRecurrence
from lockstep.exporters.standins.torch_capture import capturable, captured
from lockstep.exporters.standins.torch_fused import fused_layer
from lockstep.exporters.standins.torch_standins import packing_stands_in, stand_in

_FILE = "model.onnx"


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`."""
    import onnxscript
    import torch

    subject = capturable(files)
    inputs = subject.source.inputs
    try:
        module, operators = stand_in(subject.source.module, fused_layer)
    except UnsupportedRecurrence as error:
        raise ConversionError(str(error)) from error
    say(f"capturing the graph (dynamo); recurrent layers that become fused operators: {operators}")
    with captured(), packing_stands_in():
        program = torch.onnx.export(
            subject.labelled(module),
            tuple(subject.example.values()),
            dynamo=True,
            input_names=list(subject.example),
            dynamic_shapes={"inputs": subject.axes},
            output_names=[LOGITS],
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise ConversionError("torch.onnx.export answered nothing")
    say("checking and writing the graph")
    recurrent_ops = finish(program.model_proto, folder / _FILE, inputs)
    return Conversion(
        path=_FILE,
        inputs=inputs,
        output=output_of(files),
        activation=activation_of(subject.columns, files),
        method="fused" if operators else "dynamo",
        status=status_of(recurrent_ops),
        recurrent_ops=recurrent_ops,
        versions={**subject.source.versions, "onnxscript": str(onnxscript.__version__)},
    )
