"""Prometheus metrics: what the server exposes on `/metrics`. The names are listed in docs/metrics.md.

Histograms are counted here, by whole batches where rows share a duration, and turned into the library's
families when they are scraped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

import psutil
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from lockstep.server.core.errors import LockstepError
from lockstep.server.core.lengths import LENGTH_BUCKETS
from lockstep.server.core.messages import Answer, BatchFacts, Prediction
from lockstep.server.core.timing import Phases
from lockstep.server.gateway import Gateway
from lockstep.server.runtimes.usage import usage_of

SECONDS_BUCKETS = tuple(round(10.0 ** (exponent / 4), 7) for exponent in range(-20, 5))
"""10 microseconds to 10 seconds, four a decade."""

_RATIO_BUCKETS = (0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0, 4.0)
_ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_LENGTH_LABELS = (*(f"<={bound}" for bound in LENGTH_BUCKETS), f">{LENGTH_BUCKETS[-1]}")

_BY_LENGTH = {
    "queue": "A row's wait for a worker",
    "pad": "Padding a row's batch",
    "transfer": "Handing a row's batch to its worker",
    "execute": "Executing a row's batch",
    "respond": "From the end of execution until a row had its answer",
}
_BY_CALL = {
    "decode": "Decoding a call",
    "tokenize": "Tokenising and checking a call",
    "request": "From a call's arrival to its last answer",
}


class _Histogram:
    """Counts of values by bucket."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value, several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative counts by upper bound, as the exposition format wants them."""
        names = [repr(float(bound)) for bound in self.bounds] + ["+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class _Calls:
    """The calls of one backend that were answered."""

    __slots__ = ("answered", "decode", "request", "tokenize")

    def __init__(self) -> None:
        self.answered = 0
        self.decode = _Histogram(SECONDS_BUCKETS)
        self.tokenize = _Histogram(SECONDS_BUCKETS)
        self.request = _Histogram(SECONDS_BUCKETS)


class _Phases:
    """The histograms of the phases of one backend's rows of one length bucket."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        self.by_name = {name: _Histogram(SECONDS_BUCKETS) for name in _BY_LENGTH}


class Metrics:
    """Observes the server; `registry` holds what it exposes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rows: defaultdict[tuple[str, str, str], _Phases] = defaultdict(_Phases)
        self._calls: defaultdict[tuple[str, str], _Calls] = defaultdict(_Calls)
        self._batch_rows: defaultdict[tuple[str, str], _Histogram] = defaultdict(lambda: _Histogram(_ROWS_BUCKETS))
        self._predicted: defaultdict[tuple[str, str], _Histogram] = defaultdict(lambda: _Histogram(_RATIO_BUCKETS))
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
        if batch.predicted_ratio is not None:
            self._predicted[key].add(batch.predicted_ratio)
        inside: dict[int, int] = {}
        for length, arrival_ns in zip(batch.lengths, batch.arrivals_ns, strict=True):
            bucket = bisect_left(LENGTH_BUCKETS, length)
            inside[bucket] = inside.get(bucket, 0) + 1
            self._rows[(*key, _LENGTH_LABELS[bucket])].by_name["queue"].add((times.dispatched_ns - arrival_ns) / 1e9)
        for bucket, rows in inside.items():
            histograms = self._rows[(*key, _LENGTH_LABELS[bucket])].by_name
            histograms["pad"].add((times.padded_ns - times.dispatched_ns) / 1e9, rows)
            histograms["transfer"].add((times.execute_start_ns - times.padded_ns) / 1e9, rows)
            histograms["execute"].add((times.execute_end_ns - times.execute_start_ns) / 1e9, rows)
            histograms["respond"].add((times.responded_ns - times.execute_end_ns) / 1e9, rows)

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Take note of an execution that did not complete."""
        self._count("abandoned_batches", (model, backend))

    def row_failed(self, model: str, version: int, backend: str | None, error: LockstepError) -> None:
        """Count what went wrong with a row that had been queued."""
        self._count("row_errors", (model, backend or "", type(error).__name__))

    def call_finished(self, prediction: Prediction, last: Answer | None, phases: Phases | None) -> None:
        """Take note of a call that was answered, row by row."""
        backend = last.batch.backend if last else prediction.backend or ""
        calls = self._calls[prediction.model, backend]
        calls.answered += 1
        calls.decode.add((prediction.decoded_ns - prediction.received_ns) / 1e9)
        calls.tokenize.add((prediction.tokenized_ns - prediction.decoded_ns) / 1e9)
        if last is not None:
            calls.request.add((last.batch.times.responded_ns - prediction.received_ns) / 1e9)

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Take note of a call that failed as a whole."""
        self._count("calls", (model, backend or "", kind))

    def limit_reached(self, limit: str) -> None:
        """Count what a limit refused."""
        self._count("rejected", (limit,))

    def answer_undelivered(self) -> None:
        """Count an answer or status that could not be sent: its client had gone."""
        self._count("undelivered_answers", ())

    def expose(self, gateway: Gateway) -> None:
        """Expose the counts, and the state of the gateway at the moment of a scrape."""
        self.registry.register(_Collector(lambda: [*self._families(), *_state(gateway)]))

    def _count(self, name: str, key: tuple[str, ...], by: float = 1) -> None:
        self._counters[name][key] += by

    def _families(self) -> Iterator[Metric]:
        for name, (text, labels) in COUNTERS.items():
            counter = CounterMetricFamily(f"lockstep_{name}", text, labels=labels)
            for key, value in self._counters[name].items():
                counter.add_metric(key, value)
            if name == "calls":
                for backend_key, calls in self._calls.items():
                    counter.add_metric((*backend_key, "answered"), calls.answered)
            yield counter
        rows = HistogramMetricFamily("lockstep_batch_rows", "Rows executed together", labels=["model", "backend"])
        for key, histogram in self._batch_rows.items():
            rows.add_metric(key, histogram.buckets(), histogram.total)
        yield rows
        ratio = HistogramMetricFamily(
            "lockstep_predicted_cost_ratio", "Predicted / actual cost of a batch", labels=["model", "backend"]
        )
        for key, histogram in self._predicted.items():
            ratio.add_metric(key, histogram.buckets(), histogram.total)
        yield ratio
        for name, text in _BY_CALL.items():
            family = HistogramMetricFamily(f"lockstep_{name}_seconds", f"{text}, seconds", labels=["model", "backend"])
            for key, calls in self._calls.items():
                histogram = getattr(calls, name)
                family.add_metric(key, histogram.buckets(), histogram.total)
            yield family
        for name, text in _BY_LENGTH.items():
            labels = ["model", "backend", "length"]
            family = HistogramMetricFamily(f"lockstep_{name}_seconds", f"{text}, seconds", labels=labels)
            for row_key, phases in self._rows.items():
                family.add_metric(row_key, phases.by_name[name].buckets(), phases.by_name[name].total)
            yield family


COUNTERS: dict[str, tuple[str, list[str]]] = {
    "rows": ("Rows executed", ["model", "backend"]),
    "tokens": ("Tokens executed, without padding", ["model", "backend"]),
    "padded_tokens": ("Tokens executed, padding included: rows x longest length", ["model", "backend"]),
    "batches": ("Batches that completed", ["model", "backend"]),
    "abandoned_batches": ("Executions that did not complete", ["model", "backend"]),
    "execute_cpu_seconds": ("CPU time of workers while they executed", ["model", "backend"]),
    "row_errors": ("Queued rows that were not answered, by error", ["model", "backend", "error"]),
    "rejected": ("Calls, messages, rows and streams that a limit refused, by its name", ["limit"]),
    "undelivered_answers": ("Answers and statuses that could not be sent: the client had gone", []),
    "calls": ("Calls, by outcome: answered, or the error", ["model", "backend", "outcome"]),
}


class _Collector(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the families as they are now."""
        return self._families()


def _state(gateway: Gateway) -> Iterator[Metric]:
    """Read the gauges off the gateway and its workers' processes."""
    labels = ["model", "backend"]
    queue = GaugeMetricFamily("lockstep_queue_rows", "Rows that wait", labels=["model"])
    ready = GaugeMetricFamily("lockstep_backend_ready", "1 where a worker can take a batch", labels=labels)
    workers = GaugeMetricFamily("lockstep_backend_workers", "Workers that are ready", labels=labels)
    budget = GaugeMetricFamily("lockstep_backend_threads", "Threads of computation of each worker", labels=labels)
    memory = GaugeMetricFamily("lockstep_worker_resident_bytes", "Resident memory of the workers", labels=labels)
    cpu = GaugeMetricFamily("lockstep_worker_cpu_seconds", "CPU time of the workers that live", labels=labels)
    restarts = CounterMetricFamily("lockstep_worker_restarts", "Workers started in place of lost ones", labels=labels)
    wait = GaugeMetricFamily(
        "lockstep_expected_wait_seconds", "What a free row that came now would wait", labels=["model"]
    )
    for name, served in gateway.models.items():
        wait.add_metric([name], served.batcher.expected_wait_s())
        for backend in served.batcher.backends:
            ready.add_metric([name, backend.name], float(backend.ready))
            budget.add_metric([name, backend.name], backend.spec.launch.budget.threads)
    # A version that warms up or drains beside the one that takes the calls has rows and processes too.
    queued: Counter[str] = Counter()
    alive: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    lost = gateway.restarts_of_gone.copy()
    for served in (*gateway.models.values(), *gateway.beside):
        name = served.manifest.name
        queued[name] += served.batcher.queued_rows
        for backend in served.batcher.backends:
            alive[name, backend.name] += [worker.pid for worker in backend.workers]
            lost[name, backend.name] += backend.restarts
    for name, rows in queued.items():
        queue.add_metric([name], rows)
    for key, pids in alive.items():
        used = usage_of(pids)
        workers.add_metric(key, len(pids))
        cpu.add_metric(key, used.cpu_s)
        memory.add_metric(key, used.resident_bytes)
    for key, count in lost.items():
        restarts.add_metric(key, count)
    own = psutil.Process().cpu_times()
    yield CounterMetricFamily("lockstep_gateway_cpu_seconds", "CPU time of the gateway", value=own.user + own.system)
    yield from (queue, wait, ready, workers, budget, memory, cpu, restarts)
