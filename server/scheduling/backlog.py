"""The rows of one model that wait: admission, eviction, withdrawal. Knows no backend and no worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.errors import Cancelled, DeadlineExceeded, LockstepError, Overloaded
from lockstep.server.core.messages import Encoding
from lockstep.server.scheduling.calls import Call, Row
from lockstep.server.scheduling.waiting import NO_DEADLINE_NS, Indices, Waiting, WaitingRows

EXPIRED = "the deadline passed while the row waited for a worker"
HOPELESS = "the deadline would pass before the row could be executed"
_OVERLOAD_RETRY_S = 0.1
Durations = NDArray[np.float64]  # ns, [length] from 0


class Backlog:
    """A bounded queue of rows. `fail` gives a row that leaves unexecuted its error."""

    def __init__(
        self, model: str, max_rows: int, fail: Callable[[Row, LockstepError], None], clock_ns: Callable[[], int]
    ) -> None:
        self._model = model
        self._max_rows = max_rows
        self._fail = fail
        self._clock_ns = clock_ns
        self._rows: WaitingRows[Row] = WaitingRows()
        self._earliest_ns = NO_DEADLINE_NS  # no later than the earliest deadline among the rows
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def admit(
        self,
        encodings: Sequence[Encoding],
        *,
        arrival_ns: int,
        deadline_ns: int | None,
        priority: int,
        pin: int,
        pinned_to: str | None,
    ) -> Call:
        """Queue rows, all or none; raises `Overloaded` where they do not fit."""
        self.check_room(len(encodings))
        call = Call(len(encodings))
        deadline = NO_DEADLINE_NS if deadline_ns is None else min(deadline_ns, NO_DEADLINE_NS)
        for index, encoding in enumerate(encodings):
            self._rows.add(
                Row(call, index, encoding, arrival_ns, deadline, pinned_to),
                length=len(encoding.ids),
                arrival_ns=arrival_ns,
                deadline_ns=deadline,
                priority=priority,
                pin=pin,
            )
        if encodings and deadline < self._earliest_ns:
            self._wake_at(deadline)
        return call

    def check_room(self, rows: int) -> None:
        """Raise `Overloaded` where so many rows do not fit."""
        if len(self._rows) + rows > self._max_rows:
            raise Overloaded(
                f"the queue of {self._model} holds {len(self._rows)} rows, {rows} more do not fit, "
                f"at most {self._max_rows} may wait (--max-queue-rows): retry later",
                retry_after_s=_OVERLOAD_RETRY_S,
                limit="max_queue_rows",
            )

    def tokens_ahead(self, priority: int, pins: Sequence[int]) -> int:
        """Return the tokens of the rows with these pins that a newcomer of that priority comes after."""
        view = self._rows.view()
        ahead = view.priority >= priority
        if len(pins) == 1:
            ahead &= view.pin == pins[0]
        else:
            ahead &= np.isin(view.pin, pins)
        return int(view.length[ahead].sum())

    def view(self) -> Waiting:
        """Return the waiting rows; valid until the next change."""
        return self._rows.view()

    def take(self, rows: Indices) -> list[Row]:
        """Take rows out, to be executed."""
        return self._rows.remove(rows)

    def evict(self, least_ns: Callable[[int], Durations | None] = lambda pin: None) -> None:
        """Fail the rows whose deadline has passed, or would while they were executed alone at once.

        `least_ns` gives, for a pin, the time of one row alone by its length, [length] from 0, on the fastest of the
        backends that may take such a row; None if that is not known of every one of them.
        """
        now = self._clock_ns()
        if self._earliest_ns == NO_DEADLINE_NS:
            return
        view = self._rows.view()
        ends = np.full(len(view), now, dtype=np.float64)
        alike = len(view) > 0 and (view.pin == view.pin[0]).all()
        for pin in view.pin[:1].tolist() if alike else np.unique(view.pin).tolist():
            if (alone := least_ns(pin)) is not None:
                mine = view.pin == pin
                ends[mine] += alone[np.minimum(view.length[mine], len(alone) - 1)]
        late = np.flatnonzero(view.deadline_ns <= ends)
        if not len(late):
            return
        for row in self._rows.remove(late):
            self._fail(row, DeadlineExceeded(EXPIRED if row.deadline_ns <= now else HOPELESS))

    def withdraw(self, call: Call) -> None:
        """Take out the rows of a call whose caller has gone."""
        mine = [i for i, row in enumerate(self._rows.entries()) if row.call is call]
        self._fail_rows(mine, Cancelled("the caller has gone"))

    def fail_where(self, condition: Callable[[Row], bool], error: LockstepError) -> None:
        """Fail the waiting rows that meet a condition."""
        self._fail_rows([i for i, row in enumerate(self._rows.entries()) if condition(row)], error)

    def close(self) -> None:
        """Stop watching deadlines."""
        if self._timer is not None:
            self._timer.cancel()

    def _fail_rows(self, rows: Sequence[int], error: LockstepError) -> None:
        for row in self._rows.remove(np.array(rows, dtype=np.intp)) if rows else ():
            self._fail(row, error)

    def _wake_at(self, deadline_ns: int) -> None:
        """Evict at the earliest deadline, though no worker asks for rows then."""
        if self._timer is not None:
            self._timer.cancel()
        self._earliest_ns = deadline_ns
        delay_s = max(0, deadline_ns - self._clock_ns()) / 1e9 + 0.001
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.evict()
        earliest_ns = int(self._rows.view().deadline_ns.min()) if len(self._rows) else NO_DEADLINE_NS
        self._earliest_ns = NO_DEADLINE_NS
        if earliest_ns < NO_DEADLINE_NS:
            self._wake_at(earliest_ns)
