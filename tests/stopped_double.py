"""A `ServerDouble` in a process of its own, which the system can stop (SIGSTOP): a server that hangs.

Run as `python -m tests.stopped_double BACKEND`, it serves the model `tiny` with that backend until its stdin ends.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.wire_double import ServerDouble


@dataclass(frozen=True, slots=True)
class StoppableServer:
    """A running server; it can be made to hang, and to wake."""

    process: subprocess.Popen[bytes]
    address: str

    def stop(self) -> None:
        """Make it hang: its connections stay, and nothing is read or answered."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on with what has come meanwhile."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def stoppable_server(backend: str = "onnxruntime") -> Iterator[StoppableServer]:
    """Run one until the block ends."""
    command = [sys.executable, "-m", "tests.stopped_double", backend]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield StoppableServer(process, f"127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()  # a stopped process too


async def _serve(backend: str) -> None:
    async with ServerDouble(models={"tiny": (backend,)}) as server:
        print(server.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
