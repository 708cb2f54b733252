"""ONNX files made elsewhere as sources: their own answers to rows alone and unpadded are what is compared with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.exporters.conversion import (
    ATTENTION_MASK,
    INPUT_IDS,
    LENGTHS,
    Ending,
    Ids,
    Lengths,
    Outputs,
    SourceError,
    SourceFiles,
    is_single_column,
)
from lockstep.exporters.gate.onnx_ending import ending_of
from lockstep.exporters.sources.found_tensors import Candidate, Found, find


class OnnxSource:
    """A file's session, and what its tensors are."""

    def __init__(self, model: Any, session: Any, found: Found, files: SourceFiles) -> None:
        self._model = model
        self._session = session
        self._found = found
        self._files = files

    @property
    def versions(self) -> dict[str, str]:
        """The version of ONNX Runtime."""
        import onnxruntime

        return {"onnxruntime": str(onnxruntime.__version__)}

    def outputs(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run the file as it came."""
        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: mask, LENGTHS: lengths}
        fed = {one.name: arrays[ours].astype(one.dtype) for ours, one in self._found.inputs.items()}
        fed |= {one.name: np.zeros_like(ids, dtype=one.dtype) for one in self._found.zeros}
        (answer,) = self._session.run([self._found.logits.name], fed)
        outputs = answer.astype(np.float32).reshape(len(ids), -1)
        if is_single_column(outputs.shape[1], self._files):
            other = 1 - outputs if self._files.output == "probabilities" else np.zeros_like(outputs)
            outputs = np.concatenate([other, outputs], axis=1)
        return np.asarray(outputs, dtype=np.float32)

    def ending(self, ids: Ids, lengths: Lengths) -> Ending | None:
        """Return the operator that the graph ends in."""
        del ids, lengths
        return ending_of(self._model, self._found.logits.name)


def open_source(files: SourceFiles) -> OnnxSource:
    """Open the file; raises `SourceError` naming what is at fault."""
    import onnxruntime

    model = read(files.weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(files.weights), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise SourceError(f"{files.weights}: ONNX Runtime cannot load it: {str(error)[:300]}") from error
    return OnnxSource(model, session, found_in(model, files), files)


def read(path: Path) -> Any:
    """Read the file without any other file that it may name; raises `SourceError`."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import uses_external_data

    try:
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            if uses_external_data(tensor):
                raise SourceError(f"{path}: weight {tensor.name!r} is in another file; save the model in one")
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError) as error:
        raise SourceError(f"{path}: not a valid ONNX file ({str(error)[:200]})") from error
    return model


def found_in(model: Any, files: SourceFiles) -> Found:
    """Say which of the graph's tensors is which; raises `SourceError`."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return find(
        [_candidate(value) for value in model.graph.input if value.name not in weights],
        [_candidate(value) for value in model.graph.output],
        files.tensors,
    )


def _candidate(value: Any) -> Candidate:
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    axes = len(tensor.shape.dim) if tensor.HasField("shape") else None
    return Candidate(value.name, {"float": "float32"}.get(dtype, dtype), axes)
