"""One line a call, of both ports: method, models, rows, errors, status, time, peer. Off unless asked for: it costs.

A stream is one call, and its line comes when it ends. Models, rows and errors are what the gateway tells its observers
in the context of the call. Knows no transport: those follow their calls, and say here how each ended.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field

from lockstep.server.core.errors import LockstepError
from lockstep.server.core.messages import Answer, BatchFacts, Prediction
from lockstep.server.core.request_id import request_id
from lockstep.server.core.timing import Phases, now_ns

_log = logging.getLogger("lockstep.access")


@dataclass(slots=True)
class Call:
    """What is known of a call so far."""

    began_ns: int
    models: set[str] = field(default_factory=set)  # that are served: as many as those, whatever is asked for
    messages: int = 0  # that were answered or failed: one, but of a stream all, and of Compare one a backend
    rows: int = 0  # that were answered
    errors: Counter[str] = field(default_factory=Counter)  # of messages, and of rows of those answered, by kind


_current: ContextVar[Call | None] = ContextVar("access_log_call", default=None)


def begin() -> Call:
    """Note from now on what the call in this context comes to."""
    call = Call(now_ns())
    _current.set(call)
    return call


def current() -> Call | None:
    """Return the call in this context, where one began."""
    return _current.get()


def end(call: Call, *, method: str, status: str | int, peer: str, caller: str) -> None:
    """Write the line of a call, in its context; `caller` is the name of its token."""
    fields = {
        "method": method,
        "model": ",".join(sorted(call.models)),
        "messages": call.messages,
        "rows": call.rows,
        "errors": dict(call.errors),
        "status": status,
        "ms": round((now_ns() - call.began_ns) / 1e6, 3),
        "peer": peer,
        "caller": caller,
        "request_id": request_id(),
    }
    _log.info("call", extra={"fields": fields})


class AccessLog:
    """Takes note of what calls come to, as an observer."""

    def call_finished(self, prediction: Prediction, last: Answer | None, phases: Phases | None) -> None:
        """Take note of the model and the rows of an answered request."""
        if (call := _current.get()) is None:
            return
        call.models.add(prediction.model)
        call.messages += 1
        call.rows += len(prediction.outcomes)
        for outcome in prediction.outcomes:
            if isinstance(outcome, LockstepError):
                call.rows -= 1
                call.errors[type(outcome).__name__] += 1

    def call_failed(self, model: str, version: int, backend: str | None, kind: str, elapsed_ns: int) -> None:
        """Take note of a request that failed, and of its model where it named one that is served."""
        if (call := _current.get()) is None:
            return
        if model:
            call.models.add(model)
        call.messages += 1
        call.errors[kind] += 1

    def batch_executed(self, model: str, version: int, batch: BatchFacts) -> None:
        """Leave batches to the metrics."""

    def batch_abandoned(self, model: str, version: int, backend: str) -> None:
        """Leave batches to the metrics."""

    def row_failed(self, model: str, version: int, backend: str | None, error: LockstepError) -> None:
        """Leave rows to the metrics: they fail in the context of their batch."""

    def limit_reached(self, limit: str) -> None:
        """Leave this to the status of the call."""
