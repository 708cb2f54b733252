"""What a call can fail with: one tree, and the total table from gRPC statuses to it.

::

    ClientError
    ├── ClientNotOpen            used outside `async with` (or `with`)
    ├── ForkedAfterUse           in a child that was forked after its parent had used a client
    ├── OtherEventLoop           used in another event loop than the one that it was opened in
    ├── RowsFailed               raised by `raise_for_errors`: some rows of an answer are errors
    └── CallError                the call as a whole failed     status
        ├── InvalidInput         the caller's mistake           INVALID_ARGUMENT, OUT_OF_RANGE
        ├── NotFound             no such model or backend       NOT_FOUND
        ├── Conflict             not in this state              FAILED_PRECONDITION, ABORTED, ALREADY_EXISTS
        ├── Unavailable          retried always                 UNAVAILABLE
        ├── Overloaded           retried with pushback only     RESOURCE_EXHAUSTED
        ├── DeadlineExceeded     out of time                    DEADLINE_EXCEEDED
        ├── Cancelled            by either side                 CANCELLED
        ├── NotAuthenticated     who are you?                   UNAUTHENTICATED
        ├── NotPermitted         you may not                    PERMISSION_DENIED
        ├── NotImplementedThere  the server lacks the method    UNIMPLEMENTED
        └── ServerFailure        a bug on the other side        INTERNAL, UNKNOWN, DATA_LOSS

The server's tree is finer than the statuses; what is lost on a call is kept on a row, whose error
names its kind (`InputTooLong`, `BackendUnavailable`, ...).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

import grpc

from lockstep.protos import sentiment_pb2 as wire

PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""Trailing metadata by which the server says when to come back, in milliseconds; negative: never."""

DEADLINE_PASSED_HERE: Final = "Deadline Exceeded"
"""gRPC's own details where the deadline passed on this side; nothing else in the status tells whose word it is."""


class ClientError(Exception):
    """Root of everything this library raises by itself."""


class ClientNotOpen(ClientError):
    """The client was used before its `with` block was entered, or after it was left.

    What was in flight when it was left ends with `Cancelled`.
    """


class ForkedAfterUse(ClientError):
    """The process was forked from one that had used a client, and gRPC does not work in such a process."""

    def __init__(self, parent: int) -> None:
        super().__init__(
            f"this process was forked from process {parent} after a client was used there, and gRPC does not survive a "
            "fork: start processes by multiprocessing.get_context('spawn'), or use no client before the fork"
        )


class OtherEventLoop(ClientError):
    """A client belongs to the event loop that it was opened in: open one in each, or use `SyncClient`."""


class CallError(ClientError):
    """A call failed with a gRPC status.

    `pushback_s` is the server's word on when to come back: seconds, `None` where it said nothing,
    negative where it said never.
    """

    retryable: ClassVar[bool] = False
    """Whether the same call may be sent again when the server says nothing about it."""

    retryable_with_pushback: ClassVar[bool] = False
    """Whether the same call may be sent again when the server says when."""

    def __init__(self, message: str, *, code: grpc.StatusCode, pushback_s: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.pushback_s = pushback_s

    @property
    def may_retry(self) -> bool:
        """Whether sending the same call again can help, by its status and the server's pushback."""
        if self.pushback_s is None:
            return self.retryable
        return self.pushback_s >= 0 and self.retryable_with_pushback


class InvalidInput(CallError):
    """The request breaks a rule; sending it again cannot help."""


class NotFound(CallError):
    """No model or backend of that name is served."""


class Conflict(CallError):
    """The request is fine, but not in the state that the server is in."""


class Unavailable(CallError):
    """Nothing can answer now: no server, a model that is not ready, a backend that failed. Retried."""

    retryable = True
    retryable_with_pushback = True


class Overloaded(CallError):
    """A bounded queue is full (retried when the server says when), or the message exceeds a limit."""

    retryable_with_pushback = True


class DeadlineExceeded(CallError):
    """The answer did not come, or could not come, in time."""

    passed_here = False
    """Whether the time was over on this side, so that the server may have said nothing at all."""


class Cancelled(CallError):
    """The call was cancelled, by the server or by the closing of the client."""


class NotAuthenticated(CallError):
    """The server wants to know who is calling."""


class NotPermitted(CallError):
    """The caller may not do this."""


class NotImplementedThere(CallError):
    """The server does not have this method: not a Lockstep server, or an older one."""


class ServerFailure(CallError):
    """The server failed unexpectedly; its message holds a request id to look for in its log."""


ERROR_BY_STATUS: Final[Mapping[grpc.StatusCode, type[CallError]]] = MappingProxyType(
    {
        grpc.StatusCode.CANCELLED: Cancelled,
        grpc.StatusCode.UNKNOWN: ServerFailure,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
        grpc.StatusCode.NOT_FOUND: NotFound,
        grpc.StatusCode.ALREADY_EXISTS: Conflict,
        grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
        grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
        grpc.StatusCode.FAILED_PRECONDITION: Conflict,
        grpc.StatusCode.ABORTED: Conflict,
        grpc.StatusCode.UNIMPLEMENTED: NotImplementedThere,
        grpc.StatusCode.INTERNAL: ServerFailure,
        grpc.StatusCode.UNAVAILABLE: Unavailable,
        grpc.StatusCode.DATA_LOSS: ServerFailure,
        grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    }
)
"""Every status but OK. A test holds it total."""

STATUS_BY_NUMBER: Final[Mapping[int, grpc.StatusCode]] = MappingProxyType(
    {status.value[0]: status for status in grpc.StatusCode}
)


def status_of(number: int) -> grpc.StatusCode:
    """Return the status of that number; one that gRPC does not define is UNKNOWN, as gRPC itself rules."""
    return STATUS_BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why one text has no answer while others of its call may have one."""

    kind: str  # the server's name for it: InvalidInput, InputTooLong, Overloaded, ...
    code: grpc.StatusCode  # what a call of this row alone would have failed with
    message: str

    @property
    def may_retry(self) -> bool:
        """Whether sending this row again can help."""
        return self.as_exception().may_retry

    def as_exception(self) -> CallError:
        """Return the exception that a call of this row alone would have raised."""
        return ERROR_BY_STATUS[self.code](self.message, code=self.code)

    @classmethod
    def from_wire(cls, error: wire.Error) -> RowError:
        """Read one row's error. A row that failed with "OK" is a server's bug, and reads as UNKNOWN."""
        code = status_of(error.code)
        return cls(error.kind, grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code, error.message)


class RowsFailed(ClientError):
    """Some rows of an answer carry errors; `errors` holds them by position in the request."""

    def __init__(self, errors: Mapping[int, RowError], rows: int) -> None:
        row, first = next(iter(errors.items()))
        super().__init__(f"{len(errors)} of {rows} rows failed; row {row}: {first.kind}: {first.message}")
        self.errors = MappingProxyType(dict(errors))


def error_from_rpc(error: grpc.aio.AioRpcError) -> CallError:
    """Turn what grpc raises into an error of this tree."""
    code = error.code()
    details = error.details() or code.name
    message = f"{details}{_cause_of(details)}" if code is grpc.StatusCode.UNAVAILABLE else details
    found = ERROR_BY_STATUS[code](message, code=code, pushback_s=pushback_s(error.trailing_metadata()))
    if isinstance(found, DeadlineExceeded):
        found.passed_here = message == DEADLINE_PASSED_HERE
    return found


_CAUSES: Final = (
    (
        "SETTINGS frame",
        "that port does not speak gRPC: is it the HTTP port? The gRPC port is 8001 by default",
    ),
    ("WRONG_VERSION_NUMBER", "the server does not use TLS there: leave TLS out"),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not of a CA that this client trusts: name its CA"),
    ("hostname", "the server's certificate is for another name than the one that was called"),
)
"""A piece of gRPC's details of a failed connection -> what it means."""


def _cause_of(details: str) -> str:
    return next((f" ({meaning})" for piece, meaning in _CAUSES if piece in details), "")


def pushback_s(metadata: Sequence[tuple[str, str | bytes]] | grpc.aio.Metadata | None) -> float | None:
    """Read the server's pushback (seconds) from trailing metadata; `None` where there is none.

    A value that is not a whole number means "do not retry", as in gRPC's own retry design (A6).
    """
    for key, value in metadata or ():
        if key == PUSHBACK_KEY:
            try:
                return int(value) / 1000
            except ValueError:
                return -1.0
    return None
