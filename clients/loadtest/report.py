"""What a load test found: frozen data, its JSON, and how it is computed from tallies. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lockstep.clients.loadtest.ceiling import NEAR, Ceiling
from lockstep.clients.loadtest.document import DocumentInvalid, from_document, to_document
from lockstep.clients.loadtest.environment import Environment
from lockstep.clients.loadtest.interval import Interval, interval_of
from lockstep.clients.loadtest.latency_histogram import Latencies
from lockstep.clients.loadtest.metrics_scrape import CostReport, Spent
from lockstep.clients.loadtest.plan import FREE, LoadPlan
from lockstep.clients.loadtest.tally import BEHIND, Tally, length_label, slice_s
from lockstep.clients.results import ModelStatistics

Purpose = Literal["run", "sweep", "search"]
"""A load by itself, one of a sweep, or one that a search for a target tried."""

FORMAT: Final = 2
"""Of the JSON file; a reader refuses another."""

BUSY_CPU_SHARE: Final = 0.85
"""Of a core, by each generator process: above it the generators, with one event loop each, were likely measured."""

LATE_SHARE: Final = 0.10
LATE_MS: Final = 1.0
"""Sending late by more than both (a tenth of the p99 latency; 1 ms) says more of the generator than the server."""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Of calls answered without error, milliseconds; `histogram` holds all of it (HdrHistogram V2, base64)."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    histogram: str

    @classmethod
    def of(cls, latencies: Latencies) -> LatencySummary:
        """Summarise; zeros where nothing was recorded."""
        p50, p90, p95, p99, p999 = latencies.percentiles_ms([50, 90, 95, 99, 99.9])
        return cls(len(latencies), latencies.mean_ms, p50, p90, p95, p99, p999, latencies.max_ms, latencies.encode())


@dataclass(frozen=True, slots=True)
class LengthReport:
    """Latency (ms) of the texts of one bucket of lengths (tokens)."""

    tokens: str  # "17-32"
    rows: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round of one backend: how much rounds differ is how far the whole can be trusted."""

    round: int
    began_s: float  # its window, from the beginning of the run
    offered_rows_per_s: float
    achieved_rows_per_s: float
    failed_rows: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_ms: float | None  # of all the server's processes for a text; None: the server did not tell


@dataclass(frozen=True, slots=True)
class SliceReport:
    """A short stretch of a round, by when its calls were meant to start."""

    at_s: float  # its middle, from the beginning of the run
    round: int
    rows_per_s: float  # answered
    failed_rows: int
    mean_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class LegSeen:
    """What is known of one leg."""

    round: int
    tally: Tally
    began_s: float = 0.0  # its window, from the beginning of the run
    leg_window_s: float = 1.0  # as it was planned
    spent: Spent | None = None


@dataclass(frozen=True, slots=True)
class ServerView:
    """What the server's own statistics added up to, warm-up and other callers included."""

    rows: int
    batches: int
    calls: int
    failed_calls: int
    mean_batch_rows: float | None  # None: no batch was counted
    mean_call_ms: float
    mean_queue_ms: float
    mean_compute_ms: float

    @classmethod
    def of(cls, added: Sequence[ModelStatistics]) -> ServerView:
        """Add up what the statistics gained in each leg."""
        rows, batches = sum(s.rows for s in added), sum(s.batches for s in added)
        success = sum(s.success.count for s in added)

        def mean_ms(total_ns: int) -> float:
            return total_ns / success / 1e6 if success else 0.0

        return cls(
            rows=rows,
            batches=batches,
            calls=success,
            failed_calls=sum(s.fail.count for s in added),
            mean_batch_rows=rows / batches if batches else None,
            mean_call_ms=mean_ms(sum(s.success.ns for s in added)),
            mean_queue_ms=mean_ms(sum(s.queue.ns for s in added)),
            mean_compute_ms=mean_ms(sum(s.compute_infer.ns for s in added)),
        )


@dataclass(frozen=True, slots=True)
class BackendReport:
    """One backend of the model under the plan's load."""

    backend: str
    threads: int | None  # None: the server did not tell
    window_s: float  # measured, all rounds together
    offered_rows: int  # meant to start inside the window; each is answered or failed, unless interrupted
    rows: int  # answered
    calls: int  # answered
    errors: dict[str, int]  # rows by status
    offered_rows_per_s: float  # meant to start inside the window
    achieved_rows_per_s: float  # answered inside the window
    latency: LatencySummary
    send_lag: LatencySummary
    mean_batch_rows: float | None  # of the batches that held our rows; None: no row was answered
    mean_tokens: float | None
    padding_ratio: float | None  # padded tokens / tokens; 1.0: no padding
    truncated_rows: int
    phases_ms: dict[str, float]  # mean of each phase, by the server's clock
    by_length: tuple[LengthReport, ...]
    rounds: tuple[RoundReport, ...]
    achieved_interval: Interval | None  # of the rounds, rows a second; None: of fewer than three there is none
    p50_interval: Interval | None  # of the rounds, ms
    p99_interval: Interval | None
    cost: CostReport | None  # None: the server's metrics were not read
    slices: tuple[SliceReport, ...]
    generator_cpu_share: float  # of a core, by each process
    server: ServerView | None  # None: the server keeps no statistics

    @property
    def failed_rows(self) -> int:
        """Rows without an answer."""
        return sum(self.errors.values())

    @classmethod
    def of(
        cls, backend: str, legs: Sequence[LegSeen], *, threads: int | None, server: ServerView | None
    ) -> BackendReport:
        """Add up the legs."""
        total = Tally()
        for leg in legs:
            total.add(leg.tally)
        rounds = tuple(_round(leg) for leg in legs)
        rows = total.rows
        return cls(
            backend=backend,
            threads=threads,
            window_s=total.window_s,
            offered_rows=total.offered_rows,
            rows=rows,
            calls=total.calls,
            errors=dict(sorted(total.errors.items())),
            offered_rows_per_s=_rate(total.offered_rows, total.window_s),
            achieved_rows_per_s=_rate(total.completed_rows, total.window_s),
            latency=LatencySummary.of(total.latency),
            send_lag=LatencySummary.of(total.send_lag),
            mean_batch_rows=rows / total.batches if total.batches else None,
            mean_tokens=total.tokens / rows if rows else None,
            padding_ratio=total.padded_tokens / total.tokens if total.tokens else None,
            truncated_rows=total.truncated_rows,
            phases_ms={phase: us / rows / 1000 if rows else 0.0 for phase, us in total.phases_us.items()},
            by_length=tuple(
                LengthReport(length_label(bucket), len(found), *found.percentiles_ms([50, 90, 99]))
                for bucket, found in sorted(total.by_length.items())
            ),
            rounds=rounds,
            achieved_interval=interval_of([one.achieved_rows_per_s for one in rounds]),
            p50_interval=interval_of([one.p50_ms for one in rounds]),
            p99_interval=interval_of([one.p99_ms for one in rounds]),
            cost=CostReport.of([leg.spent for leg in legs if leg.spent is not None]),
            slices=tuple(found for leg in legs for found in _slices(leg)),
            generator_cpu_share=_rate(total.generator_cpu_s, total.generator_wall_s),
            server=server,
        )


def _round(leg: LegSeen) -> RoundReport:
    tally = leg.tally
    cost = CostReport.of([] if leg.spent is None else [leg.spent])
    p50_ms, p90_ms, p99_ms = tally.latency.percentiles_ms([50, 90, 99])
    return RoundReport(
        round=leg.round,
        began_s=leg.began_s,
        offered_rows_per_s=_rate(tally.offered_rows, tally.window_s),
        achieved_rows_per_s=_rate(tally.completed_rows, tally.window_s),
        failed_rows=sum(tally.errors.values()),
        p50_ms=p50_ms,
        p90_ms=p90_ms,
        p99_ms=p99_ms,
        cpu_ms=None if cost is None else cost.cpu_ms,
    )


def _slices(leg: LegSeen) -> list[SliceReport]:
    """Lay a leg's slices on the run's time; the last may reach beyond the window, and is as long as the window says."""
    length_s, found = slice_s(leg.leg_window_s), []
    for number, one in sorted(leg.tally.slices.items()):
        begin_s = number * length_s
        seconds = min(length_s, leg.tally.window_s - begin_s)
        if seconds <= 0:
            continue
        found.append(
            SliceReport(
                at_s=leg.began_s + begin_s + seconds / 2,
                round=leg.round,
                rows_per_s=one.rows / seconds,
                failed_rows=one.failed_rows,
                mean_ms=one.sum_s / one.calls * 1e3 if one.calls else 0.0,
                max_ms=one.max_s * 1e3,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A load test of one model under one load: its plan, where it ran, and every backend's numbers."""

    format: int
    purpose: Purpose
    plan: LoadPlan
    server: str  # name and version, as it says
    version: str  # of the model
    started_at: str  # ISO 8601, UTC
    cores: int  # of the machine that generated the load
    environment: Environment  # of the same
    processes: int  # that generated it
    ceiling: Ceiling | None  # of the generator; None: it was not measured
    texts: str  # where they came from
    text_count: int
    backends: tuple[BackendReport, ...]
    warnings: tuple[str, ...]
    interrupted: bool

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(to_document(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> LoadReport:
        """Read what `to_json` wrote; raises `DocumentInvalid`."""
        return _read_report(json.loads(text))


def warnings_of(
    backends: Sequence[BackendReport], *, ceiling: Ceiling | None = None, environment: Environment | None = None
) -> tuple[str, ...]:
    """Say what a reader must know before believing the numbers."""
    found: list[str] = []
    if environment is not None and environment.busy:
        found.append(
            f"the machine was busy before the test began (load average {environment.load_average:.1f} on "
            f"{environment.cores} cores): others' work is in these figures"
        )
    for backend in backends:
        if backend.generator_cpu_share > BUSY_CPU_SHARE:
            found.append(
                f"{backend.backend}: the load generator used {backend.generator_cpu_share:.0%} of a core: "
                "it was likely the bottleneck (--processes)"
            )
        if ceiling is not None and backend.achieved_rows_per_s > NEAR * ceiling.most_rows_per_s:
            found.append(
                f"{backend.backend}: {backend.achieved_rows_per_s:,.0f} texts/s are within "
                f"{1 - NEAR:.0%} of what the generator can send at all ({ceiling.most_rows_per_s:,.0f}): "
                "--processes, or another machine"
            )
        if unsent := backend.errors.get(BEHIND):
            found.append(
                f"{backend.backend}: the generator could not send {backend.offered_rows_per_s:,.0f} texts/s: it fell "
                f"{backend.send_lag.max_ms / 1000:.1f} s behind, ended the turn, and never sent {unsent:,} of "
                f"{backend.offered_rows:,} texts. These figures tell of it and not of the server: "
                "a lower rate, or --processes"
            )
        lag_ms = backend.send_lag.p99_ms
        if lag_ms > max(LATE_MS, LATE_SHARE * backend.latency.p99_ms):
            found.append(
                f"{backend.backend}: calls left up to {lag_ms:.1f} ms late (p99; longest "
                f"{backend.send_lag.max_ms:.1f} ms), which their latency includes: the generator lacked CPU"
            )
        if backend.failed_rows:
            found.append(
                f"{backend.backend}: {backend.failed_rows} rows failed and are in no percentile: "
                + ", ".join(f"{status} {rows}" for status, rows in backend.errors.items())
            )
    budgets = {backend.backend: backend.threads for backend in backends if backend.backend != FREE}
    known = {threads for threads in budgets.values() if threads is not None}
    if len(known) > 1:
        found.append(f"thread budgets differ, so backends do not compare: {_listed(budgets)}")
    elif len(budgets) > 1 and None in budgets.values():
        found.append(f"thread budgets could not be checked: {_listed(budgets)}")
    return tuple(found)


def _read_report(document: object) -> LoadReport:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DocumentInvalid(f"not a load report of format {FORMAT}")
    return from_document(LoadReport, document)


def _rate(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def _listed(budgets: Mapping[str, int | None]) -> str:
    return ", ".join(f"{name} {'unknown' if count is None else count}" for name, count in budgets.items())
