"""The types that pass between the layers of the server. No framework, no protobuf, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.errors import InvalidInput, LockstepError
from lockstep.server.core.timing import BatchTimes, Phases, phases_of

Ids = NDArray[np.int64]  # int64[length], one row


@dataclass(frozen=True, slots=True)
class Encoding:
    """A row that is ready to be executed: validated ids within the model's maximum."""

    ids: Ids  # int64[length], 1 <= length <= max tokens
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Rows of unequal length as one rectangle."""

    ids: NDArray[np.int64]  # int64[batch, length], right-padded with the pad id
    lengths: NDArray[np.int64]  # int64[batch]

    @property
    def rows(self) -> int:
        """Rows executed together."""
        return int(self.ids.shape[0])

    @property
    def length(self) -> int:
        """The longest row, tokens: what every row is padded to."""
        return int(self.ids.shape[1])


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What a caller names: a model, perhaps a version of it, perhaps a backend to pin the rows to."""

    model: str
    version: int | None = None
    backend: str | None = None

    @classmethod
    def parse(cls, name: str, version: int | None = None) -> ModelRef:
        """Read `<model>` or `<model>@<backend>`; raises `InvalidInput` where no backend follows the `@`."""
        model, at, backend = name.partition("@")
        if at and not backend:
            raise InvalidInput(f"{name!r} names no backend after the @: send <model>, or <model>@<backend>")
        return cls(model, version, backend or None)

    def __str__(self) -> str:
        return f"{self.model}@{self.backend}" if self.backend else self.model


@dataclass(frozen=True, slots=True)
class PredictRequest:
    """Rows to be answered: texts, or ids that the caller tokenised."""

    ref: ModelRef
    rows: Sequence[str] | Sequence[Ids]
    received_ns: int
    decoded_ns: int
    truncate: bool = False
    priority: int = 0  # higher goes first
    deadline_ns: int | None = None  # monotonic
    all_or_none: bool = False  # fail the call, naming the first bad row, instead of answering row by row


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What the rows of an executed batch share."""

    backend: str
    rows: int  # executed together
    length: int  # tokens, the longest row
    tokens: int  # without padding
    lengths: Sequence[int]  # [rows], tokens
    arrivals_ns: Sequence[int]  # [rows], the instant that each began to queue
    times: BatchTimes
    cpu_ns: int  # the worker's CPU time of the execution
    predicted_ratio: float | None  # predicted / actual cost, where one was predicted

    @property
    def padded_tokens(self) -> int:
        """What the runtime computed: rows x longest length."""
        return self.rows * self.length


class Answer(NamedTuple):
    """One answered row."""

    label: int  # index of the most probable label
    probabilities: Sequence[float]  # [labels]
    encoding: Encoding
    batch: BatchFacts


Outcome = Answer | LockstepError
"""What became of a row."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A call's outcomes, one for each row, in order."""

    model: str
    version: int
    backend: str | None  # what the call was pinned to
    labels: tuple[str, ...]
    received_ns: int
    decoded_ns: int
    tokenized_ns: int
    outcomes: Sequence[Outcome]

    def phases(self, answer: Answer) -> Phases:
        """Return the phases of one of its answered rows."""
        return phases_of(self.received_ns, self.decoded_ns, self.tokenized_ns, answer.batch.times)

    def last(self) -> Answer | None:
        """Return the answered row that finished last: a call's phases are its phases."""
        if len(self.outcomes) == 1:
            outcome = self.outcomes[0]
            return outcome if isinstance(outcome, Answer) else None
        answers = (outcome for outcome in self.outcomes if isinstance(outcome, Answer))
        return max(answers, key=lambda answer: answer.batch.times.responded_ns, default=None)
