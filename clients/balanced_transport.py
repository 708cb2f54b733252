"""Several addresses behind one seam: which of them a call goes to. Sends nothing twice; retries are the client's.

A call goes to the address with the fewest calls in flight. An address that cannot answer (UNAVAILABLE, or
RESOURCE_EXHAUSTED with a pushback) is set aside: for its pushback, or for a pause that doubles while it keeps
failing. Then one call at a time tries it, until one is answered. Where another address is to be had, the error's
pushback becomes zero, so that the client's retry goes there at once; where none is, calls go to the address that comes
back first.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from clients.errors import CallError
from clients.transport import Connect, Method, Request, Response, Transport
from protos import sentiment_pb2 as wire

Answer = TypeVar("Answer")
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0


@dataclass(slots=True)
class _Address:
    """One server, and what became of the calls to it."""

    transport: Transport
    in_flight: int = 0
    failures: int = 0  # since it last answered
    aside_until_s: float = 0.0

    def open_to_calls(self, now_s: float) -> bool:
        """Whether it takes a call: it answers, or it failed some time ago and nothing tries it yet."""
        return self.aside_until_s <= now_s and (not self.failures or not self.in_flight)


class BalancedTransport:
    """Transports to several addresses, used as one. `clock_s` is monotonic, `dice` uniform in [0, 1)."""

    def __init__(
        self,
        addresses: Sequence[str],
        connect: Connect,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """Make a transport to each address; raises as `connect` does."""
        self._addresses = [_Address(connect(address)) for address in addresses]
        self._clock_s = clock_s
        self._dice = dice

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        """Send texts to one address and return their answers; raises `CallError`."""
        return await self._send(lambda transport: transport.classify(request, timeout_s=timeout_s))

    async def call(self, method: Method[Request, Response], request: Request, *, timeout_s: float) -> Response:
        """Make any other unary call, to one address; raises `CallError`."""
        return await self._send(lambda transport: transport.call(method, request, timeout_s=timeout_s))

    async def close(self) -> None:
        """Give up what is in flight and disconnect."""
        await asyncio.gather(*(address.transport.close() for address in self._addresses))

    async def _send(self, call: Callable[[Transport], Awaitable[Answer]]) -> Answer:
        address = self._pick()
        address.in_flight += 1
        try:
            answer = await call(address.transport)
        except CallError as error:
            if error.may_retry:
                self._set_aside(address, error.pushback_s)
                self._point_elsewhere(error)
            raise
        finally:
            address.in_flight -= 1
        address.failures = 0
        return answer

    def _pick(self) -> _Address:
        now_s = self._clock_s()
        open_ones = [one for one in self._addresses if one.open_to_calls(now_s)]
        if open_ones:
            return min(open_ones, key=lambda one: (one.in_flight, self._dice()))
        return min(self._addresses, key=lambda one: (max(now_s, one.aside_until_s), one.in_flight, self._dice()))

    def _set_aside(self, address: _Address, pushback_s: float | None) -> None:
        now_s = self._clock_s()
        if now_s < address.aside_until_s:
            return  # the calls that were in flight when it failed all fail: that is one failure
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(address.failures, 64))
        address.failures += 1
        address.aside_until_s = now_s + (pause_s if pushback_s is None else pushback_s)

    def _point_elsewhere(self, error: CallError) -> None:
        """Make the error's pushback the time until an address takes the call again."""
        now_s = self._clock_s()
        if any(one.open_to_calls(now_s) for one in self._addresses):
            error.pushback_s = 0.0
        elif error.pushback_s is not None:
            soonest_s = min(one.aside_until_s for one in self._addresses) - now_s
            error.pushback_s = max(0.0, min(error.pushback_s, soonest_s))
