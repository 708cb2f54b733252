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

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the next `notify`, or for `timeout_s` seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if timeout_s is None:
            await waiter
            return
        await asyncio.wait([waiter], timeout=max(0.0, timeout_s))
        if not waiter.done():
            self._waiters.remove(waiter)
            waiter.cancel()
