"""What the server tells those who count: metrics and statistics implement `Observer`."""

from __future__ import annotations

from typing import Protocol

from lockstep.server.core.errors import LockstepError
from lockstep.server.core.messages import Answer, BatchFacts, Prediction
from lockstep.server.core.timing import Phases


class Observer(Protocol):
    """Learns of every event once, as it happens; must be quick and must not raise."""

    def batch_executed(self, model: str, version: int, batch: BatchFacts) -> None:
        """Take note of a batch that completed."""

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Take note of an execution that did not complete: its worker died or the runtime refused it."""

    def row_failed(self, model: str, version: int, backend: str | None, error: LockstepError) -> None:
        """Take note of a queued row that was not answered; `backend` is what it was pinned to, if any."""

    def call_finished(self, prediction: Prediction, last: Answer | None, phases: Phases | None) -> None:
        """Take note of a call that was answered row by row; `last` and its phases: of its row that finished last."""

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Take note of a call that failed as a whole, with an error of that kind."""

    def limit_reached(self, limit: str) -> None:
        """Take note of a call, message, row or stream that a limit refused, by the configuration's name of it."""


class Observers:
    """Tells several observers."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def batch_executed(self, model: str, version: int, batch: BatchFacts) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.batch_executed(model, version, batch)

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.batch_abandoned(model, version, backend)

    def row_failed(self, model: str, version: int, backend: str | None, error: LockstepError) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.row_failed(model, version, backend, error)

    def call_finished(self, prediction: Prediction, last: Answer | None, phases: Phases | None) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.call_finished(prediction, last, phases)

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.call_failed(model, version, backend, kind, elapsed_ns)

    def limit_reached(self, limit: str) -> None:
        """Tell each."""
        for observer in self._observers:
            observer.limit_reached(limit)
