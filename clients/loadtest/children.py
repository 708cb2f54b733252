"""The processes that a load test starts, so that none is left behind. Knows nothing of what they do.

They are told things on their stdin, and end when it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import IO, Final

from lockstep import child_processes

MOST_LINE_BYTES: Final = 64 * 1024 * 1024
STOP_S: Final = 10.0
"""How long a process may take to end by itself."""


class Children:
    """Started one by one, ended together."""

    def __init__(self) -> None:
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, function: str, *arguments: str, words: IO[bytes] | None = None) -> asyncio.subprocess.Process:
        """Start a process that runs `module:function` of ours; `words` takes its stderr (`None`: it has ours).

        A caller that is cancelled meanwhile is so when it has started: then `end` knows of it.
        """
        return await child_processes.wait_through_cancellation(self._start(function, *arguments, words=words))

    async def _start(self, function: str, *arguments: str, words: IO[bytes] | None) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *child_processes.command(function, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
            env=child_processes.environment(),
            limit=MOST_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is ours: we end them in order
        )
        self._processes.append(process)
        return process

    async def end(self, *, patience_s: float = STOP_S) -> None:
        """Close their stdin, and reap them; what takes longer than `patience_s` is killed.

        Cancelling it kills them all; a caller that is cancelled is so when they are reaped.
        """
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        now = asyncio.get_running_loop().time
        until_s = now() + patience_s
        cancelled: asyncio.CancelledError | None = None
        for process in self._processes:
            wait_until_s: float | None = until_s
            while process.returncode is None:
                try:
                    async with asyncio.timeout_at(wait_until_s):
                        await process.wait()
                    continue
                except TimeoutError:
                    pass
                except asyncio.CancelledError as error:
                    cancelled, until_s = error, now()
                wait_until_s = None  # a killed one ends
                with contextlib.suppress(ProcessLookupError):  # it ended at this instant
                    process.kill()
        if cancelled is not None:
            raise cancelled
