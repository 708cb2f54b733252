"""The use case of the latency report: what backends did within a window, and what their processes use now.

A window is whole slots of time, those that it touches: it is up to one slot longer than was asked for.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from server.core.errors import InvalidInput
from server.core.lengths import LENGTH_BUCKETS
from server.core.messages import ModelRef
from server.durations import Summary
from server.gateway import Gateway, ServedModel
from server.recent import LENGTHS, MOST_WINDOW_S, PHASES, SLOT_NS, Recent, Work
from server.runtimes.usage import Usage, usage_of

DEFAULT_WINDOW_S = 60.0
_OF_PHASE = [phase for phase in range(len(PHASES)) for _ in range(LENGTHS)]

PhaseSummaries = Sequence[tuple[str, Summary]]
"""By the phase's name, in the order of a row's life; those that have rows."""


@dataclass(frozen=True, slots=True)
class LengthLatency:
    """The phases of rows of one length bucket."""

    longer_than: int  # tokens
    up_to: int | None  # tokens; None: no bound
    phases: PhaseSummaries


@dataclass(frozen=True, slots=True)
class BackendLatency:
    """What is told of one backend."""

    model: str
    version: int
    backend: str
    work: Work
    workers: Usage
    phases: PhaseSummaries
    lengths: Sequence[LengthLatency]


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """What is told of a server."""

    window_s: float
    backends: Sequence[BackendLatency]
    gateway: Usage
    gateway_window_cpu_s: float


async def latency_report(
    gateway: Gateway, recent: Recent, *, model: str, backend: str, window_s: float
) -> LatencyReport:
    """Report the backends that are served now: all, those of a model, or one of its.

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
    backends = []
    for one in served:
        for name in _names(one, backend):
            backends.append(_backend(one, name, recent, slot))
            await asyncio.sleep(0)  # a long window of many backends must not hold up the rows
    return LatencyReport(
        window_s=(now - max(slot * SLOT_NS, recent.began_ns)) / 1e9,
        backends=backends,
        gateway=usage_of([os.getpid()]),
        gateway_window_cpu_s=recent.gateway_cpu_since(slot) / 1e9,
    )


def _names(served: ServedModel, backend: str) -> list[str]:
    return [served.batcher.backend(backend).name] if backend else [one.name for one in served.batcher.backends]


def _backend(served: ServedModel, name: str, recent: Recent, slot: int) -> BackendLatency:
    manifest = served.manifest
    work = recent.since(slot, manifest.name, manifest.version, name)
    by_length = work.durations.summaries()
    lengths = []
    for index, (longer_than, up_to) in enumerate(zip((0, *LENGTH_BUCKETS), (*LENGTH_BUCKETS, None), strict=True)):
        if phases := _named(by_length[index::LENGTHS]):
            lengths.append(LengthLatency(longer_than, up_to, phases))
    return BackendLatency(
        model=manifest.name,
        version=manifest.version,
        backend=name,
        work=work,
        workers=usage_of(worker.pid for worker in served.batcher.backend(name).workers),
        phases=_named(work.durations.folded(_OF_PHASE, len(PHASES)).summaries()),
        lengths=lengths,
    )


def _named(summaries: Sequence[Summary | None]) -> PhaseSummaries:
    return [(name, summary) for name, summary in zip(PHASES, summaries, strict=True) if summary is not None]
