"""The id by which a call is found again: the caller's own, or one made here when something needs it.

It belongs to the task that answers the call, and to what that task starts.
"""

from __future__ import annotations

import os
from contextvars import ContextVar

_LONGEST = 128
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def adopt(request_id: str) -> None:
    """Take the caller's id, cut to 128 characters, for the call that is being answered."""
    _current.set(request_id[:_LONGEST])


def known() -> str | None:
    """Return the id of the call that is being answered, where it has one."""
    return _current.get()


def request_id() -> str:
    """Return the id of the call that is being answered; make one where it has none."""
    found = _current.get()
    if found is None:
        found = os.urandom(8).hex()
        _current.set(found)
    return found
