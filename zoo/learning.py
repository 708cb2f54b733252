"""What a family's training module promises, and what it is given.

Owns the two shapes between `zoo.train`, which knows no framework, and `zoo.<family>_training`, which knows
one. Each of those modules has a function

    learn(entry: Entry, texts: Texts, report: Report, log: Path) -> Learned

that builds the entry's model, trains it by its recipe, writes TensorBoard events into `log`, and returns
the model with the weights of its best epoch on the validation sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.batches import Batch, Encoded, Texts
from zoo.registry import Entry


class Report(Protocol):
    """Where a training says how far it is."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Say that a step is done; all are counted from 1, `loss` is the epoch's mean so far."""

    def epoch(self, epoch: int, loss: float, accuracy: float) -> None:
        """Say that an epoch is done, with its mean loss and the accuracy on the validation sentences."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A trained model, still in its framework.

    `logits` maps a batch to float32[batch, labels] without dropout; `save` writes the weights into a folder
    and returns their path in it, as `description.json` names it.
    """

    parameters: int
    validation_accuracy: float
    logits: Callable[[Batch], NDArray[np.float32]]
    save: Callable[[Path], str]


Learn = Callable[[Entry, Texts, Report, Path], Learned]


def sentences(rows: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
    """Return the single sentences among rows."""
    return tuple(row for row in rows if row.kind == "sentence")


def built(entry: Entry) -> Any:
    """Return the untrained model that the entry's `package.module:function` builds; imports its framework."""
    return getattr(import_module(entry.module), entry.build.partition(":")[2])()
