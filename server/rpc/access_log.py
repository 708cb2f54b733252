"""One line a call: method, model, rows, status, milliseconds, peer. Off unless asked for: it costs.

A stream is one call, and its line comes when it ends. The model and the rows are what the gateway tells its observers
in the context of the call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from server.core.errors import LockstepError
from server.core.messages import Answer, BatchFacts, Prediction
from server.core.request_id import request_id
from server.core.timing import Phases, now_ns
from server.rpc.status import Context

_log = logging.getLogger("lockstep.access")


@dataclass(slots=True)
class _Call:
    """What is known of a call so far; of a stream, the model of its last request and the rows of all."""

    model: str = ""
    rows: int = 0


_current: ContextVar[_Call | None] = ContextVar("access_log_call", default=None)


class AccessLog:
    """Follows calls from their beginning to their status; hears of models and rows as an observer."""

    def call_finished(self, prediction: Prediction, last: Answer | None, phases: Phases | None) -> None:
        """Take note of the model and the rows of an answered request."""
        if (call := _current.get()) is not None:
            call.model = prediction.model
            call.rows += len(prediction.outcomes)

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Take note of the model of a request that failed."""
        if (call := _current.get()) is not None:
            call.model = model

    def batch_executed(self, model: str, version: int, batch: BatchFacts) -> None:
        """Leave batches to the metrics."""

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Leave batches to the metrics."""

    def row_failed(self, model: str, version: int, backend: str | None, error: LockstepError) -> None:
        """Leave rows to the metrics."""

    def limit_reached(self, limit: str) -> None:
        """Leave this to the status of the call."""

    def follow(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any], caller: str
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Return a handler that does the same and writes a line at the end; `caller` is the name of its token."""
        if handler.unary_unary is not None and handler.request_deserializer is None:
            return grpc.unary_unary_rpc_method_handler(_followed(method, handler.unary_unary, caller))
        if handler.stream_stream is not None and handler.request_deserializer is None:
            return grpc.stream_stream_rpc_method_handler(_followed(method, handler.stream_stream, caller))
        return handler  # reflection


def _followed(method: str, answer: Callable[..., Any], caller: str) -> Callable[..., Any]:
    async def call(message: object, context: Context) -> Any:
        began_ns = now_ns()
        noted = _Call()
        _current.set(noted)
        status = "CANCELLED"  # what remains where neither an answer nor a status was sent: the client has gone
        try:
            answered = await answer(message, context)
            status = "OK"
            return answered
        except grpc.aio.AbortError:
            status = context.code().name
            raise
        finally:
            fields = {
                "method": method,
                "model": noted.model,
                "rows": noted.rows,
                "status": status,
                "ms": round((now_ns() - began_ns) / 1e6, 3),
                "peer": context.peer(),
                "caller": caller,
                "request_id": request_id(),
            }
            _log.info("call", extra={"fields": fields})

    return call
