"""What a load test saw: counters that add up. Knows no clock; instants are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from clients.errors import status_of
from clients.loadtest.latency import Latencies
from protos import sentiment_pb2 as wire

PHASES: Final = ("decode", "tokenize", "queue", "pad", "transfer", "execute", "respond")

LENGTH_EDGES: Final = (16, 32, 64, 128, 256, 512)
"""Upper ends of the length buckets, tokens; a last bucket holds what is longer."""

NOT_SENT: Final = "NOT_SENT"
"""Counted among the errors: calls that the generator had no room to send."""


def length_bucket(tokens: int) -> int:
    """Return the index of the bucket that holds a text of so many tokens."""
    for index, edge in enumerate(LENGTH_EDGES):
        if tokens <= edge:
            return index
    return len(LENGTH_EDGES)


def length_label(bucket: int) -> str:
    """Name a bucket for people: "17-32"."""
    if bucket == len(LENGTH_EDGES):
        return f"> {LENGTH_EDGES[-1]}"
    return f"{LENGTH_EDGES[bucket - 1] + 1 if bucket else 1}-{LENGTH_EDGES[bucket]}"


@dataclass(slots=True)
class Tally:
    """One leg's counters, or several legs' after `add`. Mutable until it is read.

    Latency, errors and what answers tell are of the calls *meant to start* inside the window,
    however late they ended; `completed_rows` are those *answered* inside it, whenever they started.
    In a steady state the two rates agree; where the server falls behind, they part.
    """

    window_s: float = 0.0
    offered_rows: int = 0  # meant to start inside the window
    completed_rows: int = 0  # answered inside the window
    calls: int = 0  # answered
    rows: int = 0  # answered
    errors: Counter[str] = field(default_factory=Counter)  # rows by status
    latency: Latencies = field(default_factory=Latencies)  # of calls
    send_lag: Latencies = field(default_factory=Latencies)  # from the intended start to the sending
    by_length: dict[int, Latencies] = field(default_factory=dict)  # of rows, by bucket
    tokens: int = 0
    padded_tokens: int = 0
    batches: float = 0.0  # each row is this part of its batch: they add up to the batches
    truncated_rows: int = 0
    phases_us: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    generator_cpu_s: float = 0.0
    generator_wall_s: float = 0.0

    def offer(self, rows: int, *, lag_s: float) -> None:
        """Count a call that is being sent, `lag_s` after it was meant to."""
        self.offered_rows += rows
        self.send_lag.record(lag_s)

    def refuse(self, rows: int) -> None:
        """Count a call that was due but could not be sent."""
        self.offered_rows += rows
        self.errors[NOT_SENT] += rows

    def fail(self, rows: int, status: str) -> None:
        """Count a call that failed as a whole."""
        self.errors[status] += rows

    def answer(self, response: wire.ClassifyResponse, *, latency_s: float) -> int:
        """Count an answered call row by row; returns how many rows were answered without error."""
        answered = 0
        for result in response.results:
            if result.HasField("error"):
                self.errors[status_of(result.error.code).name] += 1
                continue
            answered += 1
            self._row(result.prediction, latency_s)
        if answered:
            self.calls += 1
            self.rows += answered
            self.latency.record(latency_s)
        return answered

    def _row(self, prediction: wire.Prediction, latency_s: float) -> None:
        bucket = length_bucket(prediction.tokens)
        latencies = self.by_length.get(bucket)
        if latencies is None:
            latencies = self.by_length[bucket] = Latencies()
        latencies.record(latency_s)
        self.tokens += prediction.tokens
        self.padded_tokens += prediction.batch_tokens
        self.truncated_rows += prediction.truncated
        if prediction.batch_rows:
            self.batches += 1 / prediction.batch_rows
        phases, sums = prediction.phases, self.phases_us
        sums["decode"] += phases.decode_us
        sums["tokenize"] += phases.tokenize_us
        sums["queue"] += phases.queue_us
        sums["pad"] += phases.pad_us
        sums["transfer"] += phases.transfer_us
        sums["execute"] += phases.execute_us
        sums["respond"] += phases.respond_us

    def add(self, other: Tally) -> None:
        """Add another leg's counters."""
        self.window_s += other.window_s
        self.offered_rows += other.offered_rows
        self.completed_rows += other.completed_rows
        self.calls += other.calls
        self.rows += other.rows
        self.errors.update(other.errors)
        self.latency.merge(other.latency)
        self.send_lag.merge(other.send_lag)
        for bucket, latencies in other.by_length.items():
            self.by_length.setdefault(bucket, Latencies()).merge(latencies)
        self.tokens += other.tokens
        self.padded_tokens += other.padded_tokens
        self.batches += other.batches
        self.truncated_rows += other.truncated_rows
        for phase, total_us in other.phases_us.items():
            self.phases_us[phase] += total_us
        self.generator_cpu_s += other.generator_cpu_s
        self.generator_wall_s += other.generator_wall_s
