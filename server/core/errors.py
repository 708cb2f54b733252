"""The errors of the product, one tree; `rpc.status` maps it to gRPC statuses.

::

    LockstepError
    ├── InvalidInput              the caller's mistake; permanent
    │   ├── InputTooLong          over a length limit; permanent
    │   └── MessageTooLarge       over the limit of bytes; permanent
    ├── ModelNotFound
    ├── BackendNotFound
    ├── LoadFailed                what is published cannot be served; until that changes, retrying cannot help
    ├── ModelNotReady             may be retried
    ├── BackendUnavailable        may be retried
    ├── RowFailed                 the backend fails on this very row; retrying cannot help
    ├── Overloaded                may be retried after `retry_after_s`
    ├── DeadlineExceeded
    ├── Cancelled                 the caller has gone; counted, never sent
    ├── NotAuthenticated
    └── NotPermitted

Messages of this tree are written for callers: they name what is wrong and what to do, and hold
no internals. Anything outside the tree is a bug, and is answered without its text.
"""

from __future__ import annotations

from typing import Self

_MOST_BYTES = 2_000
"""Of a message: it may quote what the caller sent, and gRPC clients drop a status of more than a few kilobytes."""


class LockstepError(Exception):
    """Root of the errors that a caller may see."""

    @property
    def message(self) -> str:
        """The text for the caller, cut where it is long."""
        text = str(self)
        if len(text) * 4 <= _MOST_BYTES:
            return text
        encoded = text.encode(errors="replace")
        if len(encoded) <= _MOST_BYTES:
            return text
        return encoded[:_MOST_BYTES].decode(errors="ignore") + " ..."

    def of_row(self, index: int) -> Self:
        """Return the same error, naming the row that it is of."""
        named = type(self).__new__(type(self), f"row {index}: {self.message}")
        named.__dict__.update(self.__dict__)
        return named


class InvalidInput(LockstepError):
    """The request cannot be understood or breaks a documented rule; sending it again cannot help."""


class InputTooLong(InvalidInput):
    """A text or sequence exceeds the model's maximum and truncation was not asked for."""


class MessageTooLarge(InvalidInput):
    """A message has more bytes than the server takes; sending it again cannot help."""


class ModelNotFound(LockstepError):
    """No model of that name or version is served."""


class BackendNotFound(LockstepError):
    """The model has no backend of that name."""


class LoadFailed(LockstepError):
    """The version that is published cannot be served; what was served before goes on."""


class ModelNotReady(LockstepError):
    """The model is known but nothing can execute it yet; may be retried."""


class BackendUnavailable(LockstepError):
    """The backend failed while it held the row, or cannot start; may be retried."""


class RowFailed(LockstepError):
    """The backend failed on this row alone; sending it again would fail it again."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        """`detail` is what the runtime said: for the log, never for the caller."""
        super().__init__(message)
        self.detail = detail


class Overloaded(LockstepError):
    """A limit on what is done at once is reached; may be retried after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float, limit: str) -> None:
        """`limit` is the configuration's name of it."""
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limit = limit


class DeadlineExceeded(LockstepError):
    """The row's deadline passed, or cannot be met."""


class Cancelled(LockstepError):
    """The caller has gone, and its row left the queue unexecuted."""


class NotAuthenticated(LockstepError):
    """The caller did not say who it is."""


class NotPermitted(LockstepError):
    """The caller may not do this."""
