"""How many workers a server may have at once, over all its models. An idle one makes room for one that is needed.

Where none is idle, whoever has had a turn makes room for whoever has waited as long: a model that is always called must
not keep another from ever being executed.

The workers of a new version come on top while those that they replace are still there: waiting for a slot that the old
version holds, and holds for as long as it is called, would be waiting for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lockstep.server.scheduling.wakeup import Wakeup

TURN_S: Final = 5.0
"""What a worker has at least, once it is ready, before it makes room while it is busy: starting one takes seconds."""


@dataclass(slots=True, eq=False)
class SlotLease:
    """A worker that holds a slot. `leave` asks it to stop; it does so before it takes another batch."""

    leave: Callable[[], None]
    ready_since_s: float | None = None  # by the event loop's clock; None while it starts
    idle_since_ns: int | None = None  # None while it executes or starts
    asked: bool = False
    surging: bool = False  # it replaces one that is about to go, and does not count until then


class WorkerSlots:
    """A bounded number of slots."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._leases: set[SlotLease] = set()
        self._queue: deque[SlotLease] = deque()
        self._room = Wakeup()

    @property
    def free(self) -> bool:
        """Whether a worker could start that nobody waits for: nobody would have to leave, or to wait longer."""
        return self._taken + len(self._queue) < self._most

    async def enter(self, lease: SlotLease) -> None:
        """Wait for a slot, first come, first served.

        While there is none, whoever has been idle longest is asked to leave, and after a turn's time whoever has been
        busy longest.
        """
        self._queue.append(lease)
        try:
            await self._wait_for_room(lease)
            self._leases.add(lease)
        finally:
            self._queue.remove(lease)
            self._room.notify()

    def surge(self, lease: SlotLease) -> None:
        """Take a place beyond the bound, until `count`."""
        lease.surging = True
        self._leases.add(lease)

    def count(self, lease: SlotLease) -> None:
        """Count one that came on top: what it replaces has gone. Where that is one too many, an idle one leaves."""
        lease.surging = False
        self.changed()

    def exit(self, lease: SlotLease) -> None:
        """Give a slot back."""
        self._leases.discard(lease)
        self.changed()

    def changed(self) -> None:
        """Let those who wait look again: a slot is free, or a worker has become idle."""
        if len(self._leases) > self._most and self._taken - self._leaving > self._most:
            self._ask(self._idle_longest())
        self._room.notify()

    @property
    def _taken(self) -> int:
        return sum(not one.surging for one in self._leases)

    @property
    def _leaving(self) -> int:
        return sum(one.asked for one in self._leases)

    async def _wait_for_room(self, lease: SlotLease) -> None:
        loop = asyncio.get_running_loop()
        turn_ends_s = loop.time() + TURN_S
        while self._queue[0] is not lease or self._taken >= self._most:
            if self._leaving < len(self._queue):
                late = loop.time() >= turn_ends_s
                self._ask(self._idle_longest() or (self._busy_longest(loop.time() - TURN_S) if late else None))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(max(turn_ends_s, loop.time() + TURN_S / 8)):
                    await self._room.wait()

    def _idle_longest(self) -> SlotLease | None:
        idle = [one for one in self._leases if one.idle_since_ns is not None and not (one.asked or one.surging)]
        return min(idle, key=lambda one: one.idle_since_ns or 0, default=None)

    def _busy_longest(self, before_s: float) -> SlotLease | None:
        """Return who has been ready longest, of those that were so before an instant."""
        busy = [
            (one.ready_since_s, index, one)
            for index, one in enumerate(self._leases)
            if one.ready_since_s is not None and one.ready_since_s <= before_s and not (one.asked or one.surging)
        ]
        return min(busy)[2] if busy else None

    def _ask(self, lease: SlotLease | None) -> None:
        if lease is not None:
            lease.asked = True
            lease.leave()
