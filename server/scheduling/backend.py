"""A backend's life: stopped, starting, ready, down; and what its batches cost.

Starts workers and measures them; decides neither when they start nor what they execute.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.core.probabilities import Reader, fault
from lockstep.server.runtimes.worker_process import BatchFailed, Executed, Launch, WorkerProcess
from lockstep.server.scheduling.cost import CostModel, Measurement
from lockstep.server.scheduling.cost_store import CostStore
from lockstep.server.scheduling.policy import Limits, Planned
from lockstep.server.scheduling.throughput import ThroughputEstimate
from lockstep.server.scheduling.warmup import cost_ns, measure
from lockstep.server.scheduling.worker import StartWorker, Worker

_log = logging.getLogger("lockstep.backend")
_OUT_OF_MEMORY = ("out of memory", "bad_alloc", "memoryerror", "failed to allocate", "resource exhausted", "oom when")
_REFRESH_EVERY = 256
"""Batches between two tables for the policy: making one takes milliseconds."""
_SLOWDOWN_RATE = 0.05
_MOST_SLOWDOWN = 20.0
_OVERHEAD_RATE = 0.05
_MOST_OVERHEAD_NS = 2_000_000
_HUNG_TIMES = 30.0
"""A batch that takes so many times its predicted time is abandoned: a machine that is busy with others takes a few."""
_LEAST_HUNG_S = 10.0
_UNKNOWN_BATCH_S = 300.0
"""Where nothing is known of a backend's costs."""
_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 30.0


class State(StrEnum):
    """Where a backend is in its life."""

    STOPPED = "stopped"  # not started yet: it starts when a row needs it
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"  # its worker died or could not start; it is started again after a pause


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """What a backend is: a runtime executing one artifact on a device."""

    name: str
    launch: Launch
    takes_free_rows: bool  # variants (int8, ...) serve only rows that name them
    cpu_ms: float  # of a batch of 32 rows x 64 tokens, as the gate measured it
    circumstances: Mapping[str, str]  # what its costs hold for, beside the runtime's version
    vocabulary: int
    max_tokens: int
    measure_s: float  # at a first start in new circumstances; a restart finds the costs in the state folder
    probabilities: Reader  # outputs[batch, labels] -> the same shape; NaN throughout a row that holds none
    limits: Limits
    missing: str = ""  # why its workers cannot start on this machine, where that is known beforehand
    instances: int = 1
    prepare_ahead: int = 0  # batches that wait in the worker while it executes another


class Backend:
    """One backend of a model: its workers' states, the reason where it is not ready, its costs."""

    def __init__(
        self,
        index: int,
        spec: BackendSpec,
        store: CostStore,
        changed: Callable[[], None],
        start_worker: StartWorker = WorkerProcess.start,
    ) -> None:
        self.index = index
        self.spec = spec
        self._start_worker = start_worker
        self.limits = spec.limits  # narrower than the configured ones where the device ran out of memory
        self.cost = CostModel(spec.limits.max_rows, spec.max_tokens)
        self.slowdown = 1.0  # elapsed time / cost, recently
        self.overhead_ns = 0.0  # the gateway's CPU time for a batch, recently
        self.throughput = ThroughputEstimate()
        self.planned: Planned = ()  # batches that the last plan left
        self._store = store
        self._measuring = asyncio.Lock()
        self._on_gpu = spec.launch.budget.device != "cpu"
        self.reason = spec.missing
        self.start_failed = False  # the last start failed: rows that need this backend cannot wait for it
        self.restarts = 0
        self.workers: set[Worker] = set()
        self.idle_workers: set[Worker] = set()  # of them, those that wait for rows
        self._changed = changed
        self._circumstances: Mapping[str, str] | None = None
        self._unlearned = 0
        self._starting = 0
        self._down = False
        self._failures = 0
        self._spent_ns = 0
        self._wrong_rows = 0

    @property
    def name(self) -> str:
        """Its name among the model's backends."""
        return self.spec.name

    @property
    def state(self) -> State:
        """Its state: ready as soon as one of its workers is."""
        if self.workers:
            return State.READY
        if self._down:
            return State.DOWN
        return State.STARTING if self._starting else State.STOPPED

    @property
    def preference(self) -> float:
        """What a typical batch costs here, ms; the lowest is preferred. Measured here, or else by the gate."""
        if self.cost.fitted:
            rows, length = min(32, self.cost.max_rows), min(64, self.cost.max_length)
            return self.cost.predict_ns(rows, length) / 1e6 * (32 * 64) / (rows * length)
        return self.spec.cpu_ms

    @property
    def ready(self) -> bool:
        """Whether a worker can take a batch."""
        return bool(self.workers)

    @property
    def down(self) -> bool:
        """Whether it failed since it was last ready."""
        return self._down and not self.workers

    @property
    def starting(self) -> bool:
        """Whether a worker is being started."""
        return self._starting > 0

    async def start_worker(self) -> Worker:
        """Start one worker and count it as ready; raises `BackendUnavailable` with the reason."""
        self._starting += 1
        self._changed()
        try:
            worker = await self._start_worker(self.spec.launch)
            try:
                await self._know_costs(worker)
            except (BackendUnavailable, BatchFailed) as error:
                fields = {**self.spec.launch.named, "pid": worker.pid}
                _log.error("a worker's costs cannot be measured: %s", error, extra={"fields": fields})
                await worker.kill()
                raise
            except BaseException:
                await worker.kill()  # cancelled, too: nobody else knows of it
                raise
        except (BackendUnavailable, BatchFailed) as error:
            reason = self.spec.missing or str(error)
            self._failed(f"cannot start: {reason}")
            self.start_failed = True
            raise BackendUnavailable(f"backend {self.name} cannot start: {reason}") from error
        finally:
            self._starting -= 1
        if self._down:
            self.restarts += 1
            _log.info("restarted", extra={"fields": {**self.spec.launch.named, "pid": worker.pid}})
        self.workers.add(worker)
        self.idle_workers.add(worker)
        self._down = self.start_failed = False
        self.reason = ""
        self._changed()
        return worker

    async def start_isolated(self) -> Worker:
        """Start a worker that takes no waiting rows, for those that are isolated; raises `BackendUnavailable`."""
        return await self._start_worker(self.spec.launch)

    def worker_succeeded(self, executed: Executed, rows: int, length: int) -> float | None:
        """Learn from a batch, and forget earlier failures. Returns predicted / actual cost, where one was predicted."""
        self._failures = 0
        self.overhead_ns += _OVERHEAD_RATE * (min(self._spent_ns, _MOST_OVERHEAD_NS) - self.overhead_ns)
        self._spent_ns = 0
        if not self.cost.fitted:
            return None
        actual_ns = cost_ns(executed, on_gpu=self._on_gpu)
        predicted_ns = self.cost.observe(Measurement(rows, length, actual_ns))
        self._unlearned += 1
        if self._unlearned == _REFRESH_EVERY:
            self._unlearned = 0
            self.cost.refresh()
        elapsed_ns = executed.execute_end_ns - executed.execute_start_ns
        self.slowdown += _SLOWDOWN_RATE * (min(_MOST_SLOWDOWN, elapsed_ns / actual_ns) - self.slowdown)
        return predicted_ns / actual_ns

    def watchdog_s(self, rows: int, length: int) -> float:
        """Return how long a batch may take before its worker is taken for hung, s."""
        if not self.cost.fitted:
            return _UNKNOWN_BATCH_S
        predicted_s = self.cost.predict_ns(rows, length) * self.slowdown * (1 + self.spec.prepare_ahead) / 1e9
        return max(_LEAST_HUNG_S, _HUNG_TIMES * predicted_s)

    def spend(self, cpu_ns: int) -> None:
        """Count what the gateway spends on batches: planning, padding, telling rows their answers."""
        self._spent_ns += cpu_ns

    def keep_costs(self) -> None:
        """Write what was learned to the state folder."""
        if self.cost.fitted and self._circumstances is not None:
            self._store.save(self._circumstances, self.cost)

    async def _know_costs(self, worker: Worker) -> None:
        """Find the costs in the state folder, or measure them, once for all workers of the backend."""
        async with self._measuring:
            if self.cost.fitted:
                return
            self._circumstances = {**self.spec.circumstances, **worker.versions}
            known = self._store.load(self._circumstances)
            if known is not None and known.max_length >= self.spec.max_tokens:
                self.cost = known
            if self.cost.fitted or not self.spec.measure_s:
                return
            measurements = await measure(
                worker,
                vocabulary=self.spec.vocabulary,
                max_tokens=self.spec.max_tokens,
                limits=self.limits,
                budget_s=self.spec.measure_s,
                refused=self.refused,
            )
            self.cost.fit(measurements)
            self.keep_costs()

    def worker_died(self, worker: Worker, reason: str) -> None:
        """Count a worker as gone."""
        self._discard(worker)
        self._failed(reason)

    def worker_stopped(self, worker: Worker) -> None:
        """Count a worker as stopped on purpose."""
        self._discard(worker)
        self._changed()

    def backoff_s(self) -> float:
        """Return the pause before the next start, s: doubling from 0.2 to 30, with a tenth of jitter."""
        pause: float = min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0 ** max(0, self._failures - 1))
        return pause * random.uniform(0.9, 1.1)

    def refused(self, error: BatchFailed, rows: int, length: int) -> bool:
        """Halve the padded-token limit if a batch was refused for want of memory. Return whether it was."""
        narrowed = rows > 1 and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
        if narrowed:
            narrower = max(length, min(rows * length, self.limits.max_padded_tokens) // 2)
            _log.warning("%s: out of memory; batches are limited to %d padded tokens", self.name, narrower)
            self.limits = replace(self.limits, max_padded_tokens=narrower)
        return narrowed

    def answered_none(self, model: str, outputs: NDArray[np.float32]) -> str:
        """Return the error of a row whose outputs [labels] hold no probabilities; log it, the more seldom the more."""
        message = f"model {model}: backend {self.name} answered this row with {fault(outputs)}"
        self._wrong_rows += 1
        if str(self._wrong_rows).strip("0") == "1":  # 1, 10, 100, ...
            _log.error("%s (%d rows so far): if it goes on, export the model again", message, self._wrong_rows)
        return message

    def _discard(self, worker: Worker) -> None:
        self.workers.discard(worker)
        self.idle_workers.discard(worker)

    def _failed(self, reason: str) -> None:
        self._down = True
        self._failures += 1
        self.reason = reason
        self._changed()
