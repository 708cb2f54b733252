"""What a worker's process costs a batch: its round trip, beside the same call in one process."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.echo_adapter import EchoAdapter
from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.runtimes.registry import ADAPTERS
from lockstep.server.runtimes.worker_process import Launch, WorkerProcess

ROWS: Final = 32
LENGTH: Final = 64
_ECHO: Final = "benchmarks.echo_adapter:EchoAdapter"


@dataclass(frozen=True, slots=True)
class HopPlan:
    """How often, and the artifact of the second figure."""

    artifact: ArtifactSpec
    echoes: int = 2_000
    executions: int = 100


@dataclass(frozen=True, slots=True)
class HopFigures:
    """Medians of a batch of 32 x 64, ms."""

    echo_ms: float  # to a worker that computes nothing and back
    in_process_ms: float  # the same adapter called in one process
    beside_execution_ms: float  # of a real batch: its round trip minus the worker's own execution


def hop(plan: HopPlan) -> HopFigures:
    """Measure; blocks for seconds. On uvloop, as the server is."""
    import uvloop

    figures: HopFigures = uvloop.run(_measure(plan))
    return figures


async def _measure(plan: HopPlan) -> HopFigures:
    ids = np.random.default_rng(0).integers(5, 1_000, (ROWS, LENGTH))
    lengths = np.full(ROWS, LENGTH)
    echo_ms, beside_ms, in_process_ms = [], [], []
    worker = await WorkerProcess.start(Launch(_ECHO, plan.artifact, Budget()))
    try:
        for _ in range(plan.echoes):
            began_ns = time.perf_counter_ns()
            await worker.execute(ids, lengths)
            echo_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
    finally:
        await worker.stop()
    adapter = EchoAdapter(plan.artifact.labels)
    for _ in range(plan.echoes):
        began_ns = time.perf_counter_ns()
        adapter.execute(ids, lengths)
        in_process_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
    worker = await WorkerProcess.start(Launch(ADAPTERS["onnxruntime"], plan.artifact, Budget()))
    try:
        for _ in range(plan.executions):
            began_ns = time.perf_counter_ns()
            executed = await worker.execute(ids, lengths)
            whole_ns = time.perf_counter_ns() - began_ns
            beside_ms.append((whole_ns - (executed.execute_end_ns - executed.execute_start_ns)) / 1e6)
    finally:
        await worker.stop()
    return HopFigures(statistics.median(echo_ms), statistics.median(in_process_ms), statistics.median(beside_ms))
