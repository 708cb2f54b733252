"""PyTorch -> `.pt2`: an `ExportedProgram` that a worker runs with none of the source's Python code.

Recurrent layers by stand-ins that become PyTorch's own packed operators, everything else by `torch.export`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from lockstep.exporters.conversion import (
    Conversion,
    ConversionError,
    Say,
    SourceFiles,
    Status,
    activation_of,
    output_of,
)
from lockstep.exporters.standins.recurrence import UnsupportedRecurrence
from lockstep.exporters.standins.torch_capture import capturable, captured
from lockstep.exporters.standins.torch_packed import expand, packed_layer
from lockstep.exporters.standins.torch_standins import packing_stands_in, stand_in

_FILE = "model.pt2"
_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
_RECURRENT = {"lstm.data": "LSTM", "gru.data": "GRU", "rnn_tanh.data": "RNN", "rnn_relu.data": "RNN"}


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write `model.pt2` into `folder`; raises `SourceError` or `ConversionError`."""
    import torch

    subject = capturable(files)
    try:
        module, operators = stand_in(subject.source.module, packed_layer)
    except UnsupportedRecurrence as error:
        raise ConversionError(str(error)) from error
    say(f"capturing the program; recurrent layers that stay PyTorch's own operators: {operators}")
    with captured(), packing_stands_in(), torch.no_grad():
        program = torch.export.export(
            subject.labelled(module),
            tuple(subject.example.values()),
            dynamic_shapes={"inputs": subject.axes},
        )
    expand(program)
    _forget_where_it_was_made(program)
    program.validate()
    say("writing the program")
    torch.export.save(program, folder / _FILE)
    names = Counter(
        _RECURRENT[node.target.__name__]
        for node in program.graph.nodes
        if getattr(node.target, "__name__", "") in _RECURRENT
    )
    return Conversion(
        path=_FILE,
        inputs=subject.source.inputs,
        output=output_of(files),
        activation=activation_of(subject.columns, files),
        method="torch.export",
        status=Status.EXACT,
        recurrent_ops=dict(sorted(names.items())),
        versions=subject.source.versions,
    )


def _forget_where_it_was_made(program: Any) -> None:
    """Drop the example and the traces of the exporting machine's files: nothing that runs needs them."""
    program.example_inputs = None
    for node in program.graph.nodes:
        for trace in _TRACES:
            node.meta.pop(trace, None)
