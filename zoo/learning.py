"""What a family's training module promises, and what it is given.

Owns the shapes between `lockstep.zoo.train`, which knows no framework, and `zoo.<family>_training`, which knows one.
Each of those modules has a function

    learn(task: Task) -> Learned

that builds the entry's model, trains it by its recipe, writes TensorBoard events into `task.log`, and
returns the model with the weights of its best epoch on the validation sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lockstep.zoo.batches import Batch, Encoded, Texts
from lockstep.zoo.registry import Entry


class Report(Protocol):
    """Where a training says how far it is."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Say that a step is done; all are counted from 1, `loss` is the epoch's mean so far."""

    def epoch(self, epoch: int, loss: float, accuracy: float) -> None:
        """Say that an epoch is done, with its mean loss and the accuracy on the validation sentences."""


@dataclass(frozen=True, slots=True)
class Task:
    """One training: what is trained, on which texts, and where it says how far it is.

    `log` is the folder for TensorBoard's events; `pretrained` the checkpoint that the entry starts from.
    """

    entry: Entry
    texts: Texts
    report: Report
    log: Path
    pretrained: Path | None = None

    def build(self) -> Any:
        """Return the model that the entry's `package.module:function` builds; imports its framework.

        The function of an entry that starts from a pretrained checkpoint takes its folder; others take
        nothing.
        """
        build = self.build_function()
        return build() if self.pretrained is None else build(self.pretrained)

    def build_function(self) -> Callable[..., Any]:
        """Import the entry's `package.module:function`, and its framework with it."""
        function: Callable[..., Any] = getattr(import_module(self.entry.module), self.entry.function)
        return function

    @property
    def held_out(self) -> tuple[Encoded, ...]:
        """The sentences that choose the best epoch."""
        return sentences(self.texts.validation)


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained model, still in its framework.

    `scores` maps a batch to float32[batch, labels] without dropout: logits or probabilities, the greatest is
    the answer. `save` writes the weights into a folder and returns their path in it, as `description.json`
    names it.
    """

    parameters: int
    validation_accuracy: float
    scores: Callable[[Batch], NDArray[np.float32]]
    save: Callable[[Path], str]


Learn = Callable[[Task], Learned]


def sentences(rows: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
    """Return the single sentences among rows."""
    return tuple(row for row in rows if row.kind == "sentence")
