"""What stands before every gRPC method: who may call, how much at once, request ids. Knows no method's messages.

It is where gRPC looks for handlers, so a refused call costs a look-up and a status: its message is not read, and an
allowed one pays for no interceptor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from lockstep.server.core import request_id
from lockstep.server.core.errors import LockstepError, ModelNotReady, Overloaded
from lockstep.server.core.tokens import Role, Tokens, bearer
from lockstep.server.rpc.access_log import follow
from lockstep.server.rpc.status import REQUEST_ID_KEY, Context, refuse, too_large
from lockstep.server.scheduling.wakeup import Wakeup

AUTHORIZATION_KEY = "authorization"
_RETRY_S = 0.1
_OPEN = "/grpc.health.v1.Health/"
"""Orchestrators ask for health without a token; it says no more than whether we serve."""
_ADMIN = frozenset(
    f"/inference.GRPCInferenceService/{method}" for method in ("RepositoryModelLoad", "RepositoryModelUnload")
)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of what is answered at once, and of one message."""

    max_calls: int
    max_streams: int
    max_message_bytes: int


class Guard(grpc.GenericRpcHandler):
    """The one handler that a server is given; `handlers` are behind it."""

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        limits: CallLimits,
        limit_reached: Callable[[str], None],
        *,
        tokens: Tokens | None = None,
        access_log: bool = False,
    ) -> None:
        """`tokens`: None lets everyone in; `limit_reached` hears the name of every limit that refuses something."""
        self.calls = 0
        self.streams = 0
        self.watches = 0  # streams of others' services: of health, of reflection
        self._handlers = handlers
        self._limits = limits
        self._limit_reached = limit_reached
        self._tokens = tokens
        self._access_log = access_log
        self._guarded: dict[str, Handler] = {}  # by method; those that exist, so that it is bounded
        self._draining = False
        self._ended = Wakeup()

    def drain(self) -> None:
        """Refuse every new call as UNAVAILABLE, but for health; those under way are answered."""
        self._draining = True

    async def idle(self) -> None:
        """Wait until every call and stream is answered, to the last byte."""
        while self.calls or self.streams:
            await self._ended.wait()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a call, or one that refuses it. gRPC asks in the task that will answer the call."""
        method = handler_call_details.method
        if method.startswith(_OPEN):
            found = self._find(handler_call_details)
            return self._bounded(found) if found is not None else None
        authorization = None
        for key, value in handler_call_details.invocation_metadata or ():
            if key == AUTHORIZATION_KEY:
                authorization = str(value)
            elif key == REQUEST_ID_KEY:
                request_id.adopt(str(value))
        caller = ""
        try:
            if self._tokens is not None:
                needed = Role.ADMIN if method in _ADMIN else Role.INFER
                caller = self._tokens.check(bearer(authorization), needed).name
            if self._draining:
                raise ModelNotReady("the server is stopping: connect again")
        except LockstepError as error:
            refusal = _refusal(error)
            return follow(method, refusal, caller) if self._access_log else refusal
        handler = self._guarded.get(method)
        if handler is None:
            found = self._find(handler_call_details)
            if found is None:
                return None
            handler = self._guarded[method] = self._guard(found)
        handler = self._bounded(handler)
        return follow(method, handler, caller) if self._access_log else handler

    def _bounded(self, handler: Handler) -> Handler:
        """Hold a stream of a service that is not ours against the limit of streams; it may never end by itself."""
        if not handler.response_streaming or handler.request_deserializer is None:
            return handler
        if self.watches >= self._limits.max_streams:
            self._limit_reached("max_streams")
            return _refusal(_too_many("max_streams", "streams of health or reflection", self._limits.max_streams))
        self.watches += 1
        _when_over(self._watch_ended)
        return handler

    def _find(self, details: grpc.HandlerCallDetails) -> Handler | None:
        return next((found for one in self._handlers if (found := one.service(details)) is not None), None)

    def _guard(self, handler: Handler) -> Handler:
        """Count a method's calls and hold them against the limits; reflection's are left as they are."""
        if handler.request_deserializer is not None:
            return handler
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._counting(handler.unary_unary))
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._counting_streams(handler.stream_stream))
        raise ValueError("a method of raw messages is unary, or a stream both ways")

    def _counting(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        limits = self._limits

        async def call(payload: bytes, context: Context) -> bytes:
            if self.calls >= limits.max_calls:
                await self._over("max_calls", "calls", limits.max_calls, context)
            if len(payload) > limits.max_message_bytes:
                self._limit_reached("max_message_bytes")
                await refuse(context, too_large(len(payload), limits.max_message_bytes))
            self.calls += 1
            _when_over(self._call_ended)
            echo_request_id(context)
            answered: bytes = await answer(payload, context)
            return answered

        return call

    def _counting_streams(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        limits = self._limits

        async def stream(messages: object, context: Context) -> None:
            if self.streams >= limits.max_streams:
                await self._over("max_streams", "streams", limits.max_streams, context)
            self.streams += 1
            _when_over(self._stream_ended)
            echo_request_id(context)
            await answer(messages, context)

        return stream

    def _call_ended(self, task: object) -> None:
        self.calls -= 1
        self._ended.notify()

    def _stream_ended(self, task: object) -> None:
        self.streams -= 1
        self._ended.notify()

    def _watch_ended(self, task: object) -> None:
        self.watches -= 1

    async def _over(self, limit: str, what: str, most: int, context: Context) -> None:
        self._limit_reached(limit)
        await refuse(context, _too_many(limit, what, most))


def _too_many(limit: str, what: str, most: int) -> Overloaded:
    flag = limit.replace("_", "-")
    message = f"the server answers {most} {what}, at most {most} at once (--{flag}): retry later"
    return Overloaded(message, retry_after_s=_RETRY_S, limit=limit)


def _when_over(tell: Callable[[object], None]) -> None:
    """Call back when the call under way is over, its answer sent: gRPC answers each in a task of its own."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(tell)


def echo_request_id(context: Context) -> None:
    """Send the caller's request id back with the status, where it sent one."""
    known = request_id.known()
    if known is not None:
        context.set_trailing_metadata(((REQUEST_ID_KEY, known),))


def _refusal(error: LockstepError) -> Handler:
    """Return a handler that refuses a call of any kind before its message is read."""

    async def handle(messages: object, context: Context) -> None:
        await refuse(context, error)

    return grpc.stream_stream_rpc_method_handler(handle)
