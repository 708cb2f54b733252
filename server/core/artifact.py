"""What a worker must know to load and run one artifact. Plain data that crosses a process border as JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of the artifact: its name there and its dtype."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class ArtifactSpec:
    """One artifact, ready to be loaded: an absolute path and the names and dtypes of its tensors."""

    path: str
    input_ids: TensorSpec
    attention_mask: TensorSpec | None
    lengths: TensorSpec | None
    logits: TensorSpec
    labels: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What a worker may use: threads of computation, and a device (`cpu` or `cuda:N`)."""

    threads: int = 1
    device: str = "cpu"
