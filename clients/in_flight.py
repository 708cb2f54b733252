"""The calls of something that can be closed: closing ends those under way, and new ones are refused. Sends nothing."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import grpc

from lockstep.clients.errors import Cancelled, ClientNotOpen


class CallsInFlight:
    """Every call runs in a block of its own (`async with calls.one():`), so that `close` can end it and await its end.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self.closed = False
        self._timeouts: set[asyncio.Timeout] = set()
        self._none_left = asyncio.Event()

    def one(self, until_s: float | None = None) -> _One:
        """Return the block of a call.

        Entering raises `ClientNotOpen` once closed; leaving raises `TimeoutError` after `until_s` (loop time), and
        `Cancelled` where `close` ended it.
        """
        return _One(self, until_s)

    async def close(self) -> None:
        """End the calls under way and wait until each has unwound; from now on new ones are refused."""
        self.closed = True
        for timeout in self._timeouts:
            if not timeout.expired():
                timeout.reschedule(0.0)
        while self._timeouts:
            self._none_left.clear()
            await self._none_left.wait()

    def enter(self, timeout: asyncio.Timeout) -> None:
        """Count a call in."""
        self._timeouts.add(timeout)

    def leave(self, timeout: asyncio.Timeout) -> None:
        """Count a call out."""
        self._timeouts.discard(timeout)
        if not self._timeouts:
            self._none_left.set()


class _One:
    """One call: asyncio's own timeout, which `close` lets run out, tells our ending of a task from its caller's."""

    __slots__ = ("_calls", "_timeout")

    def __init__(self, calls: CallsInFlight, until_s: float | None) -> None:
        self._calls = calls
        self._timeout = asyncio.timeout_at(until_s)

    async def __aenter__(self) -> Self:
        if self._calls.closed:
            raise ClientNotOpen("the client was closed: open it again")
        await self._timeout.__aenter__()
        self._calls.enter(self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.leave(self._timeout)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            if self._calls.closed:
                raise Cancelled("the client was closed", code=grpc.StatusCode.CANCELLED) from None
            raise
