"""Rows on their way, and the call that they came with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lockstep.server.core.messages import Encoding, Outcome


class Call:
    """Rows that were admitted together. `done` is set when each has its outcome."""

    __slots__ = ("_pending", "done", "outcomes")

    def __init__(self, rows: int) -> None:
        self.outcomes: list[Outcome | None] = [None] * rows
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending = rows
        if not rows:
            self.done.set_result(None)

    def resolve(self, index: int, outcome: Outcome) -> None:
        """Give a row its outcome."""
        self.outcomes[index] = outcome
        self._pending -= 1
        if not self._pending and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Row:
    """A row in the queue or in a worker."""

    call: Call
    index: int  # within the call
    encoding: Encoding
    arrival_ns: int
    deadline_ns: int
    pinned_to: str | None
    tries_alone: int = 0  # executions by itself, after a batch with it in had failed
    abandoned: bool = False  # its caller has gone
