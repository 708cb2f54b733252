"""Single calls over one bidirectional stream that they share: half the server's CPU time of unary calls, or less.

A call is a message with an id; its answer, error, deadline and cancellation are its own. Where the stream ends, what
it had not answered fails with `Unavailable` (or with the status that ended it); the client sends that again within its
deadline, over the next stream. Large calls stay unary: they gain nothing, and would hold up the small ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

import grpc

from clients.credentials import Credentials
from clients.errors import (
    ERROR_BY_STATUS,
    CallError,
    Cancelled,
    DeadlineExceeded,
    Unavailable,
    error_from_rpc,
    status_of,
)
from clients.transport import GrpcTransport, Method, Request, Response
from protos import sentiment_pb2 as wire

MOST_IN_FLIGHT: Final = 256
"""Messages without an answer; the next waits its turn. Below what servers take by default."""
LARGE_ROWS: Final = 32
LARGE_BYTES: Final = 65_536


class StreamTransport:
    """One channel: texts travel on a stream, large calls and everything else as unary calls."""

    def __init__(self, address: str, credentials: Credentials = Credentials()) -> None:  # noqa: B008  frozen
        """Connect when the first call is made; raises as `GrpcTransport` does."""
        self._unary = GrpcTransport(address, credentials)
        self._room = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._stream: _Stream | None = None

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        """Send texts and return their answers; raises `CallError`."""
        if len(request.texts) > LARGE_ROWS or request.ByteSize() > LARGE_BYTES:
            return await self._unary.classify(request, timeout_s=timeout_s)
        until_s = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(until_s), self._room:
                return await self._open_stream().ask(request, until_s)
        except TimeoutError:
            raise DeadlineExceeded(
                f"no answer within {timeout_s:.3g} s", code=grpc.StatusCode.DEADLINE_EXCEEDED
            ) from None

    async def call(self, method: Method[Request, Response], request: Request, *, timeout_s: float) -> Response:
        """Make a unary call; raises `CallError`."""
        return await self._unary.call(method, request, timeout_s=timeout_s)

    async def close(self) -> None:
        """Give up what is in flight and disconnect."""
        if self._stream is not None:
            await self._stream.close()
        await self._unary.close()

    def _open_stream(self) -> _Stream:
        if self._stream is None or self._stream.ended:
            self._stream = _Stream(self._unary.classify_stream())
        return self._stream


class _Stream:
    """One stream: a writer and a reader, and the calls that wait for answers by id."""

    def __init__(self, call: Any) -> None:
        self.ended = False
        self._call = call
        self._waiting: dict[str, asyncio.Future[wire.StreamResponse]] = {}
        self._outbox: deque[wire.StreamRequest] = deque()
        self._more_to_write = asyncio.Event()
        self._numbers = 0
        self._reader = asyncio.create_task(self._read())
        self._writer = asyncio.create_task(self._write())

    async def ask(self, request: wire.ClassifyRequest, until_s: float) -> wire.ClassifyResponse:
        """Send a request and wait for its answer; raises `CallError`. Cancelling it cancels it at the server."""
        loop = asyncio.get_running_loop()
        self._numbers += 1
        key = str(self._numbers)
        message = wire.StreamRequest(classify=request, together=True)
        message.classify.id = key
        message.timeout_us = max(1, int((until_s - loop.time()) * 1e6))
        waiting: asyncio.Future[wire.StreamResponse] = loop.create_future()
        self._waiting[key] = waiting
        self._send(message)
        try:
            answer = await waiting
        finally:
            if self._waiting.pop(key, None) is not None and not self.ended:
                self._send(wire.StreamRequest(cancel=key))
        if answer.WhichOneof("outcome") == "error":
            raise _error(answer.error)
        return answer.response

    async def close(self) -> None:
        """End the stream; what waits fails with `Cancelled`."""
        self._end(Cancelled("the client was closed", code=grpc.StatusCode.CANCELLED))
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)

    def _send(self, message: wire.StreamRequest) -> None:
        self._outbox.append(message)
        self._more_to_write.set()

    async def _write(self) -> None:
        """Send what is to be sent; why a stream ends, the reader learns."""
        try:
            while True:
                while self._outbox:
                    await self._call.write(self._outbox.popleft())
                self._more_to_write.clear()
                await self._more_to_write.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return

    async def _read(self) -> None:
        why: CallError = Unavailable("the server ended the stream", code=grpc.StatusCode.UNAVAILABLE)
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self._settle(message)
                for more in message.more:
                    self._settle(more)
            if (code := await self._call.code()) is not grpc.StatusCode.OK:
                why = ERROR_BY_STATUS[code](await self._call.details() or code.name, code=code)
        except grpc.aio.AioRpcError as error:
            why = error_from_rpc(error)
        finally:
            self._end(why)

    def _settle(self, answer: wire.StreamResponse) -> None:
        """Give an answer to who waits for it; to one that was cancelled meanwhile nobody listens."""
        waiting = self._waiting.pop(answer.id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _end(self, why: CallError) -> None:
        if self.ended:
            return
        self.ended = True
        self._writer.cancel()
        self._reader.cancel()
        self._call.cancel()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(why)
        self._waiting.clear()


def _error(error: wire.Error) -> CallError:
    """Turn a message's error into what a unary call would have raised."""
    code = status_of(error.code)
    if code is grpc.StatusCode.OK:
        code = grpc.StatusCode.UNKNOWN  # a server's bug
    pushback_s = error.retry_after_ms / 1000 if error.retry_after_ms else None
    return ERROR_BY_STATUS[code](error.message, code=code, pushback_s=pushback_s)
