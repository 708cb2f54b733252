"""How the server's errors reach a gRPC caller: a total table, and the one place that applies it.

::

    InvalidInput, InputTooLong         INVALID_ARGUMENT
    MessageTooLarge                    RESOURCE_EXHAUSTED   as gRPC itself says it; no pushback
    ModelNotFound, BackendNotFound     NOT_FOUND
    LoadFailed                         FAILED_PRECONDITION
    ModelNotReady, BackendUnavailable  UNAVAILABLE          may be retried
    Overloaded                         RESOURCE_EXHAUSTED   may be retried after the pushback
    DeadlineExceeded                   DEADLINE_EXCEEDED
    Cancelled                          CANCELLED
    NotAuthenticated                   UNAUTHENTICATED
    NotPermitted                       PERMISSION_DENIED
    RowFailed, anything else           INTERNAL             with a request id; no internals
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from lockstep.server.core.errors import (
    BackendNotFound,
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    InputTooLong,
    InvalidInput,
    LoadFailed,
    LockstepError,
    MessageTooLarge,
    ModelNotFound,
    ModelNotReady,
    NotAuthenticated,
    NotPermitted,
    Overloaded,
    RowFailed,
)
from lockstep.server.core.request_id import request_id
from lockstep.server.core.timing import now_ns

STATUS: Mapping[type[LockstepError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    InputTooLong: grpc.StatusCode.INVALID_ARGUMENT,
    MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    BackendNotFound: grpc.StatusCode.NOT_FOUND,
    LoadFailed: grpc.StatusCode.FAILED_PRECONDITION,
    ModelNotReady: grpc.StatusCode.UNAVAILABLE,
    BackendUnavailable: grpc.StatusCode.UNAVAILABLE,
    RowFailed: grpc.StatusCode.INTERNAL,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Cancelled: grpc.StatusCode.CANCELLED,
    NotAuthenticated: grpc.StatusCode.UNAUTHENTICATED,
    NotPermitted: grpc.StatusCode.PERMISSION_DENIED,
}

PUSHBACK_KEY = "grpc-retry-pushback-ms"
REQUEST_ID_KEY = "x-request-id"

_log = logging.getLogger("lockstep.rpc")
_Request = TypeVar("_Request", bound=Message)
Context = grpc.aio.ServicerContext[bytes, bytes]
"""Of a method that takes and answers raw messages."""


@dataclass(frozen=True, slots=True)
class CallInstants:
    """When a call arrived, when it was decoded, when it must be answered (monotonic ns)."""

    received_ns: int
    decoded_ns: int
    deadline_ns: int | None


Answer = Callable[[_Request, CallInstants], Awaitable[Message]]


def unary(name: str, request_type: type[_Request], answer: Answer[_Request]) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that decodes the raw request here, so that undecodable bytes are the caller's error."""

    async def handle(payload: bytes, context: Context) -> bytes:
        received_ns = now_ns()
        remaining_s = cast("float | None", context.time_remaining())  # None without a deadline, whatever the stubs say
        try:
            request = parse(request_type, payload)
            deadline_ns = None if remaining_s is None else received_ns + int(remaining_s * 1e9)
            response = await answer(request, CallInstants(received_ns, now_ns(), deadline_ns))
            return response.SerializeToString()
        except LockstepError as error:
            await refuse(context, error)
        except Exception as error:
            await abort_unexpected(name, context, error)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(handle)


def unimplemented(name: str, reason: str) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler of a method that is not here; it says why."""

    async def handle(_: bytes, context: Context) -> bytes:
        metadata = ((REQUEST_ID_KEY, request_id()),)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name}: {reason}", metadata)
        raise AssertionError("abort raises")

    return grpc.unary_unary_rpc_method_handler(handle)


def parse(request_type: type[_Request], payload: bytes) -> _Request:
    """Decode a message; raises `InvalidInput` where the bytes are none, invalid UTF-8 in a string included."""
    request = request_type()
    try:
        request.ParseFromString(payload)
    except DecodeError as error:
        raise InvalidInput(
            f"the request is not a valid {request_type.DESCRIPTOR.full_name}: "
            "its bytes end too soon, or are no protobuf, or hold a string that is not UTF-8"
        ) from error
    return request


async def abort_unexpected(name: str, context: Context, error: Exception) -> None:
    """End a call that failed by our fault: the log has the traceback, the caller an id to find it by."""
    found = request_id()
    _log.error("%s failed unexpectedly", name, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL,
        f"internal error; the server's log tells more under request id {found}",
        ((REQUEST_ID_KEY, found),),
    )


async def refuse(context: Context, error: LockstepError) -> None:
    """End a call with an error's status and its request id; an overload says how long the caller should pause."""
    metadata: tuple[tuple[str, str], ...] = ((REQUEST_ID_KEY, request_id()),)
    if isinstance(error, Overloaded):
        metadata = (*metadata, (PUSHBACK_KEY, str(int(error.retry_after_s * 1000))))
    await context.abort(STATUS[type(error)], told(error), metadata)


def told(error: LockstepError) -> str:
    """Return what the caller reads of an error; what a runtime said goes to the log, with an id to find it by."""
    if not (isinstance(error, RowFailed) and error.detail):
        return error.message
    found = request_id()
    _log.error("%s: %s", error.message, error.detail)
    return f"{error.message}; the server's log tells more under request id {found}"


def too_large(size: int, most: int) -> MessageTooLarge:
    """Return the error of a message over the limit."""
    return MessageTooLarge(f"the message has {size} bytes, at most {most} are taken (--max-message-bytes): send less")
