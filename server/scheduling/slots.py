"""How many workers a server may have at once, over all its models. An idle one makes room for one that is needed.

The workers of a new version come on top while those that they replace are still there: waiting for a slot that the old
version holds, and holds for as long as it is called, would be waiting for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from server.scheduling.wakeup import Wakeup


@dataclass(slots=True, eq=False)
class Tenant:
    """A worker that holds a slot. `leave` asks it to stop; it does so when it next is idle."""

    leave: Callable[[], None]
    idle_since_ns: int | None = None  # None while it executes or starts
    asked: bool = False
    on_top: bool = False  # it replaces one that is about to go, and does not count until then


class WorkerSlots:
    """A bounded number of slots."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tenants: set[Tenant] = set()
        self._entering = 0
        self._room = Wakeup()

    @property
    def free(self) -> bool:
        """Whether a worker could start that nobody waits for: nobody would have to leave, or to wait longer."""
        return self._taken + self._entering < self._most

    async def enter(self, tenant: Tenant) -> None:
        """Wait for a slot; while there is none, ask whoever has been idle longest to leave."""
        self._entering += 1
        try:
            await self._wait_for_room()
        finally:
            self._entering -= 1
        self._tenants.add(tenant)

    def enter_on_top(self, tenant: Tenant) -> None:
        """Take a place beyond the bound, until `count`."""
        tenant.on_top = True
        self._tenants.add(tenant)

    def count(self, tenant: Tenant) -> None:
        """Count one that came on top: what it replaces has gone. Where that is one too many, an idle one leaves."""
        tenant.on_top = False
        self.changed()

    def exit(self, tenant: Tenant) -> None:
        """Give a slot back."""
        self._tenants.discard(tenant)
        self.changed()

    def changed(self) -> None:
        """Let those who wait look again: a slot is free, or a worker has become idle."""
        if len(self._tenants) > self._most and self._taken - sum(one.asked for one in self._tenants) > self._most:
            self._ask_one_to_leave()
        self._room.notify()

    @property
    def _taken(self) -> int:
        return sum(not one.on_top for one in self._tenants)

    async def _wait_for_room(self) -> None:
        while self._taken >= self._most:
            self._ask_one_to_leave()
            await self._room.wait()

    def _ask_one_to_leave(self) -> None:
        idle = [one for one in self._tenants if one.idle_since_ns is not None and not (one.asked or one.on_top)]
        if idle:
            longest = min(idle, key=lambda one: one.idle_since_ns or 0)
            longest.asked = True
            longest.leave()
