"""SavedModels made elsewhere, by TensorFlow 1 or 2, as sources: one signature, its tensors mapped to ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.exporters.conversion import (
    ATTENTION_MASK,
    INPUT_IDS,
    LENGTHS,
    LOGITS,
    Ending,
    Ids,
    Lengths,
    Outputs,
    SourceError,
    SourceFiles,
)
from lockstep.exporters.converters.tensorflow_forms import ending, serving_function, versions
from lockstep.exporters.sources.found_tensors import Candidate, Found, find

if TYPE_CHECKING:
    import tensorflow as tf

_REFUSED = frozenset({"ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"})
"""Operators by which a graph would reach the machine's files or Python: no classifier needs them."""


class SavedModelSource:
    """A signature of a loaded SavedModel."""

    def __init__(self, loaded: Any, files: SourceFiles) -> None:
        self.loaded = loaded  # owns the variables
        signatures = loaded.signatures
        if files.signature not in signatures:
            raise SourceError(f"{files.weights} has no signature {files.signature!r}, only {sorted(signatures)}")
        self._signature = signatures[files.signature]
        self._columns = files.columns or files.labels
        self._known = files.output is not None
        self.found = _find(self._signature, files)
        self.inputs = tuple(self.found.inputs)
        self.columns = 0  # of its answer; known once its graph is traced
        self.serving = serving_function(self._call, self.inputs, files)
        """The artifact's function, where the SavedModel itself cannot be it."""
        self.serving.get_concrete_function()

    @property
    def versions(self) -> dict[str, str]:
        """The version of TensorFlow."""
        return versions()

    def outputs(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Run the signature."""
        mask = (np.arange(ids.shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        arrays = {INPUT_IDS: ids, ATTENTION_MASK: mask, LENGTHS: lengths}
        outputs: Outputs = self.serving(*(arrays[name] for name in self.inputs))[LOGITS].numpy()
        return outputs

    def ending(self, ids: Ids, lengths: Lengths) -> Ending | None:
        """Return the operator that its graph ends in."""
        del ids, lengths
        return ending(self.serving)

    def _call(self, **tensors: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        fed = {one.name: tf.cast(tensors[ours], one.dtype) for ours, one in self.found.inputs.items()}
        fed |= {one.name: tf.zeros_like(tensors[INPUT_IDS], one.dtype) for one in self.found.zeros}
        answer = self._signature(**fed)[self.found.logits.name]
        if answer.shape.rank is None or answer.shape.rank > 2:
            raise SourceError(f"{self.found.logits.name!r} has the shape {answer.shape}, not [batch, labels]")
        if answer.shape.rank == 2 and answer.shape[1] is None and self._known:
            answer = tf.ensure_shape(answer, [None, self._columns])
        self.columns = int(answer.shape[1] or 0) if answer.shape.rank == 2 else 1
        return answer


def open_source(files: SourceFiles) -> SavedModelSource:
    """Load the SavedModel; raises `SourceError` naming what is at fault."""
    _check(files.weights)
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(files.weights))
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceError(f"{files.weights}: cannot be loaded: {reason}") from error
    return SavedModelSource(loaded, files)


def _check(folder: Path) -> None:
    """Raise `SourceError` where the folder reaches out of itself, or its graph out of TensorFlow."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise SourceError(f"{path}: a link; a SavedModel holds its own files")
    graph = folder / "saved_model.pb"
    if not graph.is_file():
        raise SourceError(f"{folder}: no saved_model.pb; give the folder of a SavedModel")
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        parsed = saved_model_pb2.SavedModel.FromString(graph.read_bytes())
    except DecodeError as error:
        raise SourceError(f"{graph}: not a SavedModel ({error})") from error
    for meta in parsed.meta_graphs:
        functions = (node for function in meta.graph_def.library.function for node in function.node_def)
        for node in (*meta.graph_def.node, *functions):
            if node.op in _REFUSED:
                raise SourceError(f"{folder}: refused: its graph has the operator {node.op} ({node.name})")


def _find(signature: Any, files: SourceFiles) -> Found:
    _, inputs = signature.structured_input_signature
    outputs = signature.structured_outputs
    return find(
        [_candidate(name, spec) for name, spec in inputs.items()],
        [_candidate(name, spec) for name, spec in outputs.items()],
        files.tensors,
    )


def _candidate(name: str, spec: Any) -> Candidate:
    return Candidate(name, spec.dtype.name, spec.shape.rank)
