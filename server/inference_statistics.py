"""Cumulative counts of each model and backend, as Open Inference's statistics define them.

inference_count is rows, execution_count batches that completed, success.count calls. A call's durations are
those of its row that finished last, and it counts for the backend that executed that row. A model's figures
are the sums over its backends; calls that failed before they had a backend count for the model alone.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field

from lockstep.server.core.errors import LockstepError
from lockstep.server.core.messages import Answer, BatchFacts, Prediction
from lockstep.server.core.timing import Phases


@dataclass(slots=True)
class Duration:
    """How often, and how long in total."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Count occurrences that took `ns` together."""
        self.count += count
        self.ns += ns

    def merge(self, other: Duration) -> None:
        """Add another's counts."""
        self.add(other.ns, other.count)


@dataclass(slots=True)
class BatchSize:
    """The batches of one size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Counts:
    """What one backend of a model, or a model, has done since the server started."""

    rows: int = 0
    batches: int = 0
    abandoned: int = 0  # executions that did not complete
    tokens: int = 0
    padded_tokens: int = 0
    cpu_ns: int = 0  # of workers, executing
    last_inference_ms: int = 0  # since the epoch
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    sizes: defaultdict[int, BatchSize] = field(default_factory=lambda: defaultdict(BatchSize))

    def merge(self, other: Counts) -> None:
        """Add another's counts."""
        for name in ("rows", "batches", "abandoned", "tokens", "padded_tokens", "cpu_ns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_inference_ms = max(self.last_inference_ms, other.last_inference_ms)
        for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"):
            getattr(self, name).merge(getattr(other, name))
        for rows, size in other.sizes.items():
            mine = self.sizes[rows]
            mine.compute_input.merge(size.compute_input)
            mine.compute_infer.merge(size.compute_infer)
            mine.compute_output.merge(size.compute_output)


class Statistics:
    """Observes the server and keeps the counts."""

    def __init__(self) -> None:
        self._backends: defaultdict[tuple[str, int, str | None], Counts] = defaultdict(Counts)

    def backend(self, model: str, version: int, backend: str) -> Counts:
        """Return the counts of one backend."""
        return self._backends.get((model, version, backend), Counts())

    def model(self, model: str, version: int) -> Counts:
        """Return the sums over a model's backends."""
        total = Counts()
        for (name, number, _), counts in self._backends.items():
            if (name, number) == (model, version):
                total.merge(counts)
        return total

    def batch_executed(self, model: str, version: int, batch: BatchFacts) -> None:
        """Count a batch and its rows."""
        counts = self._backends[model, version, batch.backend]
        counts.rows += batch.rows
        counts.batches += 1
        counts.tokens += batch.tokens
        counts.padded_tokens += batch.padded_tokens
        counts.cpu_ns += batch.cpu_ns
        counts.last_inference_ms = time.time_ns() // 1_000_000
        times = batch.times
        size = counts.sizes[batch.rows]
        size.compute_input.add(times.execute_start_ns - times.dispatched_ns)
        size.compute_infer.add(times.execute_end_ns - times.execute_start_ns)
        size.compute_output.add(times.responded_ns - times.execute_end_ns)

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Count an execution that did not complete."""
        self._backends[model, version, backend].abandoned += 1

    def row_failed(self, model: str, version: int, backend: str | None, error: LockstepError) -> None:
        """Rows are counted by their batches."""

    def call_finished(self, prediction: Prediction, last: Answer | None, phases: Phases | None) -> None:
        """Count a call by the row of it that finished last."""
        if last is None or phases is None:
            elapsed_ns = prediction.tokenized_ns - prediction.received_ns
            self._backends[prediction.model, prediction.version, prediction.backend].fail.add(elapsed_ns)
            return
        counts = self._backends[prediction.model, prediction.version, last.batch.backend]
        counts.success.add(last.batch.times.responded_ns - prediction.received_ns)
        counts.queue.add(phases.queue)
        counts.compute_input.add(phases.pad + phases.transfer)
        counts.compute_infer.add(phases.execute)
        counts.compute_output.add(phases.respond)

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Count a call that failed as a whole; one that names no served model is nobody's."""
        if model:
            self._backends[model, version, backend].fail.add(elapsed_ns)

    def limit_reached(self, limit: str) -> None:
        """Leave these to the metrics."""
