"""What backends did recently: rows, tokens, and every phase's durations by length, over a window that moves.

It is told of every row on the event loop that answers them, so it only notes their instants, in columns, and counts
them a thousand rows at a time. Time is cut into slots of five seconds, kept as long as the longest window; the clock is
the instants of the rows themselves. Makes no report: `latency` does.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.errors import LockstepError
from lockstep.server.core.lengths import LENGTH_BUCKETS
from lockstep.server.core.messages import Answer, BatchFacts, Prediction
from lockstep.server.core.timing import Phases, now_ns
from lockstep.server.histogram import Histogram

PHASES = (*Phases._fields, "request")
"""Those of a row's life, and all of them together."""

SLOT_NS = 5_000_000_000
MOST_WINDOW_S = 600.0
_MOST_SLOTS = int(MOST_WINDOW_S * 1e9) // SLOT_NS + 1
_COUNT_AT_ROWS = 4096
LENGTHS = len(LENGTH_BUCKETS) + 1
_GROUPS = len(PHASES) * LENGTHS  # phase by phase, in each the lengths, as the durations of `Work` are
_QUEUE_TO_RESPOND, _DECODE_TOKENIZE_REQUEST = np.arange(2, 7), np.array([0, 1, 7])  # of PHASES


@dataclass(slots=True)
class Work:
    """What a backend did."""

    rows: int = 0
    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    cpu_ns: int = 0  # of workers, executing
    durations: Histogram = field(default_factory=lambda: Histogram(_GROUPS))

    def merge(self, other: Work) -> None:
        """Add another's."""
        self.rows += other.rows
        self.batches += other.batches
        self.tokens += other.tokens
        self.padded_tokens += other.padded_tokens
        self.cpu_ns += other.cpu_ns
        self.durations.merge(other.durations)


class _Columns:
    """Instants and lengths of rows that are not counted yet."""

    __slots__ = ("arrivals", "batch_rows", "batch_times", "lengths", "of_calls")

    def __init__(self) -> None:
        self.batch_rows = array("q")
        self.batch_times = array("q")  # five instants a batch
        self.lengths = array("q")  # one a row that was executed, as
        self.arrivals = array("q")
        self.of_calls = array("q")  # five numbers a row that was answered

    def count(self, durations: Histogram) -> None:
        """Count everything that was noted."""
        times = np.repeat(np.array(self.batch_times).reshape(-1, 5), np.array(self.batch_rows), axis=0)
        calls = np.array(self.of_calls).reshape(-1, 5)  # [row, (received, decoded, tokenized, responded, length)]
        executed = _groups(_QUEUE_TO_RESPOND, np.array(self.lengths))
        answered = _groups(_DECODE_TOKENIZE_REQUEST, calls[:, 4])
        waited = times[:, 0] - np.array(self.arrivals)
        stayed = calls[:, 3] - calls[:, 0]
        durations.add(
            np.concatenate([executed.ravel(), answered.ravel()]),
            np.concatenate([waited, *np.diff(times.T, axis=0), *np.diff(calls.T[:3], axis=0), stayed]),
        )


def _groups(phases: NDArray[np.int64], length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group `[phase, row]` of rows of these lengths in each of the phases."""
    groups: NDArray[np.int64] = phases[:, np.newaxis] * LENGTHS + np.searchsorted(LENGTH_BUCKETS, length)
    return groups


class _Ring:
    """One backend's recent work, slot by slot."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, Work]] = deque()
        self._columns = _Columns()
        self._noted = 0  # rows in the columns

    @property
    def newest(self) -> int:
        """The slot of what was noted last."""
        return self._slots[-1][0]

    def batch(self, slot: int, batch: BatchFacts) -> None:
        """Note an executed batch."""
        work = self.at(slot)
        work.rows += batch.rows
        work.batches += 1
        work.tokens += batch.tokens
        work.padded_tokens += batch.padded_tokens
        work.cpu_ns += batch.cpu_ns
        columns = self._columns
        columns.batch_rows.append(batch.rows)
        columns.batch_times.extend(batch.times)
        columns.lengths.extend(batch.lengths)
        columns.arrivals.extend(batch.arrivals_ns)
        self._noted += batch.rows
        if self._noted >= _COUNT_AT_ROWS:
            self._count()

    def answered(self, prediction: Prediction, answer: Answer) -> None:
        """Note a row of an answered call, of a slot that has begun."""
        self._columns.of_calls.extend(
            (
                prediction.received_ns,
                prediction.decoded_ns,
                prediction.tokenized_ns,
                answer.batch.times.responded_ns,
                len(answer.encoding.ids),
            )
        )
        self._noted += 1
        if self._noted >= _COUNT_AT_ROWS:
            self._count()

    def since(self, slot: int) -> Work:
        """Return the sum of the slots from this one on."""
        self._count()
        total = Work()
        for number, work in self._slots:
            if number >= slot:
                total.merge(work)
        return total

    def at(self, slot: int) -> Work:
        """Return the work of a slot; what comes late, by an instant that another worker took, counts for the newest."""
        slots = self._slots
        if not slots or slot > slots[-1][0]:
            if slots:
                self._count()
                slots[-1][1].durations.compact()
            slots.append((slot, Work()))
            while slots[0][0] <= slot - _MOST_SLOTS - 1:
                slots.popleft()
        return slots[-1][1]

    def _count(self) -> None:
        if self._noted:
            self._columns.count(self._slots[-1][1].durations)
            self._columns, self._noted = _Columns(), 0


class Recent:
    """Observes the server; keeps what every backend did within the longest window."""

    def __init__(
        self, *, clock_ns: Callable[[], int] = now_ns, gateway_cpu_ns: Callable[[], int] = time.process_time_ns
    ) -> None:
        self.clock_ns = clock_ns
        self.gateway_cpu_ns = gateway_cpu_ns
        self.began_ns = clock_ns()
        self._rings: dict[tuple[str, int, str], _Ring] = {}
        self._newest = -1
        self._batch: BatchFacts | None = None  # whose rows were noted last,
        self._of_batch = _Ring()  # and where
        self._cpu_at: deque[tuple[int, int]] = deque(
            maxlen=_MOST_SLOTS + 1
        )  # (slot, gateway's CPU ns at its first row)

    def batch_executed(self, model: str, version: int, batch: BatchFacts) -> None:
        """Note a batch that completed."""
        slot = batch.times.responded_ns // SLOT_NS
        if slot > self._newest:
            self._slot_began(slot)
        self._ring(model, version, batch.backend).batch(slot, batch)

    def call_finished(self, prediction: Prediction, last: Answer | None, phases: Phases | None) -> None:
        """Note the rows of an answered call."""
        if last is None:
            return
        for answer in prediction.outcomes:
            if isinstance(answer, LockstepError):
                continue
            if answer.batch is not self._batch:
                self._turn_to(prediction, answer.batch)
            self._of_batch.answered(prediction, answer)

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Leave these to the metrics: no row was answered."""

    def row_failed(self, model: str, version: int, backend: str | None, error: LockstepError) -> None:
        """Leave these to the metrics."""

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Leave these to the metrics."""

    def limit_reached(self, limit: str) -> None:
        """Leave these to the metrics."""

    def since(self, slot: int, model: str, version: int, backend: str) -> Work:
        """Return what a backend did from a slot on."""
        ring = self._rings.get((model, version, backend))
        return Work() if ring is None else ring.since(slot)

    def gateway_cpu_since(self, slot: int) -> int:
        """Return the gateway's CPU time since the first row that was noted from a slot on, ns; 0 where none was."""
        then_ns = next((cpu_ns for at, cpu_ns in self._cpu_at if at >= slot), None)
        return 0 if then_ns is None else self.gateway_cpu_ns() - then_ns

    def _turn_to(self, prediction: Prediction, batch: BatchFacts) -> None:
        """Find where the rows of a batch are noted, once for those that come together: it takes longer than noting."""
        slot = batch.times.responded_ns // SLOT_NS
        if slot > self._newest:
            self._slot_began(slot)
        self._batch, self._of_batch = batch, self._ring(prediction.model, prediction.version, batch.backend)
        self._of_batch.at(slot)

    def _ring(self, model: str, version: int, backend: str) -> _Ring:
        key = (model, version, backend)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = _Ring()
        return ring

    def _slot_began(self, slot: int) -> None:
        self._newest = slot
        self._cpu_at.append((slot, self.gateway_cpu_ns()))
        # backends that are gone, and versions that were replaced
        self._rings = {key: ring for key, ring in self._rings.items() if ring.newest > slot - _MOST_SLOTS}
