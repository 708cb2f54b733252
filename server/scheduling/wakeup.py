"""Waking coroutines that wait for a change."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Wakes those who wait, the last to come first.

    What was checked before `wait` cannot be missed: nothing runs between. The order is for workers: one that executed a
    moment ago still has its model in the processor's caches.
    """

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Wake everyone who waits now."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in reversed(waiters):
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the next `notify`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter
