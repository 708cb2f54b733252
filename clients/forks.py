"""Whether this process was forked after its parent had used a client: gRPC does not survive that, and calls hang."""

from __future__ import annotations

import os
from typing import Final

from lockstep.clients.errors import ForkedAfterUse

_used: Final[set[int]] = set()
"""Process ids of this process, and of those that it was forked from, that have made a channel."""


def check_process() -> None:
    """Raise `ForkedAfterUse` in a process in which no call would ever be answered."""
    used = _used - {os.getpid()}
    if used:
        raise ForkedAfterUse(min(used))


def note_use() -> None:
    """Note that gRPC runs in this process from now on; raises `ForkedAfterUse`."""
    check_process()
    _used.add(os.getpid())
