"""A server in simulation: the real policies on arrivals in virtual time. No clock, no process, no asyncio.

Event-driven: time goes from one instant at which a worker is free to the next. The queue is what the server's is: a
bounded view of arrays in order of arrival, and an arrival that finds it full is refused. A batch takes what the cost
table says, plus an overhead, perhaps with noise; the policy predicts the first two.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lockstep.server.scheduling.policy import Costs, Dispatch, Limits, Policy, WorkerView
from lockstep.server.scheduling.waiting import FREE, NO_DEADLINE_NS, Indices, Waiting

Nanoseconds = NDArray[np.int64]
NEVER_NS = np.iinfo(np.int64).max
_FIELDS = 6  # of `Waiting`


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Rows in order of arrival; arrays are [rows]."""

    at_ns: Nanoseconds
    length: NDArray[np.int64]  # tokens
    deadline_ns: Nanoseconds

    def __len__(self) -> int:
        return len(self.length)

    @classmethod
    def poisson(
        cls, lengths: NDArray[np.int64], rate: float, rows: int, seed: int, deadline_ms: float | None = None
    ) -> Arrivals:
        """Draw `rows` rows from `lengths` at random, `rate` of them a second."""
        random = np.random.default_rng(seed)
        at_ns = np.cumsum(random.exponential(1e9 / rate, rows)).astype(np.int64)
        drawn = random.choice(lengths, rows).astype(np.int64)
        return cls(at_ns, drawn, _deadlines(at_ns, deadline_ms))

    @classmethod
    def recorded(
        cls, at_s: Sequence[float], tokens: Sequence[int], speed: float = 1.0, deadline_ms: float | None = None
    ) -> Arrivals:
        """Take arrivals that happened, `speed` times as fast."""
        order = np.argsort(np.array(at_s), kind="stable")
        at_ns = (np.array(at_s)[order] * 1e9 / speed).astype(np.int64)
        return cls(at_ns, np.array(tokens, dtype=np.int64)[order], _deadlines(at_ns, deadline_ms))


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated."""

    policy: Policy
    limits: Limits
    cost_ns: Costs  # [rows, length] from 0
    workers: int = 2
    overhead_ns: int = 300_000  # of a batch: its way to the worker and back, and the plan
    noise: float = 0.0  # standard deviation of the logarithm of actual / predicted
    max_queue_rows: int = 4_096
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of every row; arrays are [rows], -1 where a row was refused."""

    arrivals: Arrivals
    start_ns: Nanoseconds
    end_ns: Nanoseconds
    batches: int
    padded_tokens: int
    times_served: NDArray[np.int64]

    @property
    def served(self) -> NDArray[np.bool_]:
        """Which rows were executed."""
        return self.times_served > 0

    @property
    def refused(self) -> int:
        """Rows that found the queue full."""
        return int(np.count_nonzero(~self.served))

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """Of the rows that were executed: from arrival to answer."""
        return (self.end_ns - self.arrivals.at_ns)[self.served] / 1e6

    @property
    def wait_ms(self) -> NDArray[np.float64]:
        """Of the rows that were executed: from arrival until their batch began."""
        return (self.start_ns - self.arrivals.at_ns)[self.served] / 1e6

    @property
    def rows_per_s(self) -> float:
        """Rows executed a second, from the first arrival to the last answer."""
        return int(np.count_nonzero(self.served)) / (int(self.end_ns.max()) - int(self.arrivals.at_ns[0])) * 1e9

    @property
    def padding(self) -> float:
        """Padded tokens / tokens."""
        return self.padded_tokens / int(self.arrivals.length[self.served].sum())


def simulate(arrivals: Arrivals, setting: Setting) -> Outcome:
    """Serve arrivals as they come; every row is executed once or refused."""
    return _Run(arrivals.at_ns.copy(), arrivals.length, arrivals.deadline_ns, setting).to_the_end(closed=False)


def saturate(lengths: NDArray[np.int64], rows: int, in_flight: int, setting: Setting) -> Outcome:
    """Keep `in_flight` rows waiting or executing, until `rows` were served: each answer brings the next row."""
    drawn = np.random.default_rng(setting.seed).choice(lengths, rows).astype(np.int64)
    at_ns = np.full(rows, NEVER_NS)
    at_ns[:in_flight] = 0
    return _Run(at_ns, drawn, np.full(rows, NO_DEADLINE_NS), setting).to_the_end(closed=True)


@dataclass(slots=True)
class _Queue:
    """Waiting rows in order of arrival, as the server's `WaitingRows` has them; a row is its own entry."""

    table: NDArray[np.int64]  # [fields, capacity]
    head: int = 0
    tail: int = 0

    def __len__(self) -> int:
        return self.tail - self.head

    def view(self) -> Waiting:
        return Waiting(*self.table[:, self.head : self.tail])

    def add(self, numbers: NDArray[np.int64], length: Nanoseconds, at_ns: Nanoseconds, due_ns: Nanoseconds) -> None:
        count = len(numbers)
        if self.tail + count > self.table.shape[1]:
            size = len(self)
            self.table[:, :size] = self.table[:, self.head : self.tail].copy()
            self.head, self.tail = 0, size
        span = slice(self.tail, self.tail + count)
        self.table[0, span], self.table[1, span], self.table[2, span] = length, at_ns, due_ns
        self.table[3, span], self.table[4, span], self.table[5, span] = 0, FREE, numbers
        self.tail += count

    def remove(self, rows: Indices) -> NDArray[np.int64]:
        taken: NDArray[np.int64] = self.table[5, self.head + rows]
        if int(rows.max()) + 1 == len(rows):  # the oldest: nothing moves
            self.head += len(rows)
            return taken
        kept = np.ones(len(self), dtype=bool)
        kept[rows] = False
        span, remaining = slice(self.head, self.tail), len(self) - len(rows)
        self.table[:, self.head : self.head + remaining] = self.table[:, span][:, kept]
        self.tail = self.head + remaining
        return taken


@dataclass(slots=True)
class _Run:
    """A simulation under way."""

    at_ns: Nanoseconds
    length: NDArray[np.int64]
    deadline_ns: Nanoseconds
    setting: Setting
    queue: _Queue = field(init=False)
    arrived: int = 0  # rows that were admitted or refused
    announced: int = 0  # rows whose arrival is known

    def __post_init__(self) -> None:
        capacity = 2 * self.setting.max_queue_rows + 64
        self.queue = _Queue(np.zeros((_FIELDS, capacity), dtype=np.int64))
        self.announced = int(np.count_nonzero(self.at_ns < NEVER_NS))

    def to_the_end(self, *, closed: bool) -> Outcome:
        setting, rows = self.setting, len(self.length)
        worker = WorkerView(0, True, setting.cost_ns, overhead_ns=float(setting.overhead_ns))
        random = np.random.default_rng(setting.seed)
        start_ns, end_ns = np.full(rows, -1, dtype=np.int64), np.full(rows, -1, dtype=np.int64)
        times_served = np.zeros(rows, dtype=np.int64)
        batches = padded_tokens = 0
        # (instant at which it is free, worker, rows whose answers come then)
        free = [(0, number, 0) for number in range(setting.workers)]
        while free:
            now_ns, number, answered = heapq.heappop(free)
            if closed and answered:
                self._announce(answered, now_ns)
            self._admit(now_ns)
            if not len(self.queue):
                if self.arrived < self.announced:
                    heapq.heappush(free, (int(self.at_ns[self.arrived]), number, 0))
                elif closed and self.announced < rows and free:
                    heapq.heappush(free, (free[0][0], number, 0))  # another worker's answers bring rows
                continue
            plan = setting.policy(self.queue.view(), now_ns, worker, setting.limits)
            if not isinstance(plan, Dispatch):
                until_ns = plan.until_ns if plan.until_ns is not None else NEVER_NS
                if self.arrived < self.announced:
                    until_ns = min(until_ns, int(self.at_ns[self.arrived]))
                if until_ns == NEVER_NS:
                    raise RuntimeError("the policy waits for ever")
                heapq.heappush(free, (max(now_ns + 1, until_ns), number, 0))
                continue
            worker = replace(worker, planned=plan.planned)
            taken = self.queue.remove(plan.rows)
            longest = int(self.length[taken].max())
            took_ns = float(setting.cost_ns[len(taken), longest])
            if setting.noise:
                took_ns *= float(np.exp(setting.noise * random.standard_normal()))
            done_ns = now_ns + setting.overhead_ns + int(took_ns)
            start_ns[taken], end_ns[taken] = now_ns, done_ns
            times_served[taken] += 1
            batches += 1
            padded_tokens += len(taken) * longest
            heapq.heappush(free, (done_ns, number, len(taken)))
        arrivals = Arrivals(self.at_ns, self.length, self.deadline_ns)
        return Outcome(arrivals, start_ns, end_ns, batches, padded_tokens, times_served)

    def _announce(self, count: int, now_ns: int) -> None:
        until = min(len(self.length), self.announced + count)
        self.at_ns[self.announced : until] = now_ns
        self.announced = until

    def _admit(self, now_ns: int) -> None:
        """Queue the rows that arrived by now; those that find the queue full are refused."""
        until = int(np.searchsorted(self.at_ns[self.arrived : self.announced], now_ns, side="right")) + self.arrived
        room = self.setting.max_queue_rows - len(self.queue)
        admitted = min(until, self.arrived + room)
        if admitted > self.arrived:
            span = slice(self.arrived, admitted)
            self.queue.add(
                np.arange(self.arrived, admitted), self.length[span], self.at_ns[span], self.deadline_ns[span]
            )
        self.arrived = until


def _deadlines(at_ns: Nanoseconds, deadline_ms: float | None) -> Nanoseconds:
    if deadline_ms is None:
        return np.full(len(at_ns), NO_DEADLINE_NS)
    deadlines: Nanoseconds = at_ns + int(deadline_ms * 1e6)
    return deadlines
