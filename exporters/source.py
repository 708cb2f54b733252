"""What a source is: a trained model in its own framework, described by data.

The only module of `exporters` that a model's author may import (the zoo does, as any user would).
Knows no framework and no model.
"""

from __future__ import annotations

import codecs
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lockstep.server.core import labels as naming


class Framework(StrEnum):
    """The framework that a source was trained in."""

    TORCH = "torch"
    KERAS = "keras"
    TF2 = "tf2"
    TF1 = "tf1"
    HUGGINGFACE = "huggingface"
    SAVED_MODEL = "saved_model"
    ONNX = "onnx"


Role = Literal["input_ids", "attention_mask", "lengths", "logits"]
"""What a tensor of a model file may be."""


Output = Literal["logits", "probabilities"]
Activation = Literal["softmax", "sigmoid"]


class Description(BaseModel):
    """`description.json`: what the files of a source do not say by themselves.

    Paths are relative to the folder that holds the description. `build` is `package.module:function`
    and runs the author's own code; `weights` is its `.safetensors` (torch), `.keras` (keras),
    checkpoint prefix (tf1, tf2), checkpoint folder (huggingface), SavedModel folder or `.onnx` file. A model
    file made elsewhere may name its tensors anyhow: `tensors` says which is which where it cannot be found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    framework: Framework
    layer: str  # the kind of layer in a word or two, for people: "BiLSTM", "Transformer"
    labels: tuple[str, ...] = ()  # in the order of the outputs; huggingface: none for those of its configuration
    tokenizer: str
    weights: str
    build: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    output: Output | None = None  # None: found, in what the source ends in and in what it answers
    activation: Activation | None = None
    tensors: dict[Role, str] = {}
    signature: str = "serving_default"  # of a SavedModel

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if fault := naming.fault(labels):
            raise PydanticCustomError("labels", "{fault}", {"fault": fault})
        return labels

    @model_validator(mode="after")
    def _labels_are_named(self) -> Description:
        if len(self.labels) < 2 and self.framework is not Framework.HUGGINGFACE:
            raise ValueError(f"name at least two labels, in the order of the outputs ({len(self.labels)} named)")
        return self

    @classmethod
    def read(cls, path: Path) -> Description:
        """Read a `description.json`; raises `pydantic.ValidationError` naming the field at fault."""
        return cls.model_validate_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
