"""Several addresses behind one seam: which of them a call goes to. Sends nothing twice; retries are the client's.

A call goes to the address with the fewest calls in flight. An address that cannot answer (UNAVAILABLE, or
RESOURCE_EXHAUSTED with a pushback) is set aside: for its pushback, or for a pause that doubles while it keeps
failing. Then one call at a time tries it, until one is answered. Where another address is to be had, the error's
pushback becomes zero, so that the client's retry goes there at once; where none is, calls go to the address that comes
back first.

An address that said nothing until a call's deadline, on that call or any other, may be slow or may hang. It is asked
whether it lives, at no caller's cost, and takes calls again when it has answered; while it does not, it is set aside
and asked again after each pause.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from lockstep.clients.errors import CallError, Cancelled, ClientNotOpen, DeadlineExceeded, Unavailable
from lockstep.clients.transport import SERVER_LIVE, Connect, Method, Request, Response, Transport
from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as wire

Answer = TypeVar("Answer")
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
ALIVE_WITHIN_S: Final = 2.0
"""What a server that is asked whether it lives has for its answer."""


@dataclass(slots=True)
class _Address:
    """One server, and what became of the calls to it."""

    transport: Transport
    in_flight: int = 0
    failures: int = 0  # since it last answered
    aside_until_s: float = 0.0
    heard: int = 0  # how often it answered anything
    silent: bool = False  # a deadline passed without a word from it, and it said nothing since
    question: asyncio.Task[None] | None = None  # whether it lives

    def open_to_calls(self, now_s: float) -> bool:
        """Whether it takes a call: it answers, or it failed some time ago and nothing tries it yet."""
        return not self.silent and self.aside_until_s <= now_s and (not self.failures or not self.in_flight)

    def answered(self) -> None:
        """Take note that it lives."""
        self.heard += 1
        self.failures = 0
        self.silent = False


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
        self._closed = False

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        """Send texts to one address and return their answers; raises `CallError`."""
        return await self._send(lambda transport: transport.classify(request, timeout_s=timeout_s))

    async def call(self, method: Method[Request, Response], request: Request, *, timeout_s: float) -> Response:
        """Make any other unary call, to one address; raises `CallError`."""
        return await self._send(lambda transport: transport.call(method, request, timeout_s=timeout_s))

    async def close(self) -> None:
        """End what is in flight with `Cancelled` and disconnect."""
        self._closed = True
        questions = [one.question for one in self._addresses if one.question is not None]
        for question in questions:
            question.cancel()
        await asyncio.gather(*(address.transport.close() for address in self._addresses))
        await asyncio.gather(*questions, return_exceptions=True)

    async def _send(self, call: Callable[[Transport], Awaitable[Answer]]) -> Answer:
        if self._closed:
            raise ClientNotOpen("the client was closed: open it again")
        address = self._pick()
        heard = address.heard
        address.in_flight += 1
        try:
            answer = await call(address.transport)
        except CallError as error:
            if error.may_retry:
                self._set_aside(address, error.pushback_s)
                self._point_elsewhere(error)
            elif isinstance(error, DeadlineExceeded) and error.passed_here:
                if address.heard == heard:
                    address.silent = True
                    self._ask_silent_ones()
            elif not isinstance(error, Cancelled):
                address.answered()
            raise
        finally:
            address.in_flight -= 1
        address.answered()
        return answer

    def _pick(self) -> _Address:
        self._ask_silent_ones()
        now_s = self._clock_s()
        open_ones = [one for one in self._addresses if one.open_to_calls(now_s)]
        if open_ones:
            return min(open_ones, key=lambda one: (one.in_flight, self._dice()))
        return min(
            self._addresses, key=lambda one: (max(now_s, one.aside_until_s), one.silent, one.in_flight, self._dice())
        )

    def _ask_silent_ones(self) -> None:
        """Ask each address that said nothing whether it lives, unless it is being asked, or set aside."""
        now_s = self._clock_s()
        for one in self._addresses:
            if one.silent and one.aside_until_s <= now_s and (one.question is None or one.question.done()):
                one.question = asyncio.create_task(self._ask_whether_it_lives(one))

    async def _ask_whether_it_lives(self, address: _Address) -> None:
        heard = address.heard
        try:
            await address.transport.call(SERVER_LIVE, oip.ServerLiveRequest(), timeout_s=ALIVE_WITHIN_S)
        except (Cancelled, ClientNotOpen):
            return
        except CallError as error:
            if isinstance(error, Unavailable) or (isinstance(error, DeadlineExceeded) and error.passed_here):
                if address.heard == heard:
                    self._set_aside(address, None)
                return
        address.answered()  # any other error is an answer too

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
            # One that is silent may never come back.
            soonest_s = min(
                (one.aside_until_s - now_s for one in self._addresses if not one.silent), default=error.pushback_s
            )
            error.pushback_s = max(0.0, min(error.pushback_s, soonest_s))
