"""What crosses the border between an export and the processes that do its work: requests and results.

Typed models that travel as JSON. Knows no framework; the registry names each framework's file, and a
job process alone imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lockstep.exporters.source import Activation, Framework, Output, Role

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
LENGTHS = "lengths"
INPUT_NAMES = (INPUT_IDS, ATTENTION_MASK, LENGTHS)
LOGITS = "logits"

SAVED_MODEL_SIGNATURE = "serving_default"

Ids = NDArray[np.int64]  # int64[batch, length]
Lengths = NDArray[np.int64]  # int64[batch]
Outputs = NDArray[np.float32]  # float32[batch, labels]
Say = Callable[[str], None]
"""Told in a few words what is done now; never blocks for long."""

OPENERS: Mapping[Framework, str] = {
    Framework.TORCH: "lockstep.exporters.sources.torch_source:open_source",
    Framework.KERAS: "lockstep.exporters.sources.keras_source:open_source",
    Framework.TF2: "lockstep.exporters.sources.tf2_source:open_source",
    Framework.TF1: "lockstep.exporters.sources.tf1_source:open_source",
    Framework.HUGGINGFACE: "lockstep.exporters.sources.huggingface_source:open_source",
    Framework.SAVED_MODEL: "lockstep.exporters.sources.saved_model_source:open_source",
    Framework.ONNX: "lockstep.exporters.sources.onnx_source:open_source",
}
"""Framework -> `module:function` that opens a source of it: (SourceFiles) -> OpenedSource."""

CONVERTERS: Mapping[tuple[Framework, str], str] = {
    (Framework.TORCH, "onnx"): "lockstep.exporters.converters.torch2onnx:convert",
    (Framework.TORCH, "torch"): "lockstep.exporters.converters.torch2pt2:convert",
    (Framework.KERAS, "onnx"): "lockstep.exporters.converters.keras2onnx:convert",
    (Framework.KERAS, "saved_model"): "lockstep.exporters.converters.keras2savedmodel:convert",
    (Framework.TF2, "onnx"): "lockstep.exporters.converters.tf22onnx:convert",
    (Framework.TF2, "saved_model"): "lockstep.exporters.converters.tf22savedmodel:convert",
    (Framework.TF1, "onnx"): "lockstep.exporters.converters.tf12onnx:convert",
    (Framework.TF1, "saved_model"): "lockstep.exporters.converters.tf12savedmodel:convert",
    (Framework.HUGGINGFACE, "onnx"): "lockstep.exporters.converters.torch2onnx:convert",
    (Framework.HUGGINGFACE, "torch"): "lockstep.exporters.converters.torch2pt2:convert",
    (Framework.SAVED_MODEL, "onnx"): "lockstep.exporters.converters.saved_model2onnx:convert",
    (Framework.SAVED_MODEL, "saved_model"): "lockstep.exporters.converters.saved_model2saved_model:convert",
    (Framework.ONNX, "onnx"): "lockstep.exporters.converters.onnx2onnx:convert",
}
"""(framework, artifact) -> `module:function` that converts: (SourceFiles, folder, say) -> Conversion."""

VARIANTS: Mapping[str, str] = {"onnx-int8": "lockstep.exporters.converters.onnx2int8:quantize"}
"""Variant -> `module:function` that makes it of its artifact, in place: (folder, Conversion) -> Conversion.

A variant answers about as its source does, is held to bounds of its own, and is made only where asked for.
"""

RUNTIMES: Mapping[str, Literal["onnxruntime", "tensorflow", "torch"]] = {
    "onnx": "onnxruntime",
    "saved_model": "tensorflow",
    "torch": "torch",
}
"""Artifact -> the runtime that serves it."""


def runtime_of(kind: str) -> Literal["onnxruntime", "tensorflow", "torch"]:
    """Return the runtime that serves an artifact or a variant of it."""
    return RUNTIMES[artifact_of(kind)]


def artifact_of(kind: str) -> str:
    """Return the artifact that a variant is of, and any other kind as it is."""
    return kind.partition("-")[0]


class ExportError(Exception):
    """The export cannot be done; the message says what is wrong and what to do. Root of the exporters' errors.

    ::

        ExportError
        ├── SourceError      the source cannot be opened or run
        └── ConversionError  the source is fine, but this artifact cannot be made of it
    """


class SourceError(ExportError):
    """The source cannot be opened or run: a file, its weights or its code is at fault."""


class ConversionError(ExportError):
    """The artifact cannot be made of the source; other artifacts may be."""


class Status(StrEnum):
    """How an artifact came out."""

    FUSED = "fused"  # its recurrence is ONNX's fused operator
    EXACT = "exact"  # the framework's own graph, or one without recurrence
    LOOP = "loop"  # right, but its recurrence is a Loop or Scan: slower
    REFUSED = "refused"


class Strict(BaseModel):
    """Base of what crosses the border: immutable, no unknown field."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceFiles(Strict):
    """A source by its absolute paths, ready to be opened by a process that starts anywhere."""

    name: str
    framework: Framework
    weights: Path
    build: str | None
    python_path: tuple[Path, ...]  # searched for `build`'s package, after everything installed
    labels: int
    output: Output | None  # what the answers mean; None: not known yet, and the columns stay as the source has them
    activation: Activation | None
    pad_id: int
    max_tokens: int
    tensors: dict[Role, str] = {}  # of a model file made elsewhere: what the author says that its tensors are
    signature: str = SAVED_MODEL_SIGNATURE
    columns: int | None = None  # of the source's answer, once it has answered


class NamedTensor(Strict):
    """A tensor as an artifact calls it."""

    name: str
    dtype: Literal["int64", "int32", "float32"]


class Conversion(Strict):
    """An artifact as it was written: where, what it is fed, what it answers."""

    path: str  # of the file or folder that the runtime loads, relative to the artifact's folder
    inputs: tuple[str, ...]  # of INPUT_NAMES, input_ids first
    tensors: dict[str, NamedTensor] = {}  # those of inputs and logits that are not int64 (float32) of that name
    output: Output
    activation: Activation
    method: str
    status: Status
    recurrent_ops: dict[str, int] = {}
    notes: tuple[str, ...] = ()  # what a person should know, e.g. why a recurrence is not fused
    versions: dict[str, str]  # package -> version

    def tensor(self, name: str) -> NamedTensor:
        """Return what the artifact calls one of its inputs, or its logits."""
        return self.tensors.get(name) or NamedTensor(name=name, dtype="float32" if name == LOGITS else "int64")


class ConvertJob(Strict):
    """Convert `source` into one artifact below `folder`, which exists and is empty.

    `fused=False` is for measurements: recurrences stay as the framework's converter makes them.
    """

    job: Literal["convert"] = "convert"
    source: SourceFiles
    artifact: str
    folder: Path
    threads: int
    fused: bool = True


class ReferenceJob(Strict):
    """Compute the source's own outputs for rows of ids, each alone and unpadded."""

    job: Literal["reference"] = "reference"
    source: SourceFiles
    rows: Path  # .npz: ids int64[sum of lengths], lengths int64[rows]
    timing: Path  # .npz: b1_t32 int64[1, 32] and b32_t64 int64[32, 64]; an absent one is not timed
    outputs: Path  # .npz to write: outputs float32[rows, columns], as the source answers them
    vocabulary: int  # the tokenizer's ids are below it
    threads: int


EndingKind = Literal["softmax", "sigmoid", "log_softmax", "log_sigmoid", "affine"]
"""What an operator makes of numbers; `affine` (a matrix product and a bias) gives them no bounds."""


class Ending(Strict):
    """The operator that a source ends in, where it can be seen and tells what the answers mean."""

    kind: EndingKind
    where: str  # the operator by name, for people

    @classmethod
    def of(cls, kind: EndingKind, where: str, *, picked: bool) -> Ending | None:
        """Return the ending; None where some of a softmax's numbers were picked, which are no distribution."""
        return None if picked and kind in ("softmax", "log_softmax") else cls(kind=kind, where=where)


class Reference(Strict):
    """What the source itself answered beside the outputs."""

    padding_invariance: float | None  # largest |row in a padded batch - row alone|; None: it failed in batches
    cpu_ms_b1_t32: float | None
    cpu_ms_b32_t64: float | None
    versions: dict[str, str]
    ending: Ending | None = None  # None: it cannot be seen, or tells nothing


class OpenedSource(Protocol):
    """A source in its own framework, in inference mode."""

    @property
    def versions(self) -> dict[str, str]:
        """The framework's packages and versions."""
        ...

    def outputs(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Return float32[batch, labels]: what the artifact must answer for these rows.

        Of a source whose output has no known meaning yet: float32[batch, columns], as it answers them.
        """
        ...

    def ending(self, ids: Ids, lengths: Lengths) -> Ending | None:
        """Return the operator that it ends in, seen in its graph or while it runs on these rows."""
        ...


def resolve(target: str) -> Any:
    """Import `module:name`, one of the names in the registries above."""
    import importlib

    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def is_single_column(columns: int, files: SourceFiles) -> bool:
    """Return whether a source's single sigmoid column must become two labels.

    One column p or z becomes [1 - p, p] or [0, z]: softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)].
    Raises `SourceError` where the columns fit neither way: `output_meaning` found others in the source's answers.
    """
    if files.output is None or columns == files.labels:
        return False
    if columns == 1 and files.labels == 2:
        return True
    raise SourceError(f"the graph answers {columns} columns for {files.labels} labels")


def output_of(files: SourceFiles) -> Output:
    """Return what the artifact's output is."""
    if files.output is None:
        raise AssertionError("an artifact is made once it is known what its source's output means")
    return files.output


def activation_of(columns: int, files: SourceFiles) -> Activation:
    """Return what turns the artifact's logits into probabilities."""
    if files.activation is None:
        raise AssertionError("an artifact is made once it is known what its source's output means")
    return "softmax" if is_single_column(files.columns or columns, files) else files.activation
