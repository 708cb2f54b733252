"""Measures what batches cost on a worker that has just started. The batches also warm the runtime up."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from lockstep.server.core.timing import now_ns
from lockstep.server.runtimes.worker_process import BatchFailed, Executed
from lockstep.server.scheduling.cost import Measurement, probe_shapes
from lockstep.server.scheduling.policy import Limits
from lockstep.server.scheduling.worker import Worker

Refused = Callable[[BatchFailed, int, int], bool]
"""(error, rows, length) -> whether the batch was refused for want of memory."""

_CHEAP_NS = 20_000_000
"""Batches below this are measured three times, and the median taken; dearer ones vary less, and once is enough."""


def cost_ns(executed: Executed, *, on_gpu: bool) -> float:
    """Return what an execution cost: CPU time, which neighbours do not change; on a GPU, elapsed time."""
    elapsed = executed.execute_end_ns - executed.execute_start_ns
    return float(max(1, elapsed if on_gpu else executed.cpu_ns))


async def measure(
    worker: Worker, *, vocabulary: int, max_tokens: int, limits: Limits, budget_s: float, refused: Refused
) -> list[Measurement]:
    """Execute batches of growing area until `budget_s` seconds are over; at least one is measured.

    A batch that the runtime refuses for want of memory ends the measuring if a smaller one was measured: `refused` says
    whether that was why. Raises `BackendUnavailable` if the worker dies, `BatchFailed` if it refuses a batch otherwise.
    """
    on_gpu = worker.launch.budget.device != "cpu"
    random = np.random.default_rng(0)
    found: list[Measurement] = []
    deadline_ns = now_ns() + int(budget_s * 1e9)
    for rows, length in probe_shapes(limits.max_rows, max_tokens, limits.max_padded_tokens):
        ids = random.integers(0, vocabulary, (rows, length))
        lengths = np.full(rows, length)
        try:
            costs = [cost_ns(await worker.execute(ids, lengths), on_gpu=on_gpu)]
        except BatchFailed as error:
            if refused(error, rows, length) and found:
                break
            raise
        if costs[0] < _CHEAP_NS:
            costs += [cost_ns(await worker.execute(ids, lengths), on_gpu=on_gpu) for _ in range(3)]
            del costs[0]  # a first time is never like the others
        found.append(Measurement(rows, length, statistics.median(costs)))
        if now_ns() > deadline_ns:
            break
    return found
