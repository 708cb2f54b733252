"""One queue per model, and the loops that feed its workers from it.

Owns routing between backends, and when workers start and stop. The backlog holds the waiting rows, the policy decides
which go together, the worker executes them. Knows no text, no wire and no framework.

Routing: a pinned row waits for its backend. A free row goes to the preferred backend (the cheapest, by
measurement, of those that passed the float32 gate); the others take free rows only while it is not ready, or
where the configuration says `spread`, because their devices are separate.

Workers: the preferred backend has one at once. Others, and more of the same, start when rows wait for them, and
stop when they have been idle.

A new version's batcher is warmed up before any row comes to it, and the old one's drained when none comes any more.

The rows of a batch that failed go to the backend's isolation.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from lockstep.server.core.errors import (
    BackendNotFound,
    BackendUnavailable,
    DeadlineExceeded,
    LockstepError,
    ModelNotReady,
    Overloaded,
    RowFailed,
)
from lockstep.server.core.messages import Answer, BatchFacts, Encoding, PaddedBatch
from lockstep.server.core.observer import Observer
from lockstep.server.core.timing import BatchTimes, now_ns
from lockstep.server.runtimes.worker_process import BatchFailed, Executed, WorkerProcess
from lockstep.server.scheduling.backend import Backend, BackendSpec, State
from lockstep.server.scheduling.backlog import Backlog, Durations
from lockstep.server.scheduling.calls import Call, Row
from lockstep.server.scheduling.cost_store import CostStore
from lockstep.server.scheduling.isolation import Isolation, IsolationHooks
from lockstep.server.scheduling.policy import Dispatch, Plan, Policy, Wait, WorkerView, none
from lockstep.server.scheduling.slots import SlotLease, WorkerSlots
from lockstep.server.scheduling.waiting import FREE
from lockstep.server.scheduling.wakeup import Wakeup
from lockstep.server.scheduling.worker import StartWorker, Worker
from lockstep.server.text.padding import pad

_log = logging.getLogger("lockstep.batcher")

_INTERNAL = "internal error; the server's log tells more"
_LEAST_RETRY_S, _MOST_RETRY_S = 0.1, 5.0
"""Of the pushback of a refused call, which is the time until what waits now is gone."""
_QUIET_TURNS = 8
"""Turns of the event loop without a new row after which no more are on their way: some 50 us for a lone row."""
_MOST_TURNS = 64
_ENOUGH_ROWS = 64
"""Rows that are worth a plan without waiting for others: what a batch costs beside its execution is small for each."""


@dataclass(frozen=True, slots=True)
class BatcherSpec:
    """How a model is batched."""

    model: str
    version: int
    backends: Sequence[BackendSpec]
    policy: Policy
    pad_id: int
    max_queue_rows: int
    max_queue_s: float = math.inf
    start_all: bool = False  # start every worker at once
    spread: bool = False  # free rows go to every backend: their devices are separate
    preferred: str | None = None  # by configuration; None: by measured cost
    idle_stop_s: float = 300.0  # workers that are not the preferred backend's first stop when idle so long


class Batcher:
    """The queue of one model and its backends."""

    def __init__(
        self,
        spec: BatcherSpec,
        store: CostStore,
        slots: WorkerSlots,
        observer: Observer,
        *,
        readiness_changed: Callable[[], None] = lambda: None,
        clock_ns: Callable[[], int] = now_ns,
        start_worker: StartWorker = WorkerProcess.start,
    ) -> None:
        self.spec = spec
        self.backends = [
            Backend(index, backend, store, self._backend_changed, start_worker)
            for index, backend in enumerate(spec.backends)
        ]
        self._by_name = {backend.name: backend for backend in self.backends}
        self._preference = self._by_preference()
        self._slots = slots
        self._observer = observer
        self._readiness_changed = readiness_changed
        self._clock_ns = clock_ns
        self._backlog = Backlog(spec.model, spec.max_queue_rows, self._fail, clock_ns)
        hooks = IsolationHooks(self._execute, self._fail, self._ended_by_bug, clock_ns)
        self._isolations = [
            Isolation(f"{spec.model}@{backend.name}/q", backend, slots, hooks) for backend in self.backends
        ]
        self._starting = Wakeup()  # wakes loops that have no worker
        self._idle = [Wakeup() for _ in self.backends]  # wakes the idle workers of each backend
        self._idle_clock: asyncio.Task[None] | None = None
        self._held = False
        self._expected = 0  # calls that will submit rows
        self._executing = 0  # batches
        self._settled = Wakeup()  # wakes who waits for the last row
        self._warming: Mapping[str, int] | None = None  # workers to start although no row waits; None: none
        self._replaces = False  # an older version is still there
        self._changed = Wakeup()
        self._surging: list[SlotLease] = []
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
        try:
            call = self._backlog.admit(
                encodings,
                arrival_ns=arrival_ns,
                deadline_ns=deadline_ns,
                priority=priority,
                pin=pin,
                pinned_to=backend,
            )
        except Overloaded as error:
            self._observer.limit_reached(error.limit)
            raise
        self._rows_arrived(self._by_name[backend] if backend else self.preferred)
        return call

    def check_admission(self, rows: int, *, backend: str | None, priority: int, deadline_ns: int | None) -> None:
        """Refuse rows that `submit` would, before anything is spent on them; raises as it does.

        `Overloaded` too where the rows before them take too long: more than half of the time until the deadline (the
        other half is for what cannot be predicted), or more than `max_queue_s`; `DeadlineExceeded` where none is left.
        """
        self._pin(backend)
        try:
            self._backlog.check_room(rows)
            left_s = math.inf if deadline_ns is None else (deadline_ns - self._clock_ns()) / 1e9
            if left_s <= 0:
                raise DeadlineExceeded("the deadline had passed before a row was queued")
            bound_s = min(self.spec.max_queue_s, left_s / 2)
            wait_s = self.expected_wait_s(backend, priority, unless_below_s=bound_s)
            if wait_s <= bound_s:
                return
            if wait_s > self.spec.max_queue_s:
                limit, why = "max_queue_s", f"more than {self.spec.max_queue_s:g} s (--max-queue-s)"
            else:
                limit, why = "deadline", f"more than half of the {max(0.0, left_s):.2f} s that the call has"
            raise Overloaded(
                f"the rows that wait for {self.spec.model} take about {wait_s:.2f} s, {why}: retry later",
                retry_after_s=min(_MOST_RETRY_S, max(_LEAST_RETRY_S, wait_s)),
                limit=limit,
            )
        except Overloaded as error:
            self._observer.limit_reached(error.limit)
            raise

    def expected_wait_s(self, backend: str | None = None, priority: int = 0, *, unless_below_s: float = 0.0) -> float:
        """Return how long a row that came now would wait, by the recent throughput; 0 where nothing is known of it.

        Where it is surely below `unless_below_s`, the rows are not looked at, and 0 is returned.

        Rows wait for each other where the same workers take them: those pinned to a backend, and free rows for the
        backends that take them now.
        """
        if not len(self._backlog):
            return 0.0
        takers = [self._by_name[backend]] if backend else [one for one in self._preference if self._takes_free(one)]
        tokens_per_ns = 0.0
        for one in takers:
            pace = one.throughput.ns_per_token
            if one.workers and pace:
                tokens_per_ns += len(one.workers) * (1 + one.spec.prepare_ahead) / pace
        if not tokens_per_ns:
            return 0.0
        longest = max(one.spec.max_tokens for one in takers)
        if len(self._backlog) * longest / tokens_per_ns / 1e9 < unless_below_s:
            return 0.0
        pins = [one.index for one in takers] + [FREE] * any(self._takes_free(one) for one in takers)
        return self._backlog.tokens_ahead(priority, pins) / tokens_per_ns / 1e9

    def abandon(self, call: Call) -> None:
        """Forget a call whose client has gone: its waiting rows leave the queue at once."""
        self._backlog.withdraw(call)
        for isolation in self._isolations:
            isolation.abandon(call)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Announce rows that will be submitted before the block ends: who drains waits for them."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self._settled.notify()

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
        return len(self._backlog)

    @property
    def ready(self) -> bool:
        """Whether a free row could be executed now."""
        return any(backend.ready for backend in self._preference)

    @property
    def waits_its_turn(self) -> bool:
        """Whether it has no worker only because others have all that there may be: it gets one when rows come."""
        stopped = all(backend.state is State.STOPPED for backend in self._preference)
        return bool(self._preference) and stopped and not self._slots.free

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

    # ---- the loops -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start feeding the workers."""
        for backend in self.backends:
            for number in range(backend.spec.instances):
                name = f"{self.spec.model}@{backend.name}/{number}"
                self._loops.append(asyncio.create_task(self._keep_running(backend, number), name=name))

        self._idle_clock = asyncio.create_task(self._tell_the_time())

    async def warm_up(self, workers: Mapping[str, int], *, replaces: bool) -> None:
        """Start, and know the costs of, so many workers of each backend and one that takes free rows.

        Where it `replaces` an older version, they come on top of the bound on workers until `count_workers`. Raises
        `BackendUnavailable` or `ModelNotReady` where one cannot start; then, and where it is cancelled, `stop` it.
        """
        self._warming, self._replaces = workers, replaces
        self.start()
        try:
            while not self._warm(workers):
                await self._changed.wait()
        finally:
            self._warming = None

    def count_workers(self) -> None:
        """Count the workers that came on top of the bound: those that they replaced have gone."""
        self._replaces = False
        while self._surging:
            self._slots.count(self._surging.pop())

    async def drain(self) -> None:
        """Answer every row that is here or expected, then stop the workers. The caller sends no new ones."""
        while (
            self._expected
            or self._executing
            or len(self._backlog)
            or not all(isolation.empty for isolation in self._isolations)
        ):
            await self._settled.wait()
        await self.stop()

    async def stop(self) -> None:
        """Stop the workers at once; rows that still wait fail as `ModelNotReady`."""
        tasks = list(self._loops)
        if self._idle_clock is not None:
            tasks.append(self._idle_clock)
        for task in tasks:
            task.cancel()
        isolations = [isolation.stop() for isolation in self._isolations]
        await asyncio.gather(*tasks, *isolations, return_exceptions=True)
        self._backlog.close()
        stopped = ModelNotReady(f"{self.spec.model} is being stopped: retry")
        self._backlog.fail_where(lambda row: True, stopped)
        for isolation in self._isolations:
            isolation.fail_all(stopped)
        for backend in self.backends:
            backend.keep_costs()

    async def _keep_running(self, backend: Backend, number: int) -> None:
        """Run a worker's loop again where a bug of ours ends it: one bad plan must not end a backend."""
        while True:
            try:
                await self._run(backend, number)
            except Exception as error:
                self._ended_by_bug(f"{self.spec.model}@{backend.name}/{number}", error)
                await asyncio.sleep(backend.backoff_s())

    async def _run(self, backend: Backend, number: int) -> None:
        """Keep one worker of a backend alive for as long as rows may need it."""
        while True:
            while not (
                self._needed(backend)
                or (self._standing_by(backend, number) and self._slots.free)
                or self._awaited(backend, number)
            ):
                await self._starting.wait()
            lease = SlotLease(self._idle[backend.index].notify)
            if self._replaces and self._awaited(backend, number):
                self._slots.surge(lease)
                self._surging.append(lease)
            else:
                await self._slots.enter(lease)
            failed = False
            try:
                await self._run_worker(backend, number, lease)
            except BackendUnavailable as error:
                failed = True
                if backend.start_failed:
                    self._start_failed(backend, error)
            finally:
                self._slots.exit(lease)
                if lease in self._surging:
                    self._surging.remove(lease)
            if failed:  # without the slot: a healthy model must not wait for one that cannot start
                await asyncio.sleep(backend.backoff_s())

    async def _run_worker(self, backend: Backend, number: int, lease: SlotLease) -> None:
        """Start a worker and feed it until it has been idle; raises `BackendUnavailable` where it dies."""
        worker = await backend.start_worker()
        lease.ready_since_s = asyncio.get_running_loop().time()
        watcher = asyncio.create_task(self._notify_of_death(backend, worker))
        feeds = [self._feed(backend, number, worker, lease) for _ in range(1 + backend.spec.prepare_ahead)]
        try:
            errors = [ended for ended in await asyncio.gather(*feeds, return_exceptions=True) if ended is not None]
            for bug in errors:
                if not isinstance(bug, BackendUnavailable):
                    raise bug
            for death in errors:
                backend.worker_died(worker, str(death))
                raise death
        finally:
            backend.worker_stopped(worker)
            watcher.cancel()
            await worker.stop()

    async def _feed(self, backend: Backend, number: int, worker: Worker, lease: SlotLease) -> None:
        """Give a worker batches, one after the other; several feeds keep the next one ready for it."""
        try:
            while rows := await self._next_batch(backend, number, worker, lease):
                await self._execute(backend, worker, rows)
        except BackendUnavailable:
            raise
        except Exception:  # a bug of ours: the worker's other feeds end too, their rows go to the isolation
            await worker.kill()
            raise

    async def _next_batch(self, backend: Backend, number: int, worker: Worker, lease: SlotLease) -> list[Row] | None:
        """Wait for rows that the policy gives this worker; None where it should stop."""
        idle_from_ns = self._clock_ns()
        while True:
            until_ns: int | None = None
            if worker.exited.is_set():
                raise BackendUnavailable(f"{worker.ended} while it was idle")
            if lease.asked:
                return None
            if not self._held and len(self._backlog):
                if not backend.planned and not await self._all_arrived():
                    continue
                began_ns = time.thread_time_ns()
                if worker.exited.is_set():  # while rows were gathered
                    continue
                self._backlog.evict(self._least_ns)
                plan = self._plan(backend)
                if isinstance(plan, Wait) and plan.until_ns is not None:
                    until_ns = plan.until_ns
                if isinstance(plan, Dispatch):
                    backend.planned = plan.planned
                    lease.idle_since_ns = None
                    backend.idle_workers.discard(worker)
                    rows = self._backlog.take(plan.rows)
                    backend.spend(time.thread_time_ns() - began_ns)
                    return rows
            if lease.idle_since_ns is None:
                lease.idle_since_ns = idle_from_ns
                backend.idle_workers.add(worker)
                self._slots.changed()
            idle_s = (self._clock_ns() - idle_from_ns) / 1e9
            if idle_s >= self.spec.idle_stop_s and not self._standing_by(backend, number):
                return None
            await self._idle[backend.index].wait(None if until_ns is None else (until_ns - self._clock_ns()) / 1e9)

    def _plan(self, backend: Backend) -> Plan:
        """Ask the policy. Where it fails by a bug of ours, the oldest row goes alone, and no other row is touched."""
        waiting, view = self._backlog.view(), self._view(backend)
        try:
            return self.spec.policy(waiting, self._clock_ns(), view, backend.limits)
        except Exception as error:
            _log.critical(
                "%s@%s: a plan failed: the oldest row goes alone", self.spec.model, backend.name, exc_info=error
            )
            return none(waiting, self._clock_ns(), view, backend.limits)

    def _least_ns(self, pin: int) -> Durations | None:
        """Return how long a row of this pin takes alone, by its length, on the fastest backend that may take it."""
        takers = [one for one in self.backends if (self._takes_free(one) if pin == FREE else one.index == pin)]
        if not takers or not all(one.cost.fitted for one in takers):
            return None
        alone: list[Durations] = [one.cost.table()[1] * one.slowdown for one in takers]
        if len(alone) == 1:
            return alone[0]
        longest = max(len(one) for one in alone)
        least: Durations = np.min([np.pad(one, (0, longest - len(one)), constant_values=np.inf) for one in alone], 0)
        return least

    async def _all_arrived(self) -> bool:
        """Let rows that were received join those that wait; False where what was true before may not be so now.

        No timer: it ends as soon as the event loop has nothing new. Where the gateway itself is the bottleneck, workers
        would else take rows by ones and twos as they come, and every batch costs it the more.
        """
        waiting, quiet = len(self._backlog), 0
        for _ in range(_MOST_TURNS):
            if quiet == _QUIET_TURNS or waiting >= _ENOUGH_ROWS:
                break
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._backlog) <= waiting else 0
            waiting = len(self._backlog)
        return waiting > 0 and not self._held

    async def _execute(self, backend: Backend, worker: Worker, rows: list[Row]) -> None:
        """Execute rows together; each has its outcome, or became a suspect. Raises `BackendUnavailable`."""
        self._executing += 1
        try:
            await self._execute_batch(backend, worker, rows)
        except BackendUnavailable:
            raise
        except Exception:  # a bug of ours: these rows are in nobody's hands any more
            for row in rows:
                if row.call.outcomes[row.index] is None:
                    self._fail(row, RowFailed(_INTERNAL))
            raise
        finally:
            self._executing -= 1
            self._settled.notify()

    async def _execute_batch(self, backend: Backend, worker: Worker, rows: list[Row]) -> None:
        dispatched_ns, began_ns = self._clock_ns(), time.thread_time_ns()
        batch = pad([row.encoding.ids for row in rows], self.spec.pad_id)
        padded_ns, more_waited = self._clock_ns(), len(self._backlog) > 0
        backend.spend(time.thread_time_ns() - began_ns)
        try:
            executed = await self._watched(backend, worker, batch)
        except (BackendUnavailable, BatchFailed) as error:
            self._observer.batch_abandoned(self.spec.model, self.spec.version, backend.name)
            if isinstance(error, BatchFailed):
                backend.refused(error, batch.rows, batch.length)
            self._isolations[backend.index].take_in(rows, error)
            if isinstance(error, BackendUnavailable):
                raise
            return
        except asyncio.CancelledError:
            for row in rows:
                self._fail(row, ModelNotReady(f"{self.spec.model} is being stopped: retry"))
            raise
        began_ns = time.thread_time_ns()
        predicted_ratio = backend.worker_succeeded(executed, batch.rows, batch.length)
        probabilities = backend.spec.probabilities(executed.outputs)
        labels: list[int] = probabilities.argmax(axis=1).tolist()
        lengths = [len(row.encoding.ids) for row in rows]
        responded_ns = self._clock_ns()
        if more_waited:
            backend.throughput.observe(responded_ns - dispatched_ns, sum(lengths))
        facts = BatchFacts(
            backend=backend.name,
            rows=batch.rows,
            length=batch.length,
            tokens=sum(lengths),
            lengths=lengths,
            arrivals_ns=[row.arrival_ns for row in rows],
            times=BatchTimes(
                dispatched_ns, padded_ns, executed.execute_start_ns, executed.execute_end_ns, responded_ns
            ),
            cpu_ns=executed.cpu_ns,
            predicted_ratio=predicted_ratio,
        )
        for place, (row, label, values) in enumerate(zip(rows, labels, probabilities.tolist(), strict=True)):
            if all(map(math.isfinite, values)):
                row.call.resolve(row.index, Answer(label, values, row.encoding, facts))
            else:
                self._fail(row, RowFailed(backend.answered_none(self.spec.model, executed.outputs[place])))
        self._observer.batch_executed(self.spec.model, self.spec.version, facts)
        backend.spend(time.thread_time_ns() - began_ns)

    async def _watched(self, backend: Backend, worker: Worker, batch: PaddedBatch) -> Executed:
        """Execute a batch; one that takes a multiple of its predicted time is abandoned, and its worker killed.

        Raises `BackendUnavailable` then, as where the worker ends by itself: its rows go where those of a crash go.
        """
        bound_s = backend.watchdog_s(batch.rows, batch.length)
        try:
            async with asyncio.timeout(bound_s):
                return await worker.execute(batch.ids, batch.lengths)
        except TimeoutError:
            reason = f"a batch of {batch.rows} rows x {batch.length} tokens took longer than {bound_s:.0f} s"
            fields = {**backend.spec.launch.named, "pid": worker.pid}
            _log.warning("%s: it is abandoned and its worker killed", reason, extra={"fields": fields})
            await worker.kill()
            raise BackendUnavailable(f"{reason}, and its worker was killed") from None

    # ---- what becomes of rows --------------------------------------------------------------------

    def _fail(self, row: Row, error: LockstepError) -> None:
        row.call.resolve(row.index, error)
        self._observer.row_failed(self.spec.model, self.spec.version, row.pinned_to, error)
        self._settled.notify()

    def _start_failed(self, backend: Backend, error: BackendUnavailable) -> None:
        """Fail the rows that only this backend could have executed."""
        self._backlog.fail_where(lambda row: row.pinned_to == backend.name, error)
        if all(one.start_failed for one in self._preference):
            self._backlog.fail_where(lambda row: row.pinned_to is None, ModelNotReady(str(error)))

    def _ended_by_bug(self, loop: str, error: BaseException) -> LockstepError:
        """Say it loudly, and fail the rows that wait: they may be what it cannot bear. Returns what they are told."""
        _log.critical("%s ended unexpectedly", loop, exc_info=error)
        told = RowFailed(_INTERNAL)
        self._backlog.fail_where(lambda row: True, told)
        return told

    # ---- routing ---------------------------------------------------------------------------------

    def _takes_free(self, backend: Backend) -> bool:
        preferred = self.preferred
        return backend.spec.takes_free_rows and (
            self.spec.spread or backend is preferred or preferred is None or not preferred.ready
        )

    def _view(self, backend: Backend) -> WorkerView:
        costs = backend.cost.table() if backend.cost.fitted else None
        return WorkerView(
            backend.index,
            self._takes_free(backend),
            costs,
            backend.slowdown,
            backend.overhead_ns,
            planned=backend.planned,
        )

    def _by_preference(self) -> list[Backend]:
        taking = [one for one in self.backends if one.spec.takes_free_rows]
        return sorted(taking, key=lambda one: (one.name != self.spec.preferred, one.preference))

    def _standing_by(self, backend: Backend, number: int) -> bool:
        """Whether a worker should be there before rows need it: the first of the preferred backend or its stand-in."""
        if self.spec.start_all:
            return True
        stand_in = next((one for one in self._preference if not one.down), None)
        return number == 0 and (backend.down or backend is stand_in)

    def _awaited(self, backend: Backend, number: int) -> bool:
        """Whether whoever warms us up waits for this worker."""
        if self._warming is None:
            return False
        return number < self._warming.get(backend.name, 0) or self._standing_by(backend, number)

    def _warm(self, workers: Mapping[str, int]) -> bool:
        """Whether the workers are there; raises `BackendUnavailable`, `ModelNotReady` where one cannot start."""
        for name, count in workers.items():
            self._pin(name)
            if len(self._by_name[name].workers) < count:
                return False
        self._pin(None)
        return self.ready

    def _needed(self, backend: Backend) -> bool:
        """Whether rows wait that another worker of this backend could take, and none that is ready is idle."""
        if not len(self._backlog) or backend.idle_workers or backend.starting:
            return False
        pins = self._backlog.view().pin
        return bool((pins == backend.index).any()) or (self._view(backend).takes_free and bool((pins == FREE).any()))

    # ---- waking ----------------------------------------------------------------------------------

    def _backend_changed(self) -> None:
        self._preference = self._by_preference()
        self._notify()
        self._changed.notify()
        self._readiness_changed()

    def _rows_arrived(self, backend: Backend | None) -> None:
        """Wake who may take new rows: they are pinned to `backend`, or free and it is preferred."""
        if backend is None:
            return
        if self.spec.spread or not backend.ready:
            self._notify()
            return
        self._idle[backend.index].notify()
        if not backend.idle_workers and len(backend.workers) < backend.spec.instances and not backend.starting:
            self._starting.notify()

    def _notify(self) -> None:
        """Wake everyone."""
        self._starting.notify()
        for wakeup in self._idle:
            wakeup.notify()

    async def _notify_of_death(self, backend: Backend, worker: Worker) -> None:
        await worker.exited.wait()
        self._idle[backend.index].notify()

    async def _tell_the_time(self) -> None:
        """Let idle workers look at the clock now and then."""
        while True:
            await asyncio.sleep(self.spec.idle_stop_s / 4)
            self._notify()
