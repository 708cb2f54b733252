"""One queue per model, and the loops that feed its workers from it.

Owns the waiting rows, admission to the queue, eviction of expired and abandoned rows, routing between
backends, and what becomes of rows whose worker died. The policy decides which rows go together; the
worker executes them. Knows no text, no wire and no framework.

Routing: a pinned row waits for its backend. A free row goes to the preferred backend (the cheapest, by
measurement, of those that passed the float32 gate); the others take free rows only while it is not ready.

A batch whose worker died, or that the runtime refused, may hold one row that is to blame. Its rows become
suspects: each is executed alone, on the same backend, so that the guilty row fails alone and no other. A worker
can also die of something else at that moment, so a row is only found guilty after several deaths.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from server.core.errors import (
    BackendNotFound,
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    LockstepError,
    ModelNotReady,
    Overloaded,
    RowFailed,
)
from server.core.messages import Answer, BatchFacts, Encoding, Outcome
from server.core.observer import Observer
from server.core.timing import BatchTimes, now_ns
from server.runtimes.worker_process import BatchFailed, WorkerProcess
from server.scheduling.backend import Backend, BackendSpec
from server.scheduling.cost_store import CostStore
from server.scheduling.policy import Dispatch, Limits, Policy, WorkerView
from server.scheduling.waiting import FREE, NO_DEADLINE_NS, Indices, WaitingRows
from server.text.padding import pad

_OVERLOAD_RETRY_S = 0.1
_DEATHS_ALONE = 3
"""Workers that may die while a suspect is alone in them before it is found guilty. One death proves little: the
worker may have been killed from outside. Each costs a restart, in which free rows go to other backends."""
_EXPIRED = "the deadline passed while the row waited for a worker"


@dataclass(frozen=True, slots=True)
class BatcherSpec:
    """How a model is batched."""

    model: str
    version: int
    backends: Sequence[BackendSpec]
    policy: Policy
    limits: Limits
    pad_id: int
    max_queue_rows: int
    start_all: bool = False  # start every backend at once, not only the preferred one


class Call:
    """Rows that were admitted together. `done` is set when each has its outcome."""

    def __init__(self, rows: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * rows
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending = rows
        if not rows:
            self.done.set_result(None)

    def resolve(self, index: int, outcome: Outcome) -> None:
        """Give a row its outcome."""
        self.outcomes[index] = outcome
        self._pending -= 1
        if not self._pending and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Row:
    """A row in the queue or in a worker."""

    call: Call
    index: int  # within the call
    encoding: Encoding
    arrival_ns: int
    deadline_ns: int
    pinned_to: str | None
    suspect: bool = False
    deaths_alone: int = 0
    abandoned: bool = False


class Batcher:
    """The queue of one model and its backends."""

    def __init__(
        self,
        spec: BatcherSpec,
        store: CostStore,
        observer: Observer,
        *,
        readiness_changed: Callable[[], None] = lambda: None,
        clock_ns: Callable[[], int] = now_ns,
    ) -> None:
        self.spec = spec
        self.backends = [
            Backend(index, backend, spec.limits, store, self._backend_changed)
            for index, backend in enumerate(spec.backends)
        ]
        self._by_name = {backend.name: backend for backend in self.backends}
        self._preference = self._by_preference()
        self._observer = observer
        self._readiness_changed = readiness_changed
        self._clock_ns = clock_ns
        self._waiting: WaitingRows[Row] = WaitingRows()
        self._suspects: dict[str, deque[Row]] = {name: deque() for name in self._by_name}
        self._waiters: list[asyncio.Future[None]] = []
        self._held = False
        self._draining = False
        self._executing = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_ns = NO_DEADLINE_NS
        self._loops: list[asyncio.Task[None]] = []

    # ---- admission -------------------------------------------------------------------------------

    def submit(
        self,
        encodings: Sequence[Encoding],
        *,
        arrival_ns: int,
        backend: str | None = None,
        priority: int = 0,
        deadline_ns: int | None = None,
    ) -> Call:
        """Admit rows, all or none, and return their call. Never blocks.

        Raises `BackendNotFound`, `BackendUnavailable` or `ModelNotReady` where nothing can execute them,
        `Overloaded` where they do not fit into the queue; then none was admitted.
        """
        pin = self._pin(backend)
        if len(self._waiting) + len(encodings) > self.spec.max_queue_rows:
            raise Overloaded(
                f"the queue of {self.spec.model} holds {len(self._waiting)} of at most {self.spec.max_queue_rows} rows "
                f"and {len(encodings)} more do not fit: retry later",
                retry_after_s=_OVERLOAD_RETRY_S,
            )
        call = Call(len(encodings))
        deadline = NO_DEADLINE_NS if deadline_ns is None else deadline_ns
        for index, encoding in enumerate(encodings):
            self._waiting.add(
                Row(call, index, encoding, arrival_ns, deadline, backend),
                length=len(encoding.ids),
                arrival_ns=arrival_ns,
                deadline_ns=deadline,
                priority=priority,
                pin=pin,
            )
        self._expire_by(deadline)
        self._notify()
        return call

    def abandon(self, call: Call) -> None:
        """Forget a call whose client has gone: its waiting rows leave the queue at once."""
        mine = [i for i, row in enumerate(self._waiting.entries()) if row.call is call]
        for row in self._waiting.remove(np.array(mine, dtype=np.intp)) if mine else ():
            self._fail(row, Cancelled("the caller has gone"))
        for suspects in self._suspects.values():
            for row in suspects:
                row.abandoned = row.abandoned or row.call is call

    def _pin(self, backend: str | None) -> int:
        if backend is None:
            if all(one.start_failed for one in self._preference):
                reasons = "; ".join(one.reason for one in self._preference)
                raise ModelNotReady(f"no backend of {self.spec.model} can execute: {reasons or 'none takes free rows'}")
            return FREE
        pinned = self.backend(backend)
        if pinned.start_failed:
            raise BackendUnavailable(f"backend {backend} of {self.spec.model} {pinned.reason}")
        return pinned.index

    # ---- state -----------------------------------------------------------------------------------

    @property
    def queued_rows(self) -> int:
        """Rows that wait."""
        return len(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether a free row could be executed now."""
        return any(backend.ready for backend in self._preference)

    @property
    def preferred(self) -> Backend | None:
        """The backend that free rows go to while it is ready."""
        return self._preference[0] if self._preference else None

    def backend(self, name: str) -> Backend:
        """Find a backend by its name. Raises `BackendNotFound`."""
        backend = self._by_name.get(name)
        if backend is None:
            known = ", ".join(sorted(self._by_name))
            raise BackendNotFound(f"{self.spec.model} has no backend {name!r}, only {known}")
        return backend

    def hold(self) -> None:
        """Stop dispatching; rows go on queueing until `release`."""
        self._held = True

    def release(self) -> None:
        """Dispatch again."""
        self._held = False
        self._notify()

    async def drained(self) -> None:
        """Wait until no row waits or executes."""
        self._draining = True
        while len(self._waiting) or self._executing or any(self._suspects.values()):
            await self._next_change()

    # ---- the loops -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start feeding the workers."""
        for backend in self.backends:
            for _ in range(backend.spec.instances):
                self._loops.append(asyncio.create_task(self._run(backend), name=f"{self.spec.model}@{backend.name}"))

    async def stop(self) -> None:
        """Stop the workers at once; rows that still wait fail as `ModelNotReady`."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._expiry is not None:
            self._expiry.cancel()
        stopped = ModelNotReady(f"{self.spec.model} is being stopped: retry")
        self._fail_waiting(lambda row: True, stopped)
        for backend in self.backends:
            self._fail_suspects(backend, stopped)
            backend.keep_costs()

    async def _run(self, backend: Backend) -> None:
        """Keep one worker of a backend alive for as long as rows may need it."""
        while True:
            while not self._wanted(backend):
                await self._next_change()
            try:
                worker = await backend.start_worker()
            except BackendUnavailable as error:
                self._start_failed(backend, error)
                await asyncio.sleep(backend.backoff_s())
                continue
            watcher = asyncio.create_task(self._notify_of_death(worker))
            try:
                await self._feed(backend, worker)
            except BackendUnavailable as error:
                backend.worker_died(worker, str(error))
                await asyncio.sleep(backend.backoff_s())
            finally:
                backend.worker_stopped(worker)
                watcher.cancel()
                await worker.stop()

    async def _feed(self, backend: Backend, worker: WorkerProcess) -> None:
        """Feed a worker until it dies, which raises `BackendUnavailable`."""
        while True:
            rows = await self._next_batch(backend, worker)
            self._executing += 1
            try:
                await self._execute(backend, worker, rows)
            finally:
                self._executing -= 1
                if self._draining:
                    self._notify()

    async def _next_batch(self, backend: Backend, worker: WorkerProcess) -> list[Row]:
        """Wait for rows that the policy gives this worker."""
        while True:
            if worker.exited.is_set():
                raise BackendUnavailable("the worker ended while it was idle")
            self._evict_expired()
            if not self._held:
                if suspect := self._next_suspect(backend):
                    return [suspect]
                view = self._waiting.view()
                others = [self._view(other) for other in self.backends if other is not backend]
                plan = self.spec.policy(view, self._clock_ns(), self._view(backend), others, self.spec.limits)
                if isinstance(plan, Dispatch):
                    return self._waiting.remove(plan.rows)
            await self._next_change()

    async def _execute(self, backend: Backend, worker: WorkerProcess, rows: list[Row]) -> None:
        dispatched_ns = self._clock_ns()
        batch = pad([row.encoding.ids for row in rows], self.spec.pad_id)
        padded_ns = self._clock_ns()
        try:
            executed = await worker.execute(batch.ids, batch.lengths)
        except (BackendUnavailable, BatchFailed) as error:
            self._observer.batch_abandoned(self.spec.model, self.spec.version, backend.name)
            self._suspect(backend, rows, error)
            if isinstance(error, BackendUnavailable):
                raise
            return
        except asyncio.CancelledError:
            for row in rows:
                self._fail(row, ModelNotReady(f"{self.spec.model} is being stopped: retry"))
            raise
        predicted_ratio = backend.worker_succeeded(executed, batch.rows, batch.length)
        probabilities = backend.spec.probabilities(executed.outputs)
        labels: list[int] = probabilities.argmax(axis=1).tolist()
        lengths = [len(row.encoding.ids) for row in rows]
        facts = BatchFacts(
            backend=backend.name,
            rows=batch.rows,
            length=batch.length,
            tokens=sum(lengths),
            lengths=lengths,
            arrivals_ns=[row.arrival_ns for row in rows],
            times=BatchTimes(
                dispatched_ns, padded_ns, executed.execute_start_ns, executed.execute_end_ns, self._clock_ns()
            ),
            cpu_ns=executed.cpu_ns,
            predicted_ratio=predicted_ratio,
        )
        for row, label, values in zip(rows, labels, probabilities.tolist(), strict=True):
            if all(map(math.isfinite, values)):
                row.call.resolve(row.index, Answer(label, values, row.encoding, facts))
            else:
                self._fail(row, RowFailed(f"backend {backend.name} answered this row with NaN or infinity"))
        self._observer.batch_executed(self.spec.model, self.spec.version, facts)

    # ---- what becomes of rows --------------------------------------------------------------------

    def _fail(self, row: Row, error: LockstepError) -> None:
        row.call.resolve(row.index, error)
        self._observer.row_failed(self.spec.model, self.spec.version, row.pinned_to, error)

    def _suspect(self, backend: Backend, rows: Sequence[Row], error: BackendUnavailable | BatchFailed) -> None:
        """Judge the rows of a failed batch: each of several is tried alone, one that was alone may be guilty."""
        if len(rows) == 1 and rows[0].suspect:
            rows[0].deaths_alone += 1
            if isinstance(error, BatchFailed) or rows[0].deaths_alone == _DEATHS_ALONE:
                self._fail(rows[0], RowFailed(f"backend {backend.name} failed on this row alone: {error}"))
                return
        for row in rows:
            row.suspect = True
        self._suspects[backend.name].extend(rows)

    def _next_suspect(self, backend: Backend) -> Row | None:
        suspects = self._suspects[backend.name]
        while suspects:
            row = suspects.popleft()
            if row.abandoned:
                self._fail(row, Cancelled("the caller has gone"))
            elif row.deadline_ns <= self._clock_ns():
                self._fail(row, DeadlineExceeded(_EXPIRED))
            else:
                return row
        return None

    def _start_failed(self, backend: Backend, error: BackendUnavailable) -> None:
        """Fail the rows that only this backend could have executed."""
        self._fail_waiting(lambda row: row.pinned_to == backend.name, error)
        self._fail_suspects(backend, error)
        if all(one.start_failed for one in self._preference):
            self._fail_waiting(lambda row: row.pinned_to is None, ModelNotReady(str(error)))

    def _fail_suspects(self, backend: Backend, error: LockstepError) -> None:
        while self._suspects[backend.name]:
            self._fail(self._suspects[backend.name].popleft(), error)

    def _fail_waiting(self, condition: Callable[[Row], bool], error: LockstepError) -> None:
        rows = [i for i, row in enumerate(self._waiting.entries()) if condition(row)]
        for row in self._waiting.remove(np.array(rows, dtype=np.intp)) if rows else ():
            self._fail(row, error)

    def _evict_expired(self) -> None:
        expired: Indices = np.flatnonzero(self._waiting.view().deadline_ns <= self._clock_ns())
        if len(expired):
            for row in self._waiting.remove(expired):
                self._fail(row, DeadlineExceeded(_EXPIRED))

    def _expire_by(self, deadline_ns: int) -> None:
        """Make sure that eviction runs at the earliest deadline, though no worker is free then."""
        if deadline_ns >= self._expiry_ns:
            return
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry_ns = deadline_ns
        delay_s = max(0, deadline_ns - self._clock_ns()) / 1e9 + 0.001
        self._expiry = asyncio.get_running_loop().call_later(delay_s, self._expire)

    def _expire(self) -> None:
        self._expiry, self._expiry_ns = None, NO_DEADLINE_NS
        self._evict_expired()
        if len(self._waiting):
            self._expire_by(int(self._waiting.view().deadline_ns.min()))

    # ---- routing ---------------------------------------------------------------------------------

    def _view(self, backend: Backend) -> WorkerView:
        preferred = self.preferred
        takes_free = backend.spec.takes_free_rows and (backend is preferred or preferred is None or not preferred.ready)
        return WorkerView(
            backend.index, takes_free, backend.cost.table() if backend.cost.fitted else None, backend.slowdown
        )

    def _by_preference(self) -> list[Backend]:
        return sorted((one for one in self.backends if one.spec.takes_free_rows), key=lambda one: one.preference)

    def _wanted(self, backend: Backend) -> bool:
        """Whether the backend should have workers: it is preferred, stands in for one that is down, or is asked for."""
        if self.spec.start_all or backend.down or self._suspects[backend.name]:
            return True
        stand_in = next((one for one in self._preference if not one.down), None)
        return backend is stand_in or bool((self._waiting.view().pin == backend.index).any())

    # ---- waking ----------------------------------------------------------------------------------

    def _backend_changed(self) -> None:
        self._preference = self._by_preference()
        self._notify()
        self._readiness_changed()

    def _notify(self) -> None:
        """Wake everyone who waits for a change."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _next_change(self) -> None:
        """Wait until something changed. What is checked before it is called cannot be missed: nothing runs between."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def _notify_of_death(self, worker: WorkerProcess) -> None:
        await worker.exited.wait()
        self._notify()
