"""PyTorch -> ONNX: recurrent layers by stand-ins, everything else by `torch.onnx.export(dynamo=True)`.

For a process of its own: `torch.onnx.export` leaves state behind, and a switch of torch's is turned off.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.conversion import (
    LENGTHS,
    LOGITS,
    Conversion,
    ConversionError,
    Say,
    SourceFiles,
    activation_of,
)
from exporters.onnx_file import OPSET, finish, status_of
from exporters.recurrence import UnsupportedRecurrence
from exporters.torch_source import labelled, open_source
from exporters.torch_standins import packing_stands_in, stand_in

if TYPE_CHECKING:
    import torch

_FILE = "model.onnx"
# Two sizes that are neither 0 nor 1 nor equal to each other: capturing specialises on such.
_EXAMPLE_ROWS, _EXAMPLE_TOKENS = 3, 7


def convert(files: SourceFiles, folder: Path, say: Say) -> Conversion:
    """Write `model.onnx` into `folder`; raises `SourceError` or `ConversionError`."""
    import onnxscript
    import torch

    source = open_source(files)
    tokens = min(_EXAMPLE_TOKENS, files.max_tokens)
    ids = np.full((_EXAMPLE_ROWS, tokens), files.pad_id, dtype=np.int64)
    example = source.feeds(ids, np.full(_EXAMPLE_ROWS, tokens, dtype=np.int64))
    with torch.inference_mode():
        answer = source.module(**example)
    columns = int(answer.shape[1]) if answer.dim() == 2 else 1
    try:
        module, operators = stand_in(source.module)
        say(f"capturing the graph; recurrent layers that become fused operators: {operators}")
        with packing_stands_in():
            program = _capture(_with_labels(module, source.inputs, files), example)
    except UnsupportedRecurrence as error:
        raise ConversionError(str(error)) from error
    say("checking and writing the graph")
    recurrent_ops = finish(program.model_proto, folder / _FILE, source.inputs)
    return Conversion(
        path=_FILE,
        inputs=source.inputs,
        output=files.output,
        activation=activation_of(columns, files),
        method="fused" if operators else "dynamo",
        status=status_of(recurrent_ops),
        recurrent_ops=recurrent_ops,
        versions={**source.versions, "onnxscript": str(onnxscript.__version__)},
    )


def _capture(module: torch.nn.Module, example: dict[str, torch.Tensor]) -> Any:
    import torch

    # The fast path of TransformerEncoderLayer is one operator that no converter knows.
    torch.backends.mha.set_fastpath_enabled(False)
    any_size = torch.export.Dim.DYNAMIC  # unlike AUTO, refuses where the code would freeze it
    axes = tuple({0: any_size} if name == LENGTHS else {0: any_size, 1: any_size} for name in example)
    program = torch.onnx.export(
        module,
        tuple(example.values()),
        dynamo=True,
        input_names=list(example),
        dynamic_shapes={"inputs": axes},
        output_names=[LOGITS],
        opset_version=OPSET,
        verbose=False,
    )
    if program is None:
        raise ConversionError("torch.onnx.export answered nothing")
    return program


def _with_labels(module: torch.nn.Module, names: Sequence[str], files: SourceFiles) -> torch.nn.Module:
    """Return the module with inputs by position, in the order of `names`, and its answer as [batch, labels]."""
    import torch

    class Labelled(torch.nn.Module):  # type: ignore[misc]  # the framework has no types here
        def __init__(self) -> None:
            super().__init__()
            self.source = module

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return labelled(self.source(**dict(zip(names, inputs, strict=True))), files)

    return Labelled().eval()
