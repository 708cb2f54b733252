"""Prometheus metrics: what the server exposes on `/metrics`. The names are listed in docs/metrics.md.

Histograms are kept by whole batches (numpy), not row by row, and turned into the library's families when they
are scraped: observing a batch costs the same whatever its size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import psutil
from numpy.typing import NDArray
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from server.core.errors import LockstepError
from server.core.messages import BatchFacts, Outcome, Prediction
from server.core.timing import Phase
from server.gateway import Gateway

LENGTH_BUCKETS = (16, 32, 64, 128, 256, 512)
"""Upper bounds, tokens; the last bucket is open."""

SECONDS_BUCKETS = tuple(round(10.0 ** (exponent / 4), 7) for exponent in range(-20, 5))
"""10 microseconds to 10 seconds, four a decade."""

_ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_LENGTH_LABELS = (*(f"<={bound}" for bound in LENGTH_BUCKETS), f">{LENGTH_BUCKETS[-1]}")

_HISTOGRAM_HELP: dict[str, str] = {
    Phase.DECODE: "Decoding a call",
    Phase.TOKENIZE: "Tokenising and checking a call",
    Phase.QUEUE: "A row's wait for a worker",
    Phase.PAD: "Padding a row's batch",
    Phase.TRANSFER: "Handing a row's batch to its worker",
    Phase.EXECUTE: "Executing a row's batch",
    Phase.RESPOND: "From the end of execution until a row had its answer",
    "request": "From a call's arrival to its last answer",
}
_BY_LENGTH = (Phase.QUEUE, Phase.PAD, Phase.TRANSFER, Phase.EXECUTE, Phase.RESPOND)


class _Histogram:
    """Counts of values by bucket."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = np.array(bounds)
        self.counts: NDArray[np.int64] = np.zeros(len(bounds) + 1, dtype=np.int64)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, several times."""
        self.counts[int(np.searchsorted(self.bounds, value))] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound, as the exposition format wants them."""
        names = [repr(float(bound)) for bound in self.bounds] + ["+Inf"]
        return list(zip(names, np.cumsum(self.counts).astype(float).tolist(), strict=True))


class Metrics:
    """Observes the server; `registry` holds what it exposes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._phases: defaultdict[tuple[str, ...], _Histogram] = defaultdict(lambda: _Histogram(SECONDS_BUCKETS))
        self._batch_rows: defaultdict[tuple[str, str], _Histogram] = defaultdict(lambda: _Histogram(_ROWS_BUCKETS))
        self._counters: defaultdict[str, defaultdict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))

    def batch_executed(self, model: str, version: int, batch: BatchFacts) -> None:
        """Take note of a batch that completed."""
        times, key = batch.times, (model, batch.backend)
        self._batch_rows[key].add(batch.rows)
        self._count("rows", key, batch.rows)
        self._count("tokens", key, batch.tokens)
        self._count("padded_tokens", key, batch.padded_tokens)
        self._count("batches", key)
        self._count("execute_cpu_seconds", key, batch.cpu_ns / 1e9)
        shared = {
            Phase.PAD: times.padded_ns - times.dispatched_ns,
            Phase.TRANSFER: times.execute_start_ns - times.padded_ns,
            Phase.EXECUTE: times.execute_end_ns - times.execute_start_ns,
            Phase.RESPOND: batch.responded_ns - times.execute_end_ns,
        }
        queued_s = (times.dispatched_ns - batch.arrival_ns) / 1e9
        buckets = np.searchsorted(LENGTH_BUCKETS, batch.lengths)
        for bucket in np.unique(buckets):
            inside = buckets == bucket
            length = _LENGTH_LABELS[bucket]
            for phase, duration_ns in shared.items():
                self._phases[phase, *key, length].add(duration_ns / 1e9, int(np.count_nonzero(inside)))
            queue = self._phases[Phase.QUEUE, *key, length]
            queue.counts += np.bincount(np.searchsorted(queue.bounds, queued_s[inside]), minlength=len(queue.counts))
            queue.total += float(queued_s[inside].sum())

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Take note of an execution that did not complete."""
        self._count("abandoned_batches", (model, backend))

    def row_finished(self, model: str, version: int, backend: str | None, outcome: Outcome) -> None:
        """Count what went wrong with a row that had been queued."""
        if isinstance(outcome, LockstepError):
            self._count("row_errors", (model, backend or "", type(outcome).__name__))

    def call_finished(self, prediction: Prediction) -> None:
        """Take note of a call that was answered, row by row."""
        last = prediction.last()
        backend = last.batch.backend if last else prediction.backend or ""
        key = (prediction.model, backend)
        self._count("calls", (*key, "answered"))
        decode_s = (prediction.decoded_ns - prediction.received_ns) / 1e9
        self._phases[Phase.DECODE, *key].add(decode_s)
        self._phases[Phase.TOKENIZE, *key].add((prediction.tokenized_ns - prediction.decoded_ns) / 1e9)
        if last is not None:
            self._phases["request", *key].add(prediction.timeline(last).total_ns / 1e9)

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Take note of a call that failed as a whole."""
        self._count("calls", (model, backend or "", kind))

    def expose(self, gateway: Gateway, threads: int) -> None:
        """Expose the counts, and the state of the gateway at the moment of a scrape."""
        self.registry.register(_Collector(lambda: [*self._families(), *_state(gateway, threads)]))

    def _count(self, name: str, key: tuple[str, ...], by: float = 1) -> None:
        self._counters[name][key] += by

    def _families(self) -> Iterator[Metric]:
        for name, (text, labels) in COUNTERS.items():
            counter = CounterMetricFamily(f"lockstep_{name}", text, labels=labels)
            for key, value in self._counters[name].items():
                counter.add_metric(key, value)
            yield counter
        rows = HistogramMetricFamily("lockstep_batch_rows", "Rows executed together", labels=["model", "backend"])
        for key, histogram in self._batch_rows.items():
            rows.add_metric(key, histogram.buckets(), histogram.total)
        yield rows
        for phase, text in _HISTOGRAM_HELP.items():
            labels = ["model", "backend", "length"] if phase in _BY_LENGTH else ["model", "backend"]
            family = HistogramMetricFamily(f"lockstep_{phase}_seconds", f"{text}, seconds", labels=labels)
            for key, histogram in self._phases.items():
                if key[0] == phase:
                    family.add_metric(key[1:], histogram.buckets(), histogram.total)
            yield family


COUNTERS: dict[str, tuple[str, list[str]]] = {
    "rows": ("Rows executed", ["model", "backend"]),
    "tokens": ("Tokens executed, without padding", ["model", "backend"]),
    "padded_tokens": ("Tokens executed, padding included: rows x longest length", ["model", "backend"]),
    "batches": ("Batches that completed", ["model", "backend"]),
    "abandoned_batches": ("Executions that did not complete", ["model", "backend"]),
    "execute_cpu_seconds": ("CPU time of workers while they executed", ["model", "backend"]),
    "row_errors": ("Queued rows that were not answered, by error", ["model", "backend", "error"]),
    "calls": ("Calls, by outcome: answered, or the error", ["model", "backend", "outcome"]),
}


class _Collector(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families as they are now."""
        return self._families()


def _state(gateway: Gateway, threads: int) -> Iterator[Metric]:
    """Read the gauges off the gateway and its workers' processes."""
    labels = ["model", "backend"]
    queue = GaugeMetricFamily("lockstep_queue_rows", "Rows that wait", labels=["model"])
    ready = GaugeMetricFamily("lockstep_backend_ready", "1 where a worker can take a batch", labels=labels)
    workers = GaugeMetricFamily("lockstep_backend_workers", "Workers that are ready", labels=labels)
    budget = GaugeMetricFamily("lockstep_backend_threads", "Threads of computation of each worker", labels=labels)
    memory = GaugeMetricFamily("lockstep_worker_resident_bytes", "Resident memory of the workers", labels=labels)
    cpu = GaugeMetricFamily("lockstep_worker_cpu_seconds", "CPU time of the workers that live", labels=labels)
    restarts = CounterMetricFamily("lockstep_worker_restarts", "Workers started in place of lost ones", labels=labels)
    for name, served in gateway.models.items():
        queue.add_metric([name], served.batcher.queued_rows)
        for backend in served.batcher.backends:
            key = [name, backend.name]
            ready.add_metric(key, float(backend.ready))
            workers.add_metric(key, len(backend.workers))
            budget.add_metric(key, threads)
            restarts.add_metric(key, backend.restarts)
            cpu_s, resident_bytes = _process_figures([worker.pid for worker in backend.workers])
            cpu.add_metric(key, cpu_s)
            memory.add_metric(key, resident_bytes)
    own = psutil.Process().cpu_times()
    yield CounterMetricFamily("lockstep_gateway_cpu_seconds", "CPU time of the gateway", value=own.user + own.system)
    yield from (queue, ready, workers, budget, memory, cpu, restarts)


def _process_figures(pids: Iterable[int]) -> tuple[float, int]:
    cpu_s, resident_bytes = 0.0, 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            cpu_s += times.user + times.system
            resident_bytes += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it died this instant: the next scrape will not list it
    return cpu_s, resident_bytes
