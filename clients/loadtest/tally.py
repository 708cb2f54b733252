"""What a load test saw: counters that add up. Knows no clock; instants are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from lockstep.clients.errors import status_of
from lockstep.clients.loadtest.latency_histogram import Latencies
from lockstep.protos import sentiment_pb2 as wire

PHASES: Final = ("decode", "tokenize", "queue", "pad", "transfer", "execute", "respond")

LENGTH_EDGES: Final = (16, 32, 64, 128, 256, 512)
"""Upper ends of the length buckets, tokens; a last bucket holds what is longer."""

NOT_SENT: Final = "NOT_SENT"
"""Counted among the errors: calls that the generator had no room to send."""

BEHIND: Final = "GENERATOR_BEHIND"
"""Counted among the errors: calls that were due when the generator, far behind, ended the leg."""


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


SLICE_S: Final = 0.5
MOST_SLICES: Final = 120


def slice_s(window_s: float) -> float:
    """Return how long a slice of the timeline of such a window is: a window has 120 at most."""
    return max(SLICE_S, window_s / MOST_SLICES)


@dataclass(slots=True)
class Slice:
    """A short stretch of the window: what became of the calls that were meant to start in it."""

    calls: int = 0  # answered
    rows: int = 0  # answered
    failed_rows: int = 0
    sum_s: float = 0.0  # of the calls' latencies
    max_s: float = 0.0

    def add(self, other: Slice) -> None:
        """Add another's calls."""
        self.calls += other.calls
        self.rows += other.rows
        self.failed_rows += other.failed_rows
        self.sum_s += other.sum_s
        self.max_s = max(self.max_s, other.max_s)


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
    slices: dict[int, Slice] = field(default_factory=dict)  # by number from the window's start
    generator_cpu_s: float = 0.0  # of all generators
    generator_wall_s: float = 0.0  # of all generators: each has a core's worth a second, having one event loop

    def offer(self, rows: int, *, lag_s: float) -> None:
        """Count a call that is being sent, `lag_s` after it was meant to."""
        self.offered_rows += rows
        self.send_lag.record(lag_s)

    def refuse(self, rows: int, why: str = NOT_SENT) -> None:
        """Count rows that were due but could not be sent."""
        self.offered_rows += rows
        self.errors[why] += rows

    def fail(self, rows: int, status: str, *, slice_: int = 0) -> None:
        """Count a call that failed as a whole."""
        self.errors[status] += rows
        self._slice(slice_).failed_rows += rows

    def answer(self, response: wire.ClassifyResponse, *, latency_s: float, slice_: int = 0) -> int:
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
        failed = len(response.results) - answered
        self._slice(slice_).add(
            Slice(1, answered, failed, latency_s, latency_s) if answered else Slice(failed_rows=failed)
        )
        return answered

    def _slice(self, number: int) -> Slice:
        found = self.slices.get(number)
        if found is None:
            found = self.slices[number] = Slice()
        return found

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
        """Add another leg's counters; its slices are not of the same window, and are left out."""
        window_s, slices = self.window_s + other.window_s, self.slices
        self.slices = {}
        self.join(other)
        self.window_s, self.slices = window_s, slices

    def join(self, other: Tally) -> None:
        """Add what another generator saw of the same leg."""
        self.window_s = max(self.window_s, other.window_s)
        for number, found in other.slices.items():
            self._slice(number).add(found)
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

    def encode(self) -> dict[str, Any]:
        """Return everything as plain JSON values; histograms in HdrHistogram's own format."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "errors": dict(self.errors),
            "phases_us": dict(self.phases_us),
            "latency": self.latency.encode(),
            "send_lag": self.send_lag.encode(),
            "by_length": {str(bucket): latencies.encode() for bucket, latencies in self.by_length.items()},
            "slices": {str(number): asdict(found) for number, found in self.slices.items()},
        }

    @classmethod
    def decode(cls, document: Mapping[str, Any]) -> Self:
        """Read what `encode` wrote."""
        return cls(
            **{name: document[name] for name in _PLAIN},
            errors=Counter(document["errors"]),
            phases_us=dict(document["phases_us"]),
            latency=Latencies.decode(document["latency"]),
            send_lag=Latencies.decode(document["send_lag"]),
            by_length={int(bucket): Latencies.decode(encoded) for bucket, encoded in document["by_length"].items()},
            slices={int(number): Slice(**found) for number, found in document["slices"].items()},
        )


_PLAIN: Final = (
    "window_s",
    "offered_rows",
    "completed_rows",
    "calls",
    "rows",
    "tokens",
    "padded_tokens",
    "batches",
    "truncated_rows",
    "generator_cpu_s",
    "generator_wall_s",
)
