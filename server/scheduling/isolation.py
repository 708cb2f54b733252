"""Where the rows of a failed batch go: each is executed alone, so that the failing one fails alone and delays no other.

A batch whose worker died, or that the runtime refused, may hold one row that is to blame. Its rows become suspects:
each is executed by itself, on the same backend, by a worker that is kept for suspects. A worker can also die of
something else at that moment, so a row is only found failing after several deaths.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.server.core.errors import BackendUnavailable, Cancelled, DeadlineExceeded, LockstepError, RowFailed
from lockstep.server.runtimes.worker_process import BatchFailed
from lockstep.server.scheduling.backend import Backend
from lockstep.server.scheduling.backlog import EXPIRED
from lockstep.server.scheduling.calls import Call, Row
from lockstep.server.scheduling.slots import SlotLease, WorkerSlots
from lockstep.server.scheduling.worker import Worker

_TRIES_ALONE: Final = 3
"""Executions by itself whose worker died that find a row failing. One death proves little: the worker may have been
killed from outside."""

_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class IsolationHooks:
    """What a isolation needs of the batcher that it belongs to."""

    execute: Callable[[Backend, Worker, list[Row]], Awaitable[None]]
    """Executes a batch. Each of its rows has its outcome afterwards, or was taken in again; raises
    `BackendUnavailable` where the worker died."""

    fail: Callable[[Row, LockstepError], None]
    """Gives a row its error."""

    ended_by_bug: Callable[[str, BaseException], LockstepError]
    """Hears of what should not happen, under the name of what it ended; returns what rows are told of it."""

    clock_ns: Callable[[], int]


class Isolation:
    """The suspects of one backend, and the task that tries them while there are any."""

    def __init__(self, name: str, backend: Backend, slots: WorkerSlots, hooks: IsolationHooks) -> None:
        self._name = name
        self._backend = backend
        self._slots = slots
        self._hooks = hooks
        self._suspects: deque[Row] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether suspects are tried."""
        return self._task is not None and not self._task.done()

    @property
    def empty(self) -> bool:
        """Whether no suspect waits."""
        return not self._suspects

    def take_in(self, rows: Sequence[Row], error: BackendUnavailable | BatchFailed) -> None:
        """Suspect every row of a batch that failed. One that was alone in a batch refused is failing at once."""
        if isinstance(error, BatchFailed) and len(rows) == 1:
            self._fail_row(rows[0], error)
            return
        self._suspects.extend(rows)
        if not self.active:
            self._task = asyncio.create_task(self._try_all(), name=self._name)
            self._task.add_done_callback(self._ended)

    def abandon(self, call: Call) -> None:
        """Try no row of a call whose client has gone."""
        for row in self._suspects:
            row.abandoned = row.abandoned or row.call is call

    def fail_all(self, error: LockstepError) -> None:
        """Give every suspect that waits an error."""
        while self._suspects:
            self._hooks.fail(self._suspects.popleft(), error)

    async def stop(self) -> None:
        """Stop trying; suspects that wait go on waiting, for `fail_all`."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _try_all(self) -> None:
        """Execute suspects, each alone, on workers that take nothing else, until none is left."""
        while self._suspects:
            lease = SlotLease(lambda: None)
            await self._slots.enter(lease)
            try:
                await self._try_on_a_worker()
            finally:
                self._slots.exit(lease)
            if self._suspects:
                await asyncio.sleep(_PAUSE_S)

    async def _try_on_a_worker(self) -> None:
        """Execute suspects until none is left or one's worker has died."""
        try:
            worker = await self._backend.start_isolated()
        except BackendUnavailable as error:
            self.fail_all(BackendUnavailable(f"backend {self._backend.name} cannot start: {error}"))
            return
        try:
            while (row := self._next()) is not None:
                row.tries_alone += 1
                try:
                    await self._hooks.execute(self._backend, worker, [row])
                except BackendUnavailable as error:
                    if row.tries_alone == _TRIES_ALONE:
                        self._suspects.remove(row)
                        self._fail_row(row, error)
                    return
        finally:
            await worker.stop()

    def _next(self) -> Row | None:
        while self._suspects:
            row = self._suspects.popleft()
            if row.abandoned:
                self._hooks.fail(row, Cancelled("the caller has gone"))
            elif row.deadline_ns <= self._hooks.clock_ns():
                self._hooks.fail(row, DeadlineExceeded(EXPIRED))
            else:
                return row
        return None

    def _fail_row(self, row: Row, error: BackendUnavailable | BatchFailed) -> None:
        failing = RowFailed(f"backend {self._backend.name} failed on this row alone", detail=str(error))
        self._hooks.fail(row, failing)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail_all(self._hooks.ended_by_bug(self._name, error))
