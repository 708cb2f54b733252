"""The flow: chunks are read ahead, asked for several at once, written in their order. Knows no file and no server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from lockstep.clients.batch.batch_errors import BatchError
from lockstep.clients.batch.rows import Chunk
from lockstep.clients.results import Result

_AHEAD: Final = 4
"""Chunks held for each call in flight: one that takes long does not stop the others at once."""


@dataclass(frozen=True, slots=True)
class Window:
    """How much may be held at once, between reading and writing."""

    calls: int
    size_bytes: int = 64 * 1024 * 1024

    @property
    def chunks(self) -> int:
        """Chunks that were read and not written."""
        return self.calls * _AHEAD


async def flow(
    read: Callable[[], Awaitable[Chunk | None]],
    ask: Callable[[Chunk], Awaitable[list[Result]]],
    write: Callable[[Chunk, list[Result]], Awaitable[None]],
    window: Window,
) -> None:
    """Carry every chunk from `read` through `ask` to `write`.

    The first error in the order of the rows ends it; whatever comes before that was written.
    """
    held: deque[tuple[Chunk, asyncio.Task[list[Result]]]] = deque()
    held_bytes = 0
    calls = asyncio.Semaphore(window.calls)
    reading: asyncio.Task[Chunk | None] | None = None
    ended = False
    failure: BatchError | None = None

    async def answer(chunk: Chunk) -> list[Result]:
        async with calls:
            return await ask(chunk)

    async def next_chunk() -> Chunk | None:
        return await read()

    try:
        while True:
            if not ended and reading is None and len(held) < window.chunks and held_bytes < window.size_bytes:
                reading = asyncio.create_task(next_chunk())
            waiting: list[asyncio.Task[Any]] = [task for _, task in list(held)[:1]] + ([reading] if reading else [])
            if not waiting:
                break
            # An input that pauses holds up no answer that is there.
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading is not None and reading.done():
                try:
                    chunk = reading.result()
                except BatchError as error:  # rows before it are answered first
                    chunk, failure = None, error
                reading = None
                if chunk is None:
                    ended = True
                else:
                    held.append((chunk, asyncio.create_task(answer(chunk))))
                    held_bytes += chunk.size_bytes
            if held and held[0][1].done():
                head, answered = held[0]
                await write(head, answered.result())
                held.popleft()
                held_bytes -= head.size_bytes
        if failure is not None:
            raise failure
    finally:
        left = [task for _, task in held] + ([reading] if reading else [])
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
