"""Single calls over one bidirectional stream that they share: half the server's CPU time of unary calls, or less.

A call is a message with an id; its answer, error, deadline and cancellation are its own. Where the stream ends, what
it had not answered fails with `Unavailable` (or with the status that ended it); the client sends that again within its
deadline, over the next stream. Large calls stay unary: they gain nothing, and would hold up the small ones.

A call whose caller left before it was written is never written. One that was written takes its room until the server
has answered it, whether anybody waits or not: a server that hangs holds no more of them than one that works. A stream
that moves no further for some seconds is ended, which lets the server drop what it had not read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Final

import grpc

from lockstep.clients.credentials import Credentials
from lockstep.clients.errors import (
    ERROR_BY_STATUS,
    CallError,
    Cancelled,
    DeadlineExceeded,
    ServerFailure,
    Unavailable,
    error_from_rpc,
    status_of,
)
from lockstep.clients.in_flight import CallsInFlight
from lockstep.clients.transport import GrpcTransport, Method, Request, Response
from lockstep.protos import sentiment_pb2 as wire

MOST_IN_FLIGHT: Final = 256
"""Messages without an answer; the next waits its turn. Below what servers take by default."""
LARGE_ROWS: Final = 32
LARGE_BYTES: Final = 65_536
OF_THE_STREAM_ALONE: Final = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Statuses by which a server or a proxy ends a stream and that say nothing of the calls on it: those have their own."""
ENDED_UNDER_A_MESSAGE: Final = "Internal error from Core"
"""gRPC's own details, INTERNAL, where the stream ended while a message was written; the true status is lost."""
STUCK_S: Final = 5.0
"""That a message may take to be written, once there is a connection, while the server says nothing."""


class StreamTransport:
    """One channel: texts travel on a stream, large calls and everything else as unary calls."""

    def __init__(
        self,
        address: str,
        credentials: Credentials = Credentials(),  # noqa: B008  frozen
        *,
        stuck_s: float = STUCK_S,
    ) -> None:
        """Connect when the first call is made; raises as `GrpcTransport` does."""
        self._unary = GrpcTransport(address, credentials)
        self._stuck_s = stuck_s
        self._calls = CallsInFlight()
        self._room = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._stream: _Stream | None = None

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        """Send texts and return their answers; raises `CallError`."""
        if len(request.texts) > LARGE_ROWS or request.ByteSize() > LARGE_BYTES:
            return await self._unary.classify(request, timeout_s=timeout_s)
        until_s = asyncio.get_running_loop().time() + timeout_s
        try:
            async with self._calls.one(until_s):
                await self._room.acquire()
                return await self._open_stream().ask(request, until_s)
        except TimeoutError:
            late = DeadlineExceeded(f"no answer within {timeout_s:.3g} s", code=grpc.StatusCode.DEADLINE_EXCEEDED)
            late.passed_here = True
            raise late from None

    async def call(self, method: Method[Request, Response], request: Request, *, timeout_s: float) -> Response:
        """Make a unary call; raises `CallError`."""
        return await self._unary.call(method, request, timeout_s=timeout_s)

    async def close(self) -> None:
        """End what is in flight with `Cancelled` and disconnect."""
        try:
            await self._calls.close()
            if self._stream is not None:
                await self._stream.close()
        finally:
            await self._unary.close()

    def _open_stream(self) -> _Stream:
        if self._stream is None or self._stream.ended:
            self._stream = _Stream(self._unary.classify_stream(), self._room, self._stuck_s)
        return self._stream


@dataclass(frozen=True, slots=True, eq=False)
class _Unsent:
    """A call that was not written yet."""

    request: wire.ClassifyRequest
    until_s: float
    answer: asyncio.Future[wire.StreamResponse]


class _Stream:
    """One stream: a writer and a reader, and the calls that wait for answers by id.

    A call comes with its room taken; it is released when the call is answered, dropped unsent, or the stream ends.
    """

    def __init__(self, call: Any, room: asyncio.Semaphore, stuck_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.ended = False
        self._call = call
        self._room = room
        self._stuck_s = stuck_s
        self._unsent: OrderedDict[str, _Unsent] = OrderedDict()
        self._unanswered: dict[str, asyncio.Future[wire.StreamResponse]] = {}  # written, or being written
        self._unwanted: set[str] = set()  # of those, the ones that nobody waits for any more
        self._cancels: deque[str] = deque()
        self._more_to_write = asyncio.Event()
        self._numbers = 0
        self._now_s = loop.time
        self._heard_s = loop.time()
        self._writing_since_s: float | None = None
        self._tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._write())}
        for task in self._tasks:
            task.add_done_callback(self._tasks.discard)
        self._watch = loop.call_later(stuck_s / 2, self._look)

    async def ask(self, request: wire.ClassifyRequest, until_s: float) -> wire.ClassifyResponse:
        """Send a request and wait for its answer; raises `CallError`. Cancelling it cancels it at the server."""
        self._numbers += 1
        key = str(self._numbers)
        waiting: asyncio.Future[wire.StreamResponse] = asyncio.get_running_loop().create_future()
        self._unsent[key] = _Unsent(request, until_s, waiting)
        self._more_to_write.set()
        try:
            answer = await waiting
        finally:
            self._forget(key)
        if answer.WhichOneof("outcome") == "error":
            raise _error(answer.error)
        return answer.response

    async def close(self) -> None:
        """End the stream; what waits fails with `Cancelled`."""
        self._end(Cancelled("the client was closed", code=grpc.StatusCode.CANCELLED))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, key: str) -> None:
        """Nobody waits for the call any more: the server hears so, if it heard of the call."""
        if self._unsent.pop(key, None) is not None:
            self._room.release()
        elif key in self._unanswered:
            self._unwanted.add(key)
            self._cancels.append(key)
            self._more_to_write.set()

    async def _write(self) -> None:
        """Send what is to be sent; why a stream ends, the reader learns."""
        try:
            await self._call.wait_for_connection()
            while True:
                while (message := self._next_message()) is not None:
                    await self._call.write(message)
                    self._writing_since_s = None
                self._more_to_write.clear()
                await self._more_to_write.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return
        except Exception as error:
            self._end(ServerFailure(f"a message cannot be written: {error!r}", code=grpc.StatusCode.INTERNAL))
            raise

    def _next_message(self) -> wire.StreamRequest | None:
        """Take what is written next: cancellations first, which make room."""
        self._writing_since_s = now_s = self._now_s()
        while self._cancels:
            if (key := self._cancels.popleft()) in self._unanswered:
                return wire.StreamRequest(cancel=key)
        while self._unsent:
            key, unsent = self._unsent.popitem(last=False)
            if unsent.answer.done():  # cancelled, but its task did not run yet
                self._room.release()
                continue
            self._unanswered[key] = unsent.answer
            # The server counts the time from the message's arrival: what it waited here is gone already.
            timeout_us = max(1, int((unsent.until_s - now_s) * 1e6))
            message = wire.StreamRequest(classify=unsent.request, together=True, timeout_us=timeout_us)
            message.classify.id = key
            return message
        self._writing_since_s = None
        return None

    async def _read(self) -> None:
        why: CallError = Unavailable("the server ended the stream", code=grpc.StatusCode.UNAVAILABLE)
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._heard_s = self._now_s()
                self._settle(message)
                for more in message.more:
                    self._settle(more)
            if (code := await self._call.code()) is not grpc.StatusCode.OK:
                why = ERROR_BY_STATUS[code](await self._call.details() or code.name, code=code)
        except grpc.aio.AioRpcError as error:
            why = error_from_rpc(error)
            if why.code in OF_THE_STREAM_ALONE or error.details() == ENDED_UNDER_A_MESSAGE:
                why = Unavailable(f"the stream was ended: {why}", code=grpc.StatusCode.UNAVAILABLE)
        finally:
            self._end(why)

    def _settle(self, answer: wire.StreamResponse) -> None:
        """Give an answer to who waits for it; to one that was cancelled meanwhile nobody listens."""
        waiting = self._unanswered.pop(answer.id, None)
        if waiting is None:
            return
        self._unwanted.discard(answer.id)
        self._room.release()
        if not waiting.done():
            waiting.set_result(answer)

    def _look(self) -> None:
        """End the stream where it moves no further: a write is stuck, or what nobody wants takes the room."""
        now_s = self._now_s()
        silent_s = now_s - self._heard_s
        if self._writing_since_s is not None and min(silent_s, now_s - self._writing_since_s) >= self._stuck_s:
            self._end(_stuck("took no message", now_s - self._writing_since_s))
        elif len(self._unwanted) >= MOST_IN_FLIGHT // 2 and silent_s >= self._stuck_s:
            self._end(_stuck("answered nothing, not even cancellations,", silent_s))
        else:
            self._watch = asyncio.get_running_loop().call_later(self._stuck_s / 2, self._look)

    def _end(self, why: CallError) -> None:
        if self.ended:
            return
        self.ended = True
        self._watch.cancel()
        for task in self._tasks:
            task.cancel()
        self._call.cancel()
        self._call = None  # gRPC keeps the connection of a closed channel as long as somebody holds a call
        waiting = [*self._unanswered.values(), *(unsent.answer for unsent in self._unsent.values())]
        self._unanswered.clear()
        self._unsent.clear()
        for one in waiting:
            self._room.release()
            if not one.done():
                one.set_exception(why)


def _stuck(what: str, for_s: float) -> Unavailable:
    return Unavailable(f"the server {what} for {for_s:.1f} s: its stream was ended", code=grpc.StatusCode.UNAVAILABLE)


def _error(error: wire.Error) -> CallError:
    """Turn a message's error into what a unary call would have raised."""
    code = status_of(error.code)
    if code is grpc.StatusCode.OK:
        code = grpc.StatusCode.UNKNOWN  # a server's bug
    pushback_s = error.retry_after_ms / 1000 if error.retry_after_ms else None
    return ERROR_BY_STATUS[code](error.message, code=code, pushback_s=pushback_s)
