"""Many requests over one call: answers when they are ready, each with its own error, bounded in flight.

Owns the exchange of messages; what a message says is its service's (`Dialect`). A request costs no task of its
own: it is queued as it is read, and its answer is written when the queue has it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from lockstep.server.core.errors import Cancelled, LockstepError, ModelNotReady, Overloaded, RowFailed
from lockstep.server.core.messages import Prediction, PredictRequest
from lockstep.server.core.request_id import request_id
from lockstep.server.core.timing import now_ns
from lockstep.server.gateway import Gateway, InFlight
from lockstep.server.rpc.status import Context, abort_unexpected, refuse, too_large

_log = logging.getLogger("lockstep.rpc")
_TOGETHER_BYTES = 65_536
"""Of one message that holds several answers: far below what clients take."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A request read off a stream, and how its answer or error is written."""

    id: str
    request: PredictRequest
    answer: Callable[[Prediction], bytes]
    error: Callable[[LockstepError], bytes]
    join: Callable[[Sequence[bytes]], bytes] | None = None  # makes one message of several answers, from now on


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that is wrong in itself, and the answer that says so."""

    id: str
    answer: bytes


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """The request of that id need not be answered any more."""

    id: str


class Dialect(Protocol):
    """What the messages of one service's stream say."""

    def open(self, payload: bytes, received_ns: int) -> Opened | Refused | CancelRequest:
        """Read a message; raises `InvalidInput` where it cannot be told whose it is, which ends the stream."""
        ...


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of one stream."""

    max_messages: int  # whose answers were not written yet; nothing further is read meanwhile
    max_message_bytes: int
    reached: Callable[[str], None]  # hears of each limit that refuses something, by its name


class Streams:
    """The streams of one method."""

    def __init__(self, name: str, gateway: Gateway, dialect: Dialect, limits: StreamLimits) -> None:
        self._name = name
        self._gateway = gateway
        self._dialect = dialect
        self._limits = limits
        self._open: set[_Exchange] = set()

    def handler(self) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the method's handler; it takes and writes raw messages."""

        async def handle(_: object, context: Context) -> None:
            exchange = _Exchange(context, self._gateway, self._dialect, self._limits)
            self._open.add(exchange)
            try:
                await exchange.run()
            except LockstepError as error:
                await refuse(context, error)
            except grpc.aio.InternalError:
                raise  # the client has gone: nobody is left to answer
            except Exception as error:
                await abort_unexpected(self._name, context, error)
            finally:
                self._open.discard(exchange)

        return grpc.stream_stream_rpc_method_handler(handle)

    def drain(self) -> None:
        """Read no further; answer what was read, then end each stream as UNAVAILABLE: clients go elsewhere."""
        for exchange in self._open:
            exchange.drain()


class _Exchange:
    """One stream: a reader that queues requests, a writer that sends answers."""

    def __init__(self, context: Context, gateway: Gateway, dialect: Dialect, limits: StreamLimits) -> None:
        self._context = context
        self._gateway = gateway
        self._dialect = dialect
        self._limits = limits
        self._in_flight: dict[int, _Slot] = {}
        self._by_id: dict[str, int] = {}
        self._in_order: deque[_Slot] = deque()  # slots of requests without an id, oldest first
        self._outbox: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._numbers = 0
        self._unsent = 0  # requests that were read and whose answer was not written yet, whatever it waits for
        self._join: Callable[[Sequence[bytes]], bytes] | None = None
        self._finished_reading = False
        self._draining = False
        self._ended = False
        self._reader: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Exchange messages until the client has said all and was answered."""
        self._reader = asyncio.create_task(self._read())
        self._reader.add_done_callback(lambda _: self._stop_reading())
        try:
            while not (self._finished_reading and not self._in_flight and not self._outbox):
                while self._outbox:
                    await self._context.write(self._next_message())
                if self._finished_reading and not self._in_flight:
                    continue
                self._changed.clear()
                await self._changed.wait()
        finally:
            self._reader.cancel()
            self._ended = True
            for slot in self._in_flight.values():
                slot.abandon()
        if not self._reader.cancelled() and (error := self._reader.exception()) is not None:
            raise error
        if self._draining:
            raise ModelNotReady("the server is stopping: connect again")

    def _next_message(self) -> bytes:
        """Take from the outbox what goes next: an answer, or as many as may and can go together."""
        answer = self._outbox.popleft()
        self._sent()
        if self._join is None or not self._outbox:
            return answer
        answers, size = [answer], len(answer)
        while self._outbox and (size := size + len(self._outbox[0])) <= _TOGETHER_BYTES:
            answers.append(self._outbox.popleft())
            self._sent()
        return self._join(answers)

    def _sent(self) -> None:
        self._unsent -= 1
        self._room.set()

    def drain(self) -> None:
        """Stop reading; `run` ends when what was read is answered."""
        self._draining = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        while True:
            payload: object = await self._context.read()
            if not isinstance(payload, bytes):
                return  # grpc.aio.EOF: the client has said all
            if len(payload) > self._limits.max_message_bytes:
                self._limits.reached("max_message_bytes")
                raise too_large(len(payload), self._limits.max_message_bytes)
            self._take(payload, now_ns())
            while self._unsent >= self._limits.max_messages:
                self._room.clear()
                await self._room.wait()

    def _stop_reading(self) -> None:
        self._finished_reading = True
        self._changed.set()

    def _take(self, payload: bytes, received_ns: int) -> None:
        message = self._dialect.open(payload, received_ns)
        if isinstance(message, CancelRequest):
            number = self._by_id.get(message.id)
            if number is not None:
                self._in_flight[number].abandon()
            return
        self._numbers += 1
        self._unsent += 1
        slot = _Slot(self._numbers, message.id)
        if not slot.id:
            self._in_order.append(slot)
        self._in_flight[slot.number] = slot
        if isinstance(message, Refused):
            self._settle(slot, message.answer)
            return
        self._join = message.join or self._join
        if slot.id:
            self._by_id[slot.id] = slot.number
        if self._gateway.is_long(message.request):
            slot.task = asyncio.create_task(self._predict(slot, message))
            return
        try:
            slot.request = self._gateway.begin(message.request)
        except Exception as error:
            self._settle(slot, message.error(_told(error)))
            return
        slot.request.done.add_done_callback(functools.partial(self._finish, slot, message))

    def _finish(self, slot: _Slot, opened: Opened, done: asyncio.Future[None]) -> None:
        if slot.number not in self._in_flight or slot.request is None:
            return
        if self._ended:  # with answers missing: the client has gone
            slot.request.give_up()
            return
        try:
            answer = opened.answer(slot.request.finish())
        except Exception as error:
            answer = opened.error(_told(error))
        self._settle(slot, answer)

    async def _predict(self, slot: _Slot, opened: Opened) -> None:
        try:
            answer = opened.answer(await self._gateway.predict(opened.request))
        except asyncio.CancelledError:  # `abandon`: by the caller, who is told, or at the stream's end
            answer = opened.error(Cancelled("the request was cancelled"))
        except Exception as error:
            answer = opened.error(_told(error))
        self._settle(slot, answer)

    def _settle(self, slot: _Slot, answer: bytes) -> None:
        """Send an answer, or keep it until the requests before it that have no id are answered."""
        del self._in_flight[slot.number]
        if slot.id:
            if self._by_id.get(slot.id) == slot.number:
                del self._by_id[slot.id]
            self._outbox.append(answer)
        else:
            slot.answer = answer
            while self._in_order and (first := self._in_order[0].answer) is not None:
                self._outbox.append(first)
                self._in_order.popleft()
        self._changed.set()


class _Slot:
    """A request of a stream that has no answer yet."""

    __slots__ = ("answer", "id", "number", "request", "task")

    def __init__(self, number: int, request_id: str) -> None:
        self.number = number
        self.id = request_id
        self.request: InFlight | None = None
        self.task: asyncio.Task[None] | None = None
        self.answer: bytes | None = None

    def abandon(self) -> None:
        """Take the request out of the queue; what becomes of its rows settles it."""
        if self.request is not None:
            self.request.abandon()
        if self.task is not None:
            self.task.cancel()


def _told(error: Exception) -> LockstepError:
    """Return what a message's sender is told of its failure; one of ours goes to the log, with an id to find it by."""
    if isinstance(error, LockstepError):
        return error
    _log.error("a message of a stream failed unexpectedly", exc_info=error)
    return RowFailed(f"internal error; the server's log tells more under request id {request_id()}")


def retry_after_ms(error: LockstepError) -> int:
    """Return the pause (ms) that an error asks for, 0 for none."""
    return int(error.retry_after_s * 1000) if isinstance(error, Overloaded) else 0
