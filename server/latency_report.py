"""The use case of the latency report: what backends did within a window, and what their processes use now.

A window is whole slots of time, those that it touches: it is up to one slot longer than was asked for.

The report holds what the wires tell, in their words and units: they only write it down.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from lockstep.server.core.errors import InvalidInput
from lockstep.server.core.lengths import LENGTH_BUCKETS
from lockstep.server.core.messages import ModelRef
from lockstep.server.gateway import Gateway, ServedModel
from lockstep.server.histogram import RELATIVE_ERROR, Summary
from lockstep.server.latency_window import LENGTHS, MOST_WINDOW_S, PHASES, SLOT_NS, Recent, Work
from lockstep.server.runtimes.usage import usage_of

DEFAULT_WINDOW_S = 60.0
_OF_PHASE = [phase for phase in range(len(PHASES)) for _ in range(LENGTHS)]


@dataclass(frozen=True, slots=True)
class PhaseLatency:
    """The time that rows spent in one phase."""

    phase: str
    count: int  # rows
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float


@dataclass(frozen=True, slots=True)
class LengthLatency:
    """The phases of rows of one length bucket."""

    longer_than: int  # tokens
    up_to: int  # tokens; 0: no bound
    phases: Sequence[PhaseLatency]


@dataclass(frozen=True, slots=True)
class BackendLatency:
    """What is told of one backend; a ratio is 0 where there is nothing that it could be of."""

    model: str
    version: int
    backend: str
    rows: int  # executed within the window, as are the following
    batches: int
    tokens: int  # without padding
    padded_tokens: int
    rows_per_s: float
    tokens_per_s: float
    padding_ratio: float  # padded tokens / tokens
    mean_batch_rows: float
    execute_cpu_us: int  # of the workers, while they executed
    cpu_us_per_row: float  # of it
    worker_cpu_us: int  # of the workers that live, since each started
    resident_bytes: int  # of the workers, now
    phases: Sequence[PhaseLatency]  # in the order of a row's life; those that have rows
    lengths: Sequence[LengthLatency] | None  # shortest first, those that have rows; None: not asked for


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """What the gateway's own process uses."""

    cpu_us: int  # since it started
    window_cpu_us: int  # of it, since the first row of the window
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """What is told of a server."""

    window_s: float
    relative_error: float  # bound of the error of p50, p90 and p99
    backends: Sequence[BackendLatency]
    gateway: GatewayLoad


async def latency_report(
    gateway: Gateway, recent: Recent, *, model: str, backend: str, window_s: float, by_length: bool
) -> LatencyReport:
    """Report the backends that are served now: all, those of a model, or one of its.

    Telling lengths apart, `by_length`, is most of what a report costs: some 3 ms of CPU time a backend.

    Raises `InvalidInput` for a window that is not kept, `ModelNotFound`, `BackendNotFound`.
    """
    window_s = window_s or DEFAULT_WINDOW_S
    if not (math.isfinite(window_s) and 0 < window_s <= MOST_WINDOW_S):
        raise InvalidInput(f"a window of {window_s:g} s is not kept: ask for more than 0 s, at most {MOST_WINDOW_S:g}")
    if backend and not model:
        raise InvalidInput(f"which model's backend {backend!r}? Name the model too")
    now = recent.clock_ns()
    slot = int(now - window_s * 1e9) // SLOT_NS
    served = [gateway.model(ModelRef(model))] if model else [one for _, one in sorted(gateway.models.items())]
    window_s = (now - max(slot * SLOT_NS, recent.began_ns)) / 1e9
    backends = []
    for one in served:
        for name in _names(one, backend):
            backends.append(_backend(one, name, recent, slot, window_s, by_length))
            await asyncio.sleep(0)  # a long window of many backends must not hold up the rows
    usage = usage_of([os.getpid()])
    return LatencyReport(
        window_s=window_s,
        relative_error=RELATIVE_ERROR,
        backends=backends,
        gateway=GatewayLoad(
            cpu_us=round(usage.cpu_s * 1e6),
            window_cpu_us=recent.gateway_cpu_since(slot) // 1000,
            resident_bytes=usage.resident_bytes,
        ),
    )


def _names(served: ServedModel, backend: str) -> list[str]:
    return [served.batcher.backend(backend).name] if backend else [one.name for one in served.batcher.backends]


def _backend(
    served: ServedModel, name: str, recent: Recent, slot: int, window_s: float, by_length: bool
) -> BackendLatency:
    manifest = served.manifest
    work = recent.since(slot, manifest.name, manifest.version, name)
    usage = usage_of(worker.pid for worker in served.batcher.backend(name).workers)
    return BackendLatency(
        model=manifest.name,
        version=manifest.version,
        backend=name,
        rows=work.rows,
        batches=work.batches,
        tokens=work.tokens,
        padded_tokens=work.padded_tokens,
        rows_per_s=_ratio(work.rows, window_s),
        tokens_per_s=_ratio(work.tokens, window_s),
        padding_ratio=_ratio(work.padded_tokens, work.tokens),
        mean_batch_rows=_ratio(work.rows, work.batches),
        execute_cpu_us=work.cpu_ns // 1000,
        cpu_us_per_row=_ratio(work.cpu_ns / 1000, work.rows),
        worker_cpu_us=round(usage.cpu_s * 1e6),
        resident_bytes=usage.resident_bytes,
        phases=_phases(work.durations.folded(_OF_PHASE, len(PHASES)).summaries()),
        lengths=_lengths(work) if by_length else None,
    )


def _lengths(work: Work) -> list[LengthLatency]:
    summaries = work.durations.summaries()
    bounds = zip((0, *LENGTH_BUCKETS), (*LENGTH_BUCKETS, 0), strict=True)
    found = (
        LengthLatency(longer_than, up_to, _phases(summaries[index::LENGTHS]))
        for index, (longer_than, up_to) in enumerate(bounds)
    )
    return [one for one in found if one.phases]


def _phases(summaries: Sequence[Summary | None]) -> list[PhaseLatency]:
    return [
        PhaseLatency(
            phase=name,
            count=summary.count,
            mean_us=summary.mean / 1000,
            p50_us=summary.p50 / 1000,
            p90_us=summary.p90 / 1000,
            p99_us=summary.p99 / 1000,
            max_us=summary.most / 1000,
        )
        for name, summary in zip(PHASES, summaries, strict=True)
        if summary is not None
    ]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
