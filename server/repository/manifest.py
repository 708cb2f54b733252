"""`manifest.json`: what a published version of a model is, as a strict typed model.

Owns the format and its JSON Schema. Reads and writes no artifact; `catalog` holds a version's files against it.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError

from lockstep.server.core import labels as naming

MANIFEST_FILE = "manifest.json"
MODEL_NAME_PATTERN = r"^[A-Za-z0-9._-]+$"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RuntimeName = Literal["onnxruntime", "tensorflow", "torch"]
ArtifactKind = Annotated[str, StringConstraints(pattern=r"^(onnx|saved_model|torch)(-[a-z0-9]+)?$")]


class Strict(BaseModel):
    """Base of all manifest parts: immutable, no unknown field, no coercion of JSON types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tensor(Strict):
    """A tensor of the artifact by its name there."""

    name: str
    dtype: Literal["int64", "int32", "float32"]


class Inputs(Strict):
    """What the artifact is fed: ids `[batch, length]`, and a mask `[batch, length]` and/or lengths `[batch]`."""

    input_ids: Tensor
    attention_mask: Tensor | None = None
    lengths: Tensor | None = None


class Parity(Strict):
    """The report that let the artifact be published: artifact against source on held-out text."""

    rows: int  # rows of held-out text compared
    batches: int  # batches of the grid executed
    max_abs_diff: float  # largest |artifact - source| over all outputs
    padding_invariance: float  # largest |row in a batch - row alone|
    label_agreement: float  # share of rows with the source's label, 0..1
    atol: float | None = None  # the bound: |difference| <= atol + rtol * |source|; None: of a variant, see the next two
    rtol: float | None = None
    min_label_agreement: float | None = None  # the bounds of a variant, which answers about as its source
    max_accuracy_points: float | None = None  # percentage points of accuracy lost or won
    masks_beyond_end: bool  # random ids beyond each row's end changed nothing (False: mask is derived from ids)
    accuracy: float | None = None  # on labelled held-out rows; None where the rows had no labels
    source_accuracy: float | None = None
    accuracy_sentences: float | None = None
    cpu_ms_b1_t32: float | None = None  # worker CPU time of a batch of 1 row x 32 tokens, ms
    cpu_ms_b32_t64: float | None = None


class Artifact(Strict):
    """One exported form of the model."""

    kind: ArtifactKind
    runtime: RuntimeName
    path: str  # of the file or folder that the runtime loads, relative to the version's folder
    files: dict[str, Sha256]  # every file of the artifact, relative to the version's folder
    inputs: Inputs
    logits: Tensor  # the output tensor: float32[batch, labels], logits or probabilities by `output`
    output: Literal["logits", "probabilities"]
    activation: Literal["softmax", "sigmoid"]
    method: str  # how it was converted: "fused", "dynamo", "saved_model", "loop"
    recurrent_ops: dict[str, int] = Field(default_factory=dict)  # ONNX operator type -> count, e.g. {"LSTM": 1}
    parity: Parity


class Source(Strict):
    """Where the model came from."""

    framework: Literal["torch", "keras", "tf2", "tf1", "huggingface", "saved_model", "onnx"]
    layer: str
    sha256: Sha256  # over the source's files, so that an unchanged source need not be exported again
    versions: dict[str, str]  # package -> version, of the export
    accuracy_sentences: float | None = None


class Manifest(Strict):
    """One published version of a model."""

    format: Literal[1] = 1
    name: Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN)]
    version: Annotated[int, Field(ge=1)]
    labels: Annotated[list[str], Field(min_length=2)]
    pad_id: Annotated[int, Field(ge=0)]
    vocabulary: Annotated[int, Field(ge=1)]  # valid ids are 0 <= id < vocabulary
    max_tokens: Annotated[int, Field(ge=1)]
    truncation_side: Literal["right", "left"] = "right"  # where a text that is too long is cut: its end, its beginning
    tokenizer: dict[str, Sha256]  # the tokenizer's file, relative to the version's folder
    source: Source
    artifacts: Annotated[list[Artifact], Field(min_length=1)]
    refused: dict[str, str] = Field(default_factory=dict)  # artifact kind -> why the gate refused it

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: list[str]) -> list[str]:
        if fault := naming.fault(labels):
            raise PydanticCustomError("labels", "{fault}", {"fault": fault})
        return labels


def backend_name(artifact: Artifact) -> str:
    """Return the name of the backend that executes an artifact on the default device: `<runtime>[-<variant>]`."""
    return "-".join(filter(None, [artifact.runtime, artifact.kind.partition("-")[2]]))


if __name__ == "__main__":
    print(json.dumps(Manifest.model_json_schema(), indent=2))
