"""Has the access log follow gRPC's calls from their beginning to their status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from lockstep.server import access_log
from lockstep.server.rpc.status import Context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def follow(method: str, handler: Handler, caller: str) -> Handler:
    """Return a handler that does the same and writes a line at the end; `caller` is the name of its token."""
    if handler.unary_unary is not None and handler.request_deserializer is None:
        return grpc.unary_unary_rpc_method_handler(_followed(method, handler.unary_unary, caller))
    if handler.stream_stream is not None and handler.request_deserializer is None:
        return grpc.stream_stream_rpc_method_handler(_followed(method, handler.stream_stream, caller))
    return handler  # reflection


def _followed(method: str, answer: Callable[..., Any], caller: str) -> Callable[..., Any]:
    async def call(message: object, context: Context) -> Any:
        noted = access_log.begin()
        status = "CANCELLED"  # what remains where neither an answer nor a status was sent: the client has gone
        try:
            answered = await answer(message, context)
            status = "OK"
            return answered
        except grpc.aio.AbortError:
            status = context.code().name
            raise
        finally:
            access_log.end(noted, method=method, status=status, peer=context.peer(), caller=caller)

    return call
