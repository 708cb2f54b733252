"""What scheduling knows of a worker: the seam behind which a process executes batches, or a puppet in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from lockstep.server.runtimes.base import Ids, Lengths
from lockstep.server.runtimes.worker_process import Executed, Launch


class Worker(Protocol):
    """A started worker that has loaded its artifact. It is never restarted: its owner starts another."""

    @property
    def launch(self) -> Launch:
        """How it was started."""
        ...

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Its runtime's packages and their versions."""
        ...

    @property
    def exited(self) -> asyncio.Event:
        """Set once it has ended, however it ended."""
        ...

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        ...

    async def execute(self, ids: Ids, lengths: Lengths) -> Executed:
        """Execute ids int64[batch, length] with lengths int64[batch].

        Raises `BatchFailed` if the runtime refused the batch, `BackendUnavailable` if the worker ended.
        """
        ...

    async def stop(self) -> None:
        """End it after the batch that it executes; within a bounded time."""
        ...

    async def kill(self) -> None:
        """End it now."""
        ...


StartWorker = Callable[[Launch], Awaitable[Worker]]
"""Starts a worker and loads its artifact; raises `BackendUnavailable` with the reason."""
